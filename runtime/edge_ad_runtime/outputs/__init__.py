"""Where verdicts and events go."""

from edge_ad_runtime.outputs.base import Delivery, JsonLines, Output, Writer
from edge_ad_runtime.outputs.pictures import OverlayFolder

__all__ = ["Delivery", "JsonLines", "Output", "OverlayFolder", "Writer"]
