"""What several commands share: option types, and the check for optional dependencies."""

import importlib
from collections.abc import Sequence

import click

from edge_ad_runtime.errors import MissingExtraError


class SizeType(click.ParamType):
    """`HxW` or one number for a square, as (height, width)."""

    name = "HxW"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse the text.

        Raises:
            click.BadParameter: the text is neither `HxW` nor one number.
        """
        parts = str(value).lower().split("x")
        if len(parts) == 1:
            parts = parts * 2
        if len(parts) != 2 or not all(part.isdigit() for part in parts):
            self.fail(f"expected HxW such as 256x256, or one number, got {value!r}", param, ctx)
        return int(parts[0]), int(parts[1])


def require(modules: Sequence[str], extra: str, purpose: str) -> None:
    """Import the modules now, so that a missing one is named together with its extra.

    Raises:
        MissingExtraError: one of the modules is not installed.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
                raise
            raise MissingExtraError(
                f"{purpose} needs the package '{module}', which is not installed: "
                f"pip install 'edge-ad[{extra}]'"
            ) from error
