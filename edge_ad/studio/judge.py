"""Step 4, Judge: what a limit does, before it is taken; heat maps; two trainings side by side."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nicegui import ui

from edge_ad.data import ScoredSample
from edge_ad.project.job import Job
from edge_ad.report.charts import draw_histogram
from edge_ad.run_metrics import decision_rates
from edge_ad.runs import Run
from edge_ad.studio.heat import HeatDialog
from edge_ad.studio.layout import complain, empty, go_on, head, say, step_address, words_of
from edge_ad.studio.state import Studio, run_folder
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.model.calibration import Calibration

LOWEST_RATE, HIGHEST_RATE = 0.0005, 0.3
_STEPS = 120
_BESIDE = 8
"""Pictures shown on each side of the limit."""

RATES = np.geomspace(LOWEST_RATE, HIGHEST_RATE, _STEPS + 1).tolist()


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a limit does to the pictures of a run, in words."""

    promised: str
    measured: str
    caught: str


def draw(studio: Studio, category: str, training: str) -> None:
    """Draw the page about a training, or the newest one."""
    jobs = studio.trained(category)
    job = next((job for job in jobs if job.id == training), jobs[0] if jobs else None)
    if job is None:
        with head("Judge", "Choose how strict the inspection is, and see what that means."):
            go_on("Train first", step_address(category, "train"))
        with ui.column().classes("panel"):
            empty("There is no finished training yet.")
        return
    try:
        Judge(studio, category, job, jobs)
    except EdgeAdError as error:
        empty(str(error))


class Judge:
    """One open page."""

    def __init__(self, studio: Studio, category: str, job: Job, jobs: Sequence[Job]) -> None:
        """Draw it.

        Raises:
            DataError: the run cannot be read.
        """
        self._studio, self._category, self._job = studio, category, job
        self._run = studio.run(job)
        self._heat = HeatDialog(studio, job, self._run)
        with head(
            "Judge",
            "Move the limit and watch which parts it stops and which it lets pass.",
        ):
            go_on("Next: try it live", step_address(category, "live", run=job.id))
        with ui.row().classes("items-center"):
            names = {one.id: training_name(one) for one in jobs}
            ui.select(names, value=job.id, label="Training").props("dense outlined").style(
                "width: 330px"
            ).on_value_change(
                lambda event: ui.navigate.to(step_address(category, "judge", run=event.value))
            )
            others = {one.id: training_name(one) for one in jobs if one.id != job.id}
            self._other = (
                ui.select({"": "nothing", **others}, value="", label="Compare with")
                .props("dense outlined")
                .style("width: 330px")
            )
            self._other.on_value_change(self._show_other)
        self._comparison = ui.column().classes("w-full")
        calibration = self._run.metrics.calibration
        if calibration is None:
            empty(
                "This training was made by an earlier edge-ad and has a fixed limit: train again."
            )
            return
        self._draw_limit(calibration)

    def _draw_limit(self, calibration: Calibration) -> None:
        self._calibration = calibration
        at = int(np.argmin([abs(np.log(rate / calibration.rate)) for rate in RATES]))
        self._own = _STEPS - at
        with ui.column().classes("panel"):
            with ui.element("div").classes("figures"):
                self._promised = _figure("false alarms promised in 1,000 good parts")
                self._measured = _figure("")
                self._caught = _figure("")
            with ui.row().classes("w-full items-center no-wrap"):
                ui.label("stop more").classes("small").style("flex: none")
                # To the right the limit is higher, as on the chart below it.
                self._slider = ui.slider(min=0, max=_STEPS, value=self._own, step=1).props(
                    "aria-label='Decision limit'"
                )
                ui.label("stop fewer").classes("small").style("flex: none")
                self._slider.on_value_change(self._move)
                self._take = ui.button("Use this limit", on_click=self._use).props("unelevated")
                self._take.style("flex: none")
            self._chart = ui.html("", sanitize=False).classes("w-full")
            ui.html(
                "<span class='key small'><span><i style='background:#9fb3bd'></i>good, training"
                "</span><span><i style='background:#2c7a3f'></i>good, test</span>"
                "<span><i style='background:#b3261e'></i>defective</span></span>",
                sanitize=False,
            )
        # Beside each other, as the two sides of the limit on the chart.
        with ui.element("div").classes("columns"):
            with ui.column().classes("panel wide"):
                self._below_title = ui.label().style("font-weight: 600")
                self._below = ui.element("div").classes("strip")
            with ui.column().classes("panel wide"):
                self._above_title = ui.label().style("font-weight: 600")
                self._above = ui.element("div").classes("strip")
        self._move()

    def _limit(self) -> float:
        """Return the limit where the slider is; where it begins, that of the training itself."""
        if int(self._slider.value) == self._own:
            return self._run.metrics.threshold
        return self._calibration.limit(self._rate())

    def _rate(self) -> float:
        at = int(self._slider.value)
        return self._calibration.rate if at == self._own else float(RATES[_STEPS - at])

    def _move(self) -> None:
        """Show what the limit does where the slider is."""
        run, limit, rate = self._run, self._limit(), self._rate()
        effect = effect_of(run, limit, rate)
        _say(self._promised, effect.promised, "false alarms promised in 1,000 good parts")
        _say(self._measured, effect.measured, "false alarms measured on good test pictures")
        _say(self._caught, effect.caught, "defects caught")
        self._chart.set_content(histogram(run, limit))
        items = self._ranked()
        below = [index for index in items if self._score(index) < limit][::-1]
        above = [index for index in items if self._score(index) >= limit]
        self._below_title.set_text(f"Pass: {len(below)} pictures, the nearest first")
        self._above_title.set_text(f"Are stopped: {len(above)} pictures, the nearest first")
        self._fill(self._below, below[:_BESIDE])
        self._fill(self._above, above[:_BESIDE])
        self._take.set_enabled(abs(limit - run.metrics.threshold) > 1e-9 * limit)

    def _ranked(self) -> list[int]:
        n = len(self._run.scored) + len(self._run.good)
        return sorted(range(n), key=self._score)

    def _score(self, index: int) -> float:
        scored = self._run.scored
        if index < len(scored):
            return scored[index].score
        return self._run.good[index - len(scored)].score

    def _fill(self, strip: ui.element, indices: Sequence[int]) -> None:
        strip.clear()
        with strip:
            if not indices:
                ui.label("none").classes("small")
            for index in indices:
                defective = index < len(self._run.scored) and (
                    self._run.scored[index].sample.anomalous
                )
                label = self._run.scored[index].sample.label if defective else "good"
                with ui.element("figure").classes("is-defect" if defective else "is-good") as box:
                    ui.html(
                        f"<img src='/studio/of-run/{self._job.id}/{index}.jpg' loading='lazy' "
                        "alt=''>",
                        sanitize=False,
                    )
                    with ui.element("figcaption"):
                        ui.label(f"{label}  {self._score(index):.3g}")
                box.on("click", lambda index=index: self._heat.open(index))

    async def _use(self) -> None:
        rate, at = self._rate(), int(self._slider.value)

        def change() -> Run:
            from edge_ad.train import change_limit  # PyTorch takes seconds to load

            return change_limit(run_folder(self._job), rate)

        self._take.disable()
        try:
            self._run = await asyncio.to_thread(change)
        except (EdgeAdError, OSError) as error:
            complain(words_of(error))
        else:
            self._own, self._calibration = at, self._run.metrics.calibration or self._calibration
            say("The limit is set. A model file that was exported before keeps its own limit.")
        self._move()
        self._show_other()

    def _show_other(self) -> None:
        self._comparison.clear()
        other = str(self._other.value or "")
        if not other:
            return
        try:
            job = self._studio.queue.job(other)
            runs = [(self._job, self._run), (job, self._studio.run(job))]
        except EdgeAdError as error:
            complain(str(error))
            return
        with self._comparison, ui.element("div").classes("columns"):
            for one, run in runs:
                with ui.column().classes("panel wide"):
                    ui.label(training_name(one)).style("font-weight: 600")
                    ui.html(histogram(run, run.metrics.threshold), sanitize=False).classes("w-full")
                    ui.html(_table(run), sanitize=False).classes("w-full")


