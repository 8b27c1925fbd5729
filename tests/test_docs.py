"""What the documents name is there: files, tests, headings, commands and their options."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from edge_ad.cli import main
from edge_ad_runtime.events import EventKind

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(
        page
        for folder in ("docs", "benchmarks", "runtime", "clients", "tests/golden")
        for page in sorted((ROOT / folder).rglob("*.md"))
        if "node_modules" not in page.parts
    ),
]
CODE = [
    path
    for folder in ("edge_ad", "export", "runtime", "benchmarks", "docs", "tests")
    for path in (ROOT / folder).rglob("*.py")
]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(
        r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", page.read_text()
    ):
        aim = page.parent / target if target else page
        assert aim.exists(), f"{page}: {target}"
        assert not heading or heading in headings(aim), f"{page}: {target}#{heading}"


def headings(page: Path) -> list[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@each_page
def test_files_and_tests_are_there(page: Path) -> None:
    named: list[Path] = []
    for name, test in re.findall(r"`([\w./-]+\.py)?(?:::(\w+))?`", page.read_text()):
        if name:
            named = [path for path in CODE if f"/{path.as_posix()}".endswith(f"/{name}")]
            assert named, f"{page}: {name}"
        if test:  # without a name it is in the file before
            assert any(f"def {test}(" in path.read_text() for path in named), f"{page}: {test}"


def test_every_event_is_described() -> None:
    section = (ROOT / "docs/stream.md").read_text().partition("## Events")[2].partition("\n## ")[0]
    described = {" ".join(name.split()) for name in re.findall("`([^`]+)`", section)}
    assert set(get_args(EventKind)) <= described


@each_page
def test_commands_have_the_options(page: Path) -> None:
    for words in commands(page.read_text()):
        command: click.Command = main
        for word in words:
            first = word.partition("|")[0]  # `train fusion|padim` names several
            if isinstance(command, click.Group) and first in command.commands:
                command = command.commands[first]
        known = {name for option in command.params for name in option.opts + option.secondary_opts}
        given = {word for word in words if re.fullmatch(r"--[a-z-]+", word)}
        assert given <= known | {"--help", "--version"}, f"{page}: {' '.join(words)}"


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words behind each `edge-ad` in code, up to the end of the command."""
    joined = text.replace("\\\n", " ")
    for line in re.findall(r"`(edge-ad [^`]+)`|(?:^|\$ |/)(edge-ad [^\n]+)", joined, re.MULTILINE):
        yield (
            re.split(r"#|&&|;|\|(?= )", "".join(line))[0].replace("]", "").replace("[", "").split()
        )
