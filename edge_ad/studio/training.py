"""Step 3, Train: a preset with what it costs here, expert options folded away, and the queue."""

import asyncio
import time
from dataclasses import fields
from functools import partial
from typing import Any

from nicegui import ui

from edge_ad.config import CONFIGS, DetectorConfig, option_of
from edge_ad.data import load_category
from edge_ad.project.cost import Cost, measure_cost
from edge_ad.project.jobs import HERE, Job
from edge_ad.studio.layout import complain, count, empty, head, seconds, step_address, told
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import ConfigError, EdgeAdError

METHOD = "fusion"
PRESETS = {
    "fast": ("Fast", "For most parts. Judges a picture in the shortest time."),
    "accurate": ("Accurate", "For small defects. Looks at a finer picture with a larger network."),
}
_STAGES = {
    "leave-one-out": "Scoring each good picture without itself",
    "coreset": "Choosing what to remember",
    "fit": "Learning from the good pictures",
    "evaluate": "Scoring the test pictures",
    "proof": "Comparing the file with the training",
}
_STATES = {
    "queued": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "stopped": "stopped",
}
_costs: dict[tuple[object, ...], Cost] = {}
"""Measured once for each product, preset and number of pictures; two browsers share it."""


def draw(studio: Studio, category: str) -> None:
    """Draw the page."""
    Training(studio, category)


class Training:
    """One open page."""

    def __init__(self, studio: Studio, category: str) -> None:
        """Draw it."""
        self._studio, self._category = studio, category
        pictures = [one for one in studio.folder(category).pictures() if not one.excluded]
        self._n_good = sum(one.use == "train" for one in pictures)
        self._n_test = len(pictures) - self._n_good
        self._preset = "fast"
        self._fields: dict[str, ui.input] = {}
        self._cards: dict[str, ui.column] = {}
        self._costs: dict[str, ui.label] = {}
        self._shown: object = None
        with head(
            "Train",
            f"{count(self._n_good, 'good picture')} to learn from, "
            f"{count(self._n_test, 'picture')} to test with.",
        ):
            self._next = ui.button("Next: judge it").props("unelevated")
            self._next.on_click(lambda: ui.navigate.to(step_address(category, "judge")))
        if self._n_good < 3:
            with ui.column().classes("panel"):
                empty("A training needs at least 3 pictures of good parts, 50 to 200 are usual.")
            return
        self._draw_choices()
        self._jobs = ui.column().classes("w-full").style("gap: 10px")
        self._show_jobs()
        ui.timer(0.7, self._show_jobs)
        ui.timer(0.2, self._measure, once=True)

    def _draw_choices(self) -> None:
        with ui.column().classes("panel"):
            with ui.row().classes("w-full no-wrap items-stretch").style("gap: 12px"):
                for name, (title, words) in PRESETS.items():
                    with ui.column().classes("choice") as card:
                        ui.label(title).classes("value")
                        ui.label(words).classes("small")
                        self._costs[name] = ui.label("Measuring what it costs here ...")
                    card.on("click", partial(self._choose, name))
                    self._cards[name] = card
            self._choose("fast")
            with ui.expansion("Expert options").classes("w-full").props("dense"):
                with ui.row().classes("w-full items-center"):
                    self._method = ui.select(
                        {name: config.title for name, config in CONFIGS.items()},
                        value=METHOD,
                        label="Method",
                        on_change=self._draw_options,
                    ).style("width: 180px")
                    self._rate = ui.input("False alarms in 1,000 good parts", value="").props(
                        "placeholder='10'"
                    )
                    self._rate.style("width: 250px")
                self._options = ui.row().classes("w-full")
                self._draw_options()
            with ui.row().classes("w-full items-center justify-between"):
                self._warning = ui.label(self._few()).classes("small warn")
                ui.button("Start the training", on_click=self._start).props("unelevated")

    def _few(self) -> str:
        if self._n_good < 20:
            return "With fewer than 20 good pictures the limit will be rough."
        return ""

    def _choose(self, preset: str) -> None:
        self._preset = preset
        for name, card in self._cards.items():
            card.classes(
                add="here" if name == preset else "", remove="" if name == preset else "here"
            )

    def _draw_options(self) -> None:
        """Draw a field for every option of the method; what is left empty keeps its preset."""
        self._options.clear()
        self._fields = {}
        config = CONFIGS[str(self._method.value)]
        with self._options:
            for item in fields(config):
                option = option_of(config, item.name)
                field = ui.input(
                    item.name.replace("_", " "),
                    placeholder=option.metavar,
                    validation=partial(_complaint, config, item.name),
                ).props("dense outlined stack-label")
                field.style("width: 260px").tooltip(option.help)
                self._fields[item.name] = field

    def _start(self) -> None:
        with told():
            arguments = self._arguments()
            title = f"{self._category}, {PRESETS[self._preset][0].lower()}"
            method = str(self._method.value)
            cost = _costs.get(self._cost_key(self._preset))
            self._studio.queue.submit(
                "train",
                self._category,
                title,
                arguments,
                method=method,
                preset=self._preset,
                expected_seconds=cost.train_seconds if cost else None,
            )
            self._show_jobs()

    def _arguments(self) -> list[str]:
        """Return the command line of the training.

        Raises:
            ConfigError: an option is not accepted.
        """
        method = str(self._method.value)
        config = CONFIGS[method]
        given = ["train", method, "--class", self._category, "--skip-bad", "--json"]
        given += ["--data-root", str(self._studio.data_root), "--results", HERE]
        given += ["--preset", self._preset, "--progress", f"{HERE}/progress.json"]
        for name, field in self._fields.items():
            text = str(field.value or "").strip()
            if text:
                problem = _complaint(config, name, text)
                if problem:
                    raise ConfigError(problem)
                flag = option_of(config, name).flag or "--" + name.replace("_", "-")
                given += [flag, text]
        rate = str(self._rate.value or "").strip()
        if rate:
            try:
                given += ["--false-alarm-rate", str(float(rate) / 1000)]
            except ValueError as error:
                raise ConfigError(
                    f"expected a number of false alarms in 1,000 good parts, got {rate[:40]!r}"
                ) from error
        return given

    def _cost_key(self, preset: str) -> tuple[object, ...]:
        return (self._studio.data_root, self._category, preset, self._n_good, self._n_test)

    async def _measure(self) -> None:
        for preset, label in self._costs.items():
            key = self._cost_key(preset)
            try:
                if key not in _costs:
                    _costs[key] = await asyncio.to_thread(self._cost, preset)
                cost = _costs[key]
            except EdgeAdError as error:
                label.set_text(str(error))
                continue
            label.set_text(
                f"Here: about {seconds(cost.train_seconds)} to train, "
                f"{cost.picture_ms:.0f} ms for a picture"
            )

    def _cost(self, preset: str) -> Cost:
        config = CONFIGS[METHOD]
        category = load_category(self._category, self._studio.data_root, skip_bad=True)
        return measure_cost(config(**config.preset(preset)), category)

    def _show_jobs(self) -> None:
        jobs = self._studio.queue.jobs(self._category, "train")
        self._next.set_enabled(any(job.state == "done" for job in jobs))
        second = int(time.time())
        state = [
            (job.id, job.state, job.progress(), second if job.state == "running" else 0)
            for job in jobs
        ]
        if state == self._shown:
            return
        self._shown = state
        self._jobs.clear()
        with self._jobs:
            if jobs:
                ui.html("<h2>Trainings</h2>", sanitize=False)
            for job in jobs[:12]:
                self._draw_job(job)

    def _draw_job(self, job: Job) -> None:
        with ui.row().classes("panel items-center no-wrap").style("padding: 10px 16px"):
            with ui.column().style("flex: 1; gap: 2px; min-width: 0"):
                started = time.strftime("%d %b, %H:%M", time.localtime(job.created_at))
                method = CONFIGS[str(job.about.get("method"))].title
                ui.label(f"{started}: {job.about.get('preset')}, {method}").style(
                    "font-weight: 600"
                )
                ui.label(_how_it_stands(job)).classes("small" + (" bad" if job.message else ""))
                if job.state == "running":
                    ui.linear_progress(_share(job), show_value=False).props("instant-feedback")
            if job.state in ("running", "queued"):
                ui.button("Stop", on_click=lambda: self._stop(job)).props("outline color=negative")
            elif job.state == "done":
                ui.button(
                    "Judge",
                    on_click=lambda: ui.navigate.to(
                        step_address(self._category, "judge", run=job.id)
                    ),
                ).props("outline")
            else:
                ui.button("Start again", on_click=lambda: self._again(job)).props("outline")
            if job.is_over:
                ui.button("Delete", on_click=lambda: self._remove(job)).props("flat color=dark")

    async def _stop(self, job: Job) -> None:
        await asyncio.to_thread(self._studio.queue.stop, job.id)
        self._show_jobs()

    def _again(self, job: Job) -> None:
        with told():
            self._studio.queue.again(job.id)
            self._show_jobs()

    async def _remove(self, job: Job) -> None:
        with ui.dialog() as dialog, ui.card():
            ui.label("Delete this training with its limit and its model file?")
            with ui.row():
                ui.button("Delete", on_click=lambda: dialog.submit(True)).props(
                    "unelevated color=negative"
                )
                ui.button("Keep it", on_click=lambda: dialog.submit(False)).props("outline")
        if await dialog:
            try:
                await asyncio.to_thread(self._studio.queue.remove, job.id)
            except EdgeAdError as error:
                complain(str(error))
            self._show_jobs()


