"""Where verdicts and events go."""

from edge_ad_runtime.outputs.base import ClosableOutput, EventOutput, Output
from edge_ad_runtime.outputs.delivery import Delivery
from edge_ad_runtime.outputs.json_lines import JsonLines
from edge_ad_runtime.outputs.pictures import OverlayFolder

__all__ = [
    "ClosableOutput",
    "Delivery",
    "EventOutput",
    "JsonLines",
    "Output",
    "OverlayFolder",
]