def effect_of(run: Run, limit: float, rate: float) -> Effect:
    """Say what a limit does: promised, measured, caught."""
    false_alarms, missed = decision_rates(run.scored, limit)
    n_good, n_defective = run.metrics.n_test_good or 0, run.metrics.n_test_anomalous or 0
    measured = caught = "unknown"
    if false_alarms is not None:
        stopped = round(false_alarms * n_good)
        measured = f"{stopped} of {n_good}, {1000 * false_alarms:.0f} in 1,000"
    if missed is not None:
        found = n_defective - round(missed * n_defective)
        caught = f"{found} of {n_defective}, {100 * (1 - missed):.0f} %"
    promised = 1000 * rate
    return Effect(
        promised=f"{promised:.0f}" if promised >= 9.95 else f"{promised:.1f}",
        measured=measured,
        caught=caught,
    )


def histogram(run: Run, limit: float) -> str:
    """Return the histogram of the report with the limit where it is now."""
    return draw_histogram(
        training=[one.score for one in run.good],
        good=_scores(run.scored, anomalous=False),
        defective=_scores(run.scored, anomalous=True),
        threshold=limit,
    )


def training_name(job: Job) -> str:
    """Return how people tell one training from another."""
    when = time.strftime("%d %b %Y, %H:%M", time.localtime(job.created_at))
    return f"{when}, {job.about.get('preset')}, {job.about.get('method')}"


def _table(run: Run) -> str:
    effect = effect_of(run, run.metrics.threshold, run.metrics.false_alarm_rate)
    auroc = run.metrics.image_auroc
    rows = [
        ("False alarms promised in 1,000", effect.promised),
        ("False alarms measured", effect.measured),
        ("Defects caught", effect.caught),
        ("Good and defective told apart", "unknown" if auroc is None else f"{100 * auroc:.1f} %"),
        ("Good pictures learnt from", str(run.metrics.n_train)),
    ]
    cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<table class='plain'>{cells}</table>"


def _scores(scored: Sequence[ScoredSample], *, anomalous: bool) -> list[float]:
    return [item.score for item in scored if item.sample.anomalous == anomalous]


def _figure(what: str) -> tuple[ui.label, ui.label]:
    with ui.element("div").classes("figure"):
        return ui.label().classes("value"), ui.label(what).classes("what")


def _say(figure: tuple[ui.label, ui.label], value: str, what: str) -> None:
    figure[0].set_text(value)
    figure[1].set_text(what)
