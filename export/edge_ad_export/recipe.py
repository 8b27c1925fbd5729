"""What a graph is lowered for: a target and a precision."""

from dataclasses import dataclass

from edge_ad_runtime.errors import ExportError

TARGETS = ("cpu", "cuda", "tensorrt", "portable")

PRECISIONS = ("auto", "fp32", "fp16", "int8")

_OFFERED = {
    "cpu": ("int8", "fp32"),
    "cuda": ("fp16", "fp32"),
    "tensorrt": ("fp16", "fp32"),
    "portable": ("fp32",),
}
"""Target -> precisions; the first is what `auto` means."""


@dataclass(frozen=True)
class Recipe:
    """A target of `TARGETS` and a precision that it offers; never `auto`.

    int8: the scoring in 8-bit integers, the backbone in float32. fp16: the backbone in float16, the
    scoring in float32, since distances in float16 are unusable.
    """

    target: str
    precision: str


def choose_recipe(target: str, precision: str = "auto") -> Recipe:
    """Resolve `auto` and refuse what a target cannot run.

    Raises:
        ExportError: names what the target offers.
    """
    offered = _OFFERED.get(target)
    if offered is None:
        raise ExportError(f"expected a target of {', '.join(TARGETS)}, got {target!r}")
    if precision == "auto":
        return Recipe(target, offered[0])
    if precision not in offered:
        raise ExportError(
            f"the target {target} has no precision {precision}: choose {' or '.join(offered)}"
        )
    return Recipe(target, precision)
