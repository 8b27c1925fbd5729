"""The end of every graph: the anomaly map from the grid of distances, and the score."""

import onnx

from edge_ad.models import Detector
from edge_ad_export.nodes import GraphBuilder


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
