"""To the detector's grid, channels last, and back: anomaly map and score from distances."""

from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_ad.backbones import FeatureMap
from edge_ad.models import Detector
from edge_ad_export.nodes import GraphBuilder


class GridFeatures(nn.Module):
    """Feature maps (N, C_i, h_i, w_i) to features (N, grid height, grid width, channels).

    What `embed_on_grid(local_average(maps))` computes, arranged for a CPU: all averaging of a map
    is one convolution of each channel by itself, interpolation is two matrix products, and the
    channels go last where the convolutions end, which costs nothing there.
    """

    def __init__(
        self,
        detector: Detector,
        layers: Sequence[FeatureMap],
        patch_size: int,
        *,
        channels: Tensor | None = None,
        gains: Tensor | None = None,
    ) -> None:
        """Prepare the constants.

        Args:
            detector: whose grid it is.
            layers: the feature maps that will come.
            patch_size: side of the window of the local average.
            channels: those that are wanted of the concatenated maps, ascending; None: all.
            gains: a factor for each wanted channel; None: 1.
        """
        super().__init__()
        if channels is None:
            channels = torch.arange(sum(layer.channels for layer in layers))
        if gains is None:
            gains = torch.ones(len(channels))
        self.maps = nn.ModuleList()
        start = 0
        for layer in layers:
            here = (channels >= start) & (channels < start + layer.channels)
            own = channels[here] - start
            averaging = _Averaging(
                layer, own, gains[here], (patch_size, detector.config.grid_stride)
            )
            self.maps.append(nn.Sequential(averaging, _ToGrid(layer, detector)))
            start += layer.channels

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Bring the maps to the grid."""
        parts = [to_grid(one) for to_grid, one in zip(self.maps, maps, strict=True)]
        return torch.cat(parts, dim=3)


def to_tiles(features: Tensor, tile: tuple[int, int]) -> Tensor:
    """Group features (N, height, width, C) by tiles: (N, tiles, patches of a tile, C)."""
    (height, width), channels = tile, features.shape[3]
    rows, columns = features.shape[1] // height, features.shape[2] // width
    patches = features.reshape(-1, rows, height, columns, width * channels)
    return patches.transpose(2, 3).reshape(-1, rows * columns, height * width, channels)


def finish(
    graph: GraphBuilder, detector: Detector, distance: str, *, score: str | None
) -> onnx.ModelProto:
    """Append upsampling and blur, as two matrix products, and name the outputs.

    Args:
        graph: what `distance` and `score` are computed in.
        detector: its grid and its smoothing.
        distance: tensor (N, P).
        score: tensor (N,); None: the highest value of the map.
    """
    smoothing = detector.smoothing
    grid = graph.node("Reshape", distance, graph.constant([-1, *detector.grid]))
    rows = graph.node("MatMul", graph.constant(smoothing.rows.numpy(), "rows"), grid)
    columns = graph.constant(smoothing.columns.T.numpy(), "columns")
    anomaly_map = graph.node("MatMul", rows, columns)
    if score is None:
        score = graph.node("ReduceMax", anomaly_map, graph.constant([1, 2]), keepdims=0)
    size = detector.preprocessing.input_size
    return graph.finish(
        {"score": (score, ["batch"]), "anomaly_map": (anomaly_map, ["batch", *size])}
    )


class _Averaging(nn.Module):
    """Wanted channels of a map, times their gains, averaged locally and down to the grid's stride.

    An average over p patches, zeros beyond the border, and then one over k, in steps of k, are a
    convolution with the product of both windows, p + k - 1 long.
    """

    def __init__(
        self, layer: FeatureMap, channels: Tensor, gains: Tensor, sizes: tuple[int, int]
    ) -> None:
        super().__init__()
        patch_size, grid_stride = sizes
        self._wanted = None if len(channels) == layer.channels else channels
        self._step = max(1, grid_stride // layer.stride)
        self._padding = patch_size // 2
        window = functional.conv1d(
            torch.full((1, 1, patch_size), 1 / patch_size),
            torch.full((1, 1, self._step), 1 / self._step),
            padding=self._step - 1,
        )[0, 0]
        self._weights = gains[:, None, None, None] * torch.outer(window, window)

    def forward(self, one: Tensor) -> Tensor:
        if self._wanted is not None:
            one = one.index_select(1, self._wanted)
        return functional.conv2d(
            one, self._weights, stride=self._step, padding=self._padding, groups=one.shape[1]
        )


class _ToGrid(nn.Module):
    """Channels last, and a coarser map interpolated bilinearly: rows, then columns."""

    def __init__(self, layer: FeatureMap, detector: Detector) -> None:
        super().__init__()
        self._grid = detector.grid
        height, width = detector.preprocessing.input_size
        self._matrices = None
        if layer.stride > detector.config.grid_stride:
            sides = (height // layer.stride, width // layer.stride)
            rows, columns = (
                _interpolation(*pair) for pair in zip(sides, detector.grid, strict=True)
            )
            self._matrices = (rows, columns)

    def forward(self, one: Tensor) -> Tensor:
        one = one.permute(0, 2, 3, 1)
        if self._matrices is None:
            return one
        rows, columns = self._matrices
        _, height, width, channels = one.shape
        by_row = rows @ one.reshape(-1, height, width * channels)
        return columns @ by_row.reshape(-1, self._grid[0], width, channels)


def _interpolation(length: int, size: int) -> Tensor:
    """One axis of a bilinear interpolation: (size, length)."""
    impulses = torch.eye(length)[None]
    return functional.interpolate(impulses, size=size, mode="linear", align_corners=False)[0].T
