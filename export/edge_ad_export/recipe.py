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
"""Target -> precisions, fastest first: the order in which `auto` tries them."""


@dataclass(frozen=True)
class Recipe:
    """A target of `TARGETS`, a precision that it offers, never `auto`, and who resizes.

    int8: the scoring in 8-bit integers, the backbone in float32. fp16: the backbone in float16, the
    scoring in float32, since distances in float16 are unusable.
    """

    target: str
    precision: str
    bake_resize: bool = False

    @property
    def exact(self) -> bool:
        """Whether the graph is to give PyTorch's numbers, and not just its order."""
        return self.precision == "fp32" and not self.bake_resize


def choose_recipes(
    target: str, precision: str = "auto", *, bake_resize: bool = False
) -> tuple[Recipe, ...]:
    """Return the recipes to try in turn: one, or for `auto` all that the target offers.

    Args:
        target: one of `TARGETS`.
        precision: one of `PRECISIONS`.
        bake_resize: the graph takes frames of any size.

    Raises:
        ExportError: names what the target offers.
    """
    offered = _OFFERED.get(target)
    if offered is None:
        raise ExportError(f"expected a target of {', '.join(TARGETS)}, got {target!r}")
    if bake_resize and target == "tensorrt":
        raise ExportError(
            "TensorRT builds an engine for one size of frames: "
            "export for cuda, or without --bake-resize"
        )
    if precision == "auto":
        return tuple(Recipe(target, each, bake_resize) for each in offered)
    if precision not in offered:
        raise ExportError(
            f"the target {target} has no precision {precision}: choose {' or '.join(offered)}"
        )
    return (Recipe(target, precision, bake_resize),)
