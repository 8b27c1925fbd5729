"""What the documents name is there: files, tests, headings, commands and their options."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args, get_origin

import click
import pytest

from edge_ad.cli import main
from edge_ad_runtime.config_table import _settings
from edge_ad_runtime.events import EventKind
from edge_ad_runtime.stream.config import StreamConfig, parse_config, read_document

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


def test_every_option_of_a_training_is_described() -> None:
    section = (ROOT / "docs/detectors.md").read_text().partition("## All options")[2]
    described = set(re.findall(r"`(--[a-z0-9-]+)", section.partition("\n## ")[0]))
    methods = cast(click.Group, main.commands["train"]).commands.values()
    options = {name for method in methods for option in method.params for name in option.opts}
    assert described == options


def test_every_setting_of_a_stream_stands_in_the_example() -> None:
    """A setting that is left out of it is found by nobody; each may stand in a comment."""
    table, named = "", set()
    for example in re.findall(
        r"```toml\n(.*?)```", (ROOT / "docs/stream.md").read_text(), re.DOTALL
    ):
        for row in example.splitlines():
            if found := re.match(r"\[+([a-z.]+)\]+", row):
                table = f"{found[1]}."
            elif found := re.match(r"(?:# )?(\w+) = ", row):
                named.add(table + found[1])
        table = ""
    missing = set(settings(StreamConfig)) - named
    assert not missing, f"docs/stream.md does not name {sorted(missing)}"


def test_the_example_of_a_stream_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / "docs/stream.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0]
    with_comments = re.sub(r"(?m)^# (\w+ = )", r"\1", example)
    for number, config in enumerate((example, with_comments)):
        (tmp_path / f"{number}.toml").write_text(config)
        assert len(parse_config(read_document(tmp_path / f"{number}.toml")).cameras) == 2


def settings(kind: type, table: str = "") -> Iterator[str]:
    """Yield the names of all settings of a dataclass, such as `camera.source`."""
    for key, _, hint in _settings(kind, nested=True):
        inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield from settings(inner, f"{table}{key}.")
        else:
            yield table + key


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
