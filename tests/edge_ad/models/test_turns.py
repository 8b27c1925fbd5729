"""Turned copies of the training pictures: left out together, and learnt only where they help."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edge_ad.models import SPADE, Detector, Fusion, PaDiM, PatchCore, turns
from edge_ad.models.gaussian import GaussianStatistics
from edge_ad.models.memory_bank import GoodPatches
from edge_ad.models.turns import lie_in_any_direction
from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.model.image import Frame

GRID, DIMS = (2, 3), 24


def features_of(n: int, copies: int) -> torch.Tensor:
    """Correlated features (positions, dims, n copies); those of a picture are alike."""
    generator = torch.Generator().manual_seed(n)
    positions = GRID[0] * GRID[1]
    scales = torch.logspace(-2, 1, DIMS)
    mixing = torch.linalg.qr(torch.randn(positions, DIMS, DIMS, generator=generator)).Q
    shared = torch.randn(positions, DIMS, n, generator=generator).repeat_interleave(copies, dim=2)
    alone = torch.randn(positions, DIMS, n * copies, generator=generator)
    found: torch.Tensor = mixing @ (scales[:, None] * (shared + alone)) + 3.0
    return found


def fit(features: torch.Tensor, copies: int, share: float) -> tuple[torch.Tensor, ...]:
    """Return mean_whitened, whitening and left-out distances of features, by four."""
    with closing(GaussianStatistics(copies)) as statistics:
        for batch in torch.split(features, 4, dim=2):
            statistics.add(batch)
        statistics.pool(GRID, share, 0.1)
        mean_whitened, whitening = statistics.whitening(0.1)
        return mean_whitened, whitening, statistics.left_out(mean_whitened, whitening, 0.1)


@pytest.mark.parametrize("copies", [2, 4])
@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("n", [3, 6, 7, 12, 40])  # fewer samples than channels, and more
def test_gaussians_score_a_picture_as_a_refit_without_all_of_its_copies(
    n: int, share: float, copies: int
) -> None:
    features = features_of(n, copies)
    ours = fit(features, copies, share)[2]
    assert ours.shape == (n, GRID[0] * GRID[1])
    for left in range(0, n, 3):
        kept = [index for index in range(n * copies) if index // copies != left]
        mean_whitened, whitening, _ = fit(features[:, :, kept], copies, share)
        first = features[:, :, left * copies : left * copies + 1]
        refitted = (whitening @ first - mean_whitened[:, :, None]).square().sum(dim=1).sqrt()[:, 0]
        torch.testing.assert_close(ours[left], refitted, rtol=5e-3, atol=0)


@pytest.mark.parametrize("copies", [2, 4])
def test_a_memory_of_all_patches_leaves_out_all_copies_of_a_picture(copies: int) -> None:
    patches = torch.randn(8 * copies, 20, 6, generator=torch.Generator().manual_seed(0))
    good = GoodPatches(8, 20, 6, 8 * copies * 20, seed=0, device=patches.device, copies=copies)
    for part in torch.split(patches, copies):
        good.add(part)
    bank = good.choose("memory")
    assert set(bank.owners.tolist()) == set(range(8))
    left_out = good.left_out(bank, 1, "memory").distance
    assert left_out.shape == (8, 20)
    for picture in range(8):
        others = torch.cat([patches[: picture * copies], patches[(picture + 1) * copies :]])
        refitted = torch.cdist(patches[picture * copies], others.flatten(0, 1)).amin(dim=1)
        torch.testing.assert_close(left_out[picture], refitted)


def test_a_memory_is_as_large_with_copies_as_without() -> None:
    patches = torch.randn(6, 20, 6, generator=torch.Generator().manual_seed(0))
    sizes = []
    for copies in (1, 4):
        good = GoodPatches(6, 20, 6, 0.1, seed=0, device=patches.device, copies=copies)
        good.add(patches.repeat_interleave(copies, dim=0) + torch.arange(6 * copies)[:, None, None])
        sizes.append(len(good.choose("memory").rows))
    assert sizes == [12, 12]


def part(turned: bool, seed: int) -> Frame:
    """A bright T on grey with noise: 64 x 64, after any number of quarter turns or after none."""
    rng = np.random.default_rng(seed)
    frame = np.full((64, 64, 3), 90.0)
    frame[16:24, 12:52] = frame[24:52, 28:36] = 220
    frame += rng.normal(0, 6, frame.shape)
    quarters = int(rng.integers(4)) if turned else 0
    return np.ascontiguousarray(np.rot90(frame.clip(0, 255).astype(np.uint8), quarters))


def pixels(frames: torch.Tensor) -> torch.Tensor:
    """Describe 4 x 4 pixels by their colours: (n, 256, 48)."""
    windows = frames.float().reshape(len(frames), 16, 4, 16, 4, 3)
    return windows.permute(0, 1, 3, 2, 4, 5).reshape(len(frames), 256, 48)


@pytest.mark.parametrize("n", [12, 24])
def test_parts_that_lie_in_any_direction_are_told_from_those_that_lie_still(n: int) -> None:
    for turned in (False, True):
        frames = torch.from_numpy(np.stack([part(turned, seed) for seed in range(n)]))
        assert lie_in_any_direction(pixels, frames, (16, 16)) == turned


def test_a_print_at_a_fixed_place_is_not_turned_though_all_else_is_alike() -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(60, 160, (24, 128, 128, 3), np.uint8))

    def describe(frames: torch.Tensor) -> torch.Tensor:
        return frames.float().reshape(-1, 32, 4, 32, 4, 3).mean(dim=(2, 4)).flatten(1, 2)

    assert lie_in_any_direction(describe, frames, (32, 32))
    frames[:, 24:40, 80:96] //= 2  # 2 % of the picture
    assert not lie_in_any_direction(describe, frames, (32, 32))


@pytest.mark.parametrize("grain", [0.0, 0.4])
def test_a_texture_with_a_grain_is_not_turned_though_no_place_of_it_stands_out(
    grain: float,
) -> None:
    rng = np.random.default_rng(0)
    along = rng.normal(0, 1, (24, 128, 1, 1)).repeat(128, axis=2)
    noise = rng.normal(0, 1, (24, 128, 128, 1))
    frames = torch.from_numpy((120 + 20 * (grain * along + noise)).clip(0, 255).astype(np.uint8))

    def describe(frames: torch.Tensor) -> torch.Tensor:
        """Describe 4 x 4 pixels by how much neighbours differ, across and down."""
        grey = frames[..., 0].float()
        differences = [
            (grey[:, 1:, :-1] - grey[:, :-1, :-1]).abs(),
            (grey[:, :-1, 1:] - grey[:, :-1, :-1]).abs(),
        ]
        padded = functional.pad(torch.stack(differences, 1), (0, 1, 0, 1))
        return functional.avg_pool2d(padded, 8).flatten(2).transpose(1, 2)

    assert lie_in_any_direction(describe, frames, (16, 16)) == (grain == 0)


def test_parts_are_learnt_as_they_are_where_four_directions_would_not_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lying = [part(turned=True, seed=seed) for seed in range(24)]
    monkeypatch.setattr(turns, "free_memory", lambda device: 10**6)
    detector = PaDiM(input_size=(64, 64), device="cpu").fit(lying)
    assert detector.config.turns == 1
    assert "24 pictures might not fit into memory" in caplog.text


@pytest.mark.parametrize("method", [PaDiM, PatchCore, Fusion])
def test_a_detector_scores_a_picture_as_a_refit_without_all_of_its_copies(
    method: Callable[..., Detector],
) -> None:
    frames = [part(turned=True, seed=seed) for seed in range(5)]
    options: dict[str, Any] = {} if method is PatchCore else {"pooling": 0.0}
    options |= {} if method is PaDiM else {"coreset": 5000}  # all patches
    detector = method(weights="none", input_size=(64, 64), device="cpu", turns=4, **options)
    good = detector.fit(frames).good
    assert detector.turns == 4 and good is not None and good.scores.shape == (5,)
    weights = detector.weights if isinstance(detector, Fusion) else None
    for left in (0, 3):
        detector.fit(frames[:left] + frames[left + 1 :])
        if weights is not None:
            detector.weights = weights  # a refit spreads a little differently
        ((score, _),) = detector.predict([frames[left]])
        assert score == pytest.approx(good.scores[left], rel=0.01)


def test_a_detector_learns_turned_parts_in_four_directions_and_knows_them() -> None:
    frames = [part(turned=False, seed=seed) for seed in range(6)]
    sideways = [np.ascontiguousarray(np.rot90(frame)) for frame in frames]
    still = PaDiM(input_size=(64, 64), device="cpu").fit(frames)
    turned = PaDiM(input_size=(64, 64), device="cpu", turns=4).fit(frames)
    assert (still.turns, still.config.turns) == (1, 1)
    assert turned.predict(sideways)[0].score < 0.5 * still.predict(sideways)[0].score
    lying = [part(turned=True, seed=seed) for seed in range(24)]
    assert PaDiM(input_size=(64, 64), device="cpu").fit(lying).config.turns == 4
    assert PaDiM(input_size=(64, 64), device="cpu", turns=1).fit(lying).config.turns == 1


def test_quarter_turns_need_a_square_and_half_turns_do_not() -> None:
    frames = [np.full((64, 96, 3), value, np.uint8) for value in range(90, 100, 3)]
    wide: dict[str, Any] = {"weights": "none", "input_size": (64, 96), "device": "cpu"}
    with pytest.raises(ConfigError, match="square input for quarter turns, got 64x96"):
        PaDiM(**wide, turns=4).fit(frames)
    assert PaDiM(**wide, turns=2).fit(frames).config.turns == 2
    assert PaDiM(**wide).fit(frames).config.turns == 1
    with pytest.raises(ConfigError, match="one of 1, 2, 4"):
        PaDiM(turns=3)
    with pytest.raises(TypeError, match="turns"):
        SPADE(turns=2)  # type: ignore[call-arg]
