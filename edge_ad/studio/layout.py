"""What every page has: the bar at the top, the seven steps at the left, the place for errors."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from nicegui import ui

from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError

STEPS = (
    ("collect", "Collect"),
    ("look", "Look"),
    ("train", "Train"),
    ("judge", "Judge"),
    ("live", "Try live"),
    ("deploy", "Deploy"),
    ("learn", "Learn from the line"),
)
"""Part of the address, and name, of each step."""


@contextmanager
def told() -> Iterator[None]:
    """Show an error as one sentence that stays until it is closed."""
    try:
        yield
    except (EdgeAdError, OSError) as error:
        complain(words_of(error))


def words_of(error: EdgeAdError | OSError) -> str:
    """Return a sentence of ours, or what the system says about which file."""
    if isinstance(error, EdgeAdError):
        return str(error)
    about = f" ({error.filename})" if error.filename else ""
    return f"the disk of this machine says: {error.strerror or error}{about}"


def complain(sentence: str) -> None:
    """Show a sentence about what went wrong until it is closed."""
    ui.notify(
        sentence[0].upper() + sentence[1:],
        type="negative",
        multi_line=True,
        timeout=0,
        close_button="Close",
        position="top",
    )


def say(sentence: str) -> None:
    """Show for some seconds that something was done."""
    ui.notify(sentence, type="positive", position="top", timeout=4000)


def step_address(category: str, step: str, **query: str) -> str:
    """Return the address of a step's page."""
    given = "&".join(f"{name}={value}" for name, value in query.items() if value)
    return f"/product/{quote(category, safe='')}/{step}" + (f"?{given}" if given else "")


@contextmanager
def frame(studio: Studio, category: str, step: str) -> Iterator[None]:
    """Draw bar and steps; what is drawn inside the block is the page."""
    _begin(f"{category} - edge-ad Studio")
    with ui.header(), ui.element("div").classes("bar"):
        ui.link("edge-ad Studio", "/")
        ui.label(category).classes("product")
        _job_line(studio)
    with ui.element("nav").classes("steps"):
        for number, (name, title) in enumerate(STEPS, start=1):
            with ui.link(target=step_address(category, name)).classes(
                "here" if name == step else ""
            ):
                ui.label(str(number)).classes("number")
                ui.label(title)
    with ui.column().classes("main"):
        yield


@contextmanager
def bare_frame() -> Iterator[None]:
    """Draw the bar only."""
    _begin("edge-ad Studio")
    with ui.header(), ui.element("div").classes("bar"):
        ui.link("edge-ad Studio", "/")
    with ui.column().classes("alone"):
        yield


@contextmanager
def head(title: str, lead: str) -> Iterator[None]:
    """Draw a page's title; what is drawn inside the block stands at its right: the next action."""
    with ui.element("div").classes("head"):
        with ui.element("div"):
            ui.html(f"<h1>{html.escape(title)}</h1>", sanitize=False)
            ui.label(lead).classes("lead")
        with ui.row().classes("items-center").style("flex: none"):
            yield


def go_on(text: str, address: str) -> ui.button:
    """Draw the button of the next action."""
    return ui.button(text, on_click=lambda: ui.navigate.to(address)).props("unelevated")


def empty(text: str) -> None:
    """Say what is missing, and what to do about it."""
    ui.label(text).classes("empty")


def seconds(value: float) -> str:
    """Return a time as people say it."""
    if value < 90:
        return f"{max(1, round(value))} s"
    return f"{round(value / 60)} min" if value < 5400 else f"{value / 3600:.1f} h"


def _begin(title: str) -> None:
    ui.page_title(title)
    ui.colors(primary="#00607a", positive="#2c7a3f", negative="#b3261e", dark="#1d242b")
    ui.add_head_html('<link rel="stylesheet" href="/studio/static/studio.css">')


def _job_line(studio: Studio) -> None:
    """Say at the right of the bar what runs now, whatever page is open."""
    line = ui.label().classes("job")

    def show() -> None:
        running = [job for job in studio.queue.jobs() if job.state in ("running", "queued")]
        text = f"Running: {running[-1].title}" if running else ""
        if len(running) > 1:
            text += f", {len(running) - 1} waiting"
        line.set_text(f"Nothing can be started: {studio.trouble}" if studio.trouble else text)

    show()
    ui.timer(2.0, show)
