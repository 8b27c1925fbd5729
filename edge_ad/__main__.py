"""`edge-ad`, also as `python -m edge_ad`: Ctrl-C prints one word, even while packages load."""

import os
import sys

_BASE = ("click", "numpy", "tomli")


def main() -> None:
    """Run the command line; exit code 130 after Ctrl-C."""
    try:
        # Here, since loading it takes a moment in which people press Ctrl-C.
        from edge_ad.cli import main as command_line

        command_line()
    except (KeyboardInterrupt, ImportError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing in _BASE:
            # Installed with --no-deps, as a Jetson needs it.
            print(
                f"Error: edge-ad needs the package {missing}: pip install {missing}",
                file=sys.stderr,
            )
            raise SystemExit(1) from None
        if not _was_interrupted(error):
            raise
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        _give_up_full_stdout()


def _give_up_full_stdout() -> None:
    """Drop what cannot be written to stdout, of which the exit code tells already.

    Python would try once more when it ends, print a traceback and exit with 120.
    """
    if sys.stdout is None:  # closed by whoever started this
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: a package in C that it hits fails to load."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