def _complaint(config: type[DetectorConfig], name: str, text: Any) -> str | None:
    """Return what is wrong with the text of an option; None: nothing."""
    if not text:
        return None
    option = option_of(config, name)
    try:
        accepted = option.accepts(option.parse(str(text)))
    except ValueError:
        accepted = False
    return None if accepted else f"expected {option.expected} as {name}, got {str(text)[:40]!r}"


def _how_it_stands(job: Job) -> str:
    if job.state == "failed":
        return f"Failed: {job.message}"
    if job.state == "done":
        return f"Done in {seconds(job.ended_at - job.started_at)}"
    if job.state == "stopped":
        return "Stopped; nothing of it is kept, and your pictures are as they were"
    if job.state == "queued":
        return "Waiting for the one before it"
    progress = job.progress()
    left = job.seconds_left(time.time())
    words = "Starting" if progress is None else _stage(progress.stage)
    if progress is not None and progress.total > 1:
        words += f": {progress.done} of {progress.total}"
    return words + (f", about {seconds(left)} left" if left is not None else "")


def _stage(stage: str) -> str:
    return next((words for part, words in _STAGES.items() if part in stage), stage)


def _share(job: Job) -> float:
    """Return how much of a job is done, 0..1, by time where that is known."""
    now = time.time()
    left = job.seconds_left(now)
    if left is not None:
        return (now - job.started_at) / (now - job.started_at + left)
    progress = job.progress()
    return progress.done / max(progress.total, 1) if progress else 0.0
