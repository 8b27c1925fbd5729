"""Step 3, Train: a preset with what it costs here, expert options folded away, and the queue."""

import asyncio
from dataclasses import fields
from functools import partial
from typing import Any

from nicegui import ui

from edge_ad.config import CONFIGS, DetectorConfig, option_of
from edge_ad.data import load_category
from edge_ad.project.cost import Cost, measure_cost
from edge_ad.project.job import HERE
from edge_ad.studio.job_list import JobList
from edge_ad.studio.layout import empty, head, seconds, step_address, told, words_of
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import ConfigError, EdgeAdError, counted
from edge_ad_runtime.model.score_distribution import check_rate

METHOD = "fusion"
_LOOK_SECONDS = 1.0
PRESETS = {
    "fast": ("Fast", "For most parts. Judges a picture in the shortest time."),
    "accurate": ("Accurate", "For small defects. Looks at a finer picture with a larger network."),
}
_costs: dict[tuple[object, ...], Cost] = {}
"""Measured once for each product and preset; two browsers share it."""

_measuring = asyncio.Lock()


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
        with head(
            "Train",
            f"{counted(self._n_good, 'good picture')} to learn from, "
            f"{counted(self._n_test, 'picture')} to test with.",
        ):
            self._next = ui.button("Next: judge it").props("unelevated")
            self._next.on_click(lambda: ui.navigate.to(step_address(category, "judge")))
        if self._n_good < 3:
            with ui.column().classes("panel"):
                empty("A training needs at least 3 pictures of good parts, 50 to 200 are usual.")
            return
        self._draw_choices()
        self._list = JobList(studio, category, self._next)
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
                ui.label(self._few()).classes("small warn")
                self._begin = ui.button("Start the training", on_click=self._start)
                self._begin.props("unelevated")

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
                expected_seconds=cost.train_seconds(self._n_good, self._n_test) if cost else None,
            )
            self._list.show()
            # The second click of a double one would queue the same training again.
            self._begin.disable()
            ui.timer(_LOOK_SECONDS, self._begin.enable, once=True)

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
                share = check_rate(float(rate) / 1000)
            except (ValueError, ConfigError) as error:
                raise ConfigError(
                    "expected a number of false alarms in 1,000 good parts, such as 10 or 0.5, got "
                    f"{rate[:40]!r}"
                ) from error
            given += ["--false-alarm-rate", str(share)]
        return given

    def _cost_key(self, preset: str) -> tuple[object, ...]:
        return (self._studio.data_root, self._category, preset)

    async def _measure(self) -> None:
        for preset, label in self._costs.items():
            try:
                cost = await self._cost_of(preset, label)
            except (EdgeAdError, OSError) as error:
                label.set_text(words_of(error))
                continue
            if cost is not None:
                time = seconds(cost.train_seconds(self._n_good, self._n_test))
                label.set_text(
                    f"Here: about {time} to train, {cost.picture_ms:.0f} ms for a picture"
                )

    async def _cost_of(self, preset: str, label: ui.label) -> Cost | None:
        """Return what a preset costs, measured while nothing else runs; None: the page is gone."""
        key = self._cost_key(preset)
        while key not in _costs:
            async with _measuring:
                if key not in _costs and not self._is_busy():
                    cost = await asyncio.to_thread(self._cost, preset)
                    if not self._is_busy():
                        _costs[key] = cost
            if key not in _costs:
                label.set_text("Its cost is measured here when no work is under way.")
                await asyncio.sleep(_LOOK_SECONDS)
            if label.is_deleted:
                return None
        return _costs[key]

    def _is_busy(self) -> bool:
        return any(not job.is_over for job in self._studio.queue.jobs())

    def _cost(self, preset: str) -> Cost:
        config = CONFIGS[METHOD]
        category = load_category(self._category, self._studio.data_root, skip_bad=True)
        return measure_cost(config(**config.preset(preset)), category)


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
