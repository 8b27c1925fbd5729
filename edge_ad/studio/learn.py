"""Step 7, Learn from the line: wrong verdicts join the data, and a new training must be better."""

import asyncio
import html
import secrets
import time
from pathlib import Path

from nicegui import ui

from edge_ad.project.job import Job
from edge_ad.project.marks import Marked, join, read_marks
from edge_ad.project.successor import Succession, compare_runs, retraining
from edge_ad.studio.deploy import choose_training
from edge_ad.studio.judge import training_name
from edge_ad.studio.layout import (
    complain,
    empty,
    say,
    seconds,
    step_address,
    told,
    words_of,
)
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError, counted

_MOST_SHOWN = 60


def draw(studio: Studio, category: str, training: str) -> None:
    """Draw the page about a training, or the newest one."""
    job = choose_training(
        studio,
        category,
        training,
        "learn",
        "Learn from the line",
        "Parts that people on the live page called a false alarm or missed come in here. Confirm "
        "them, train again, and see on all pictures whether the new one is better.",
    )
    if job is not None:
        Learn(studio, category, job)


class Learn:
    """One open page."""

    def __init__(self, studio: Studio, category: str, job: Job) -> None:
        """Draw it."""
        self._studio, self._category, self._job = studio, category, job
        self._folder = studio.folder(category)
        self._marks: list[Marked] = []
        self._shown: object = None
        with ui.column().classes("panel"):
            ui.html("<h2>1. Bring the marked parts in</h2>", sanitize=False)
            with ui.row().classes("w-full items-center no-wrap"):
                self._source = ui.input(
                    "Folder of marked parts, copied from the device",
                    placeholder="/data/edge-ad-marks",
                ).props("dense outlined")
                self._source.style("flex: 1").on("keydown.enter", self._open)
                ui.button("Show them", on_click=self._open).props("unelevated")
                self._all = ui.button("Confirm all", on_click=self._join_all).props("outline")
                self._all.set_visibility(False)
            self._list = ui.element("div").classes("strip").style("flex-wrap: wrap")
        with ui.column().classes("panel"):
            ui.html("<h2>2. Train again and compare</h2>", sanitize=False)
            with ui.row().classes("w-full items-center justify-between"):
                self._state = ui.label().style("flex: 1")
                self._train = ui.button("Train again", on_click=self._retrain)
                self._train.props("unelevated")
            self._comparison = ui.column().classes("w-full")
        self._look()
        ui.timer(0.8, self._look)
        self._opened = secrets.token_hex(8)
        ui.context.client.on_delete(lambda: studio.marked.pop(self._opened, None))

    async def _open(self) -> None:
        text = str(self._source.value or "").strip()
        if not text:  # as a path it would be the folder where the Studio was started
            complain("Give the folder that you copied from the device, such as /data/marks.")
            return
        try:
            source = Path(text).expanduser()
            self._marks = await asyncio.to_thread(read_marks, source, self._folder)
        except (EdgeAdError, OSError) as error:
            complain(words_of(error))
            return
        self._paths = tuple(one.path for one in self._marks)
        self._studio.marked[self._opened] = self._paths
        self._show_marks()

    def _show_marks(self) -> None:
        self._list.clear()
        new = [one for one in self._marks if not one.known]
        self._all.set_visibility(bool(new))
        with self._list:
            if not new:
                ui.label("All marked parts of this folder are among the pictures now.").classes(
                    "small"
                )
            for one in new[:_MOST_SHOWN]:
                self._draw_mark(one)
            if len(new) > _MOST_SHOWN:
                ui.label(f"and {len(new) - _MOST_SHOWN} more").classes("small")

    def _draw_mark(self, one: Marked) -> None:
        kind = "is-good" if one.mark == "false alarm" else "is-defect"
        with ui.element("figure").classes(kind).style("width: 176px; cursor: default"):
            address = f"/studio/marked/{self._opened}/{self._paths.index(one.path)}.jpg"
            ui.html(f"<img src='{address}' loading='lazy' alt=''>", sanitize=False)
            with ui.element("figcaption"):
                score = "" if one.score is None else f", {one.score:.3g}"
                ui.label(one.mark + score).style("font-weight: 600")
                ui.label(one.who or one.path.name).classes("small")
            with ui.row().classes("no-wrap").style("padding: 0 6px 6px; gap: 4px"):
                ui.button("Confirm", on_click=lambda: self._join([one])).props("outline dense")
                ui.button("Dismiss", on_click=lambda: self._dismiss(one)).props(
                    "flat dense color=dark"
                )

    def _dismiss(self, one: Marked) -> None:
        self._marks.remove(one)
        self._show_marks()

    async def _join_all(self) -> None:
        await self._join([one for one in self._marks if not one.known])

    async def _join(self, marks: list[Marked]) -> None:
        joined = 0
        for one in marks:
            try:
                await asyncio.to_thread(join, one, self._folder)
            except EdgeAdError as error:
                complain(str(error))
            else:
                joined += 1
                if one in self._marks:  # else somebody has pressed twice
                    self._marks.remove(one)
        say(f"{counted(joined, 'picture')} joined the data.")
        self._show_marks()

    def _retrain(self) -> None:
        with told():
            again = self._studio.queue.submit(
                "train",
                self._category,
                f"{self._category}, training again",
                retraining(self._job, self._studio.run(self._job)),
                **self._job.about | {"replaces": self._job.id},
            )
            self._state.set_text(f"Training again: {again.state}")
        self._look()

    def _pair(self) -> tuple[Job, Job | None]:
        """Return the old training and the new one.

        The one that the page is about, and what was trained again after it; else what it was
        trained again after: a page that is loaded anew is about the newest training.
        """
        jobs = self._studio.queue.jobs(self._category, "train")
        after = next((job for job in jobs if job.about.get("replaces") == self._job.id), None)
        if after is not None:
            return self._job, after
        replaced = self._job.about.get("replaces")
        trained = self._studio.trained(self._category)
        before = next((job for job in trained if job.id == replaced), None)
        return (self._job, None) if before is None else (before, self._job)

    async def _compare(self, before: Job, after: Job) -> None:
        studio = self._studio

        def judge() -> Succession:
            runs = [(studio.run(job), studio.detector(job)) for job in (before, after)]
            return compare_runs(runs[0], runs[1], self._folder.pictures())

        self._state.set_text("Comparing both on all pictures ...")
        try:
            found = await asyncio.to_thread(judge)
        except (EdgeAdError, OSError) as error:
            self._state.set_text(words_of(error))
            return
        self._show_comparison(found, before, after)

    def _look(self) -> None:
        before, after = self._pair()
        progress = after.progress() if after else None
        state = (after and after.id, after and after.state, progress)
        if state == self._shown:
            return
        self._shown = state
        self._train.set_enabled(after is None or after.is_over)
        if after is None:
            self._state.set_text("Nothing was trained again since.")
        elif after.state == "failed":
            self._state.set_text(f"Training again failed: {after.message}")
        elif after.state == "stopped":
            self._state.set_text("Training again was stopped.")
        elif after.state == "done":
            ui.timer(0.01, lambda: self._compare(before, after), once=True)
        else:
            left = after.seconds_left(time.time())
            words = f": {progress.done} of {progress.total}" if progress else ""
            words += f", about {seconds(left)} left" if left is not None else ""
            self._state.set_text(f"Training again{words} ...")

    def _show_comparison(self, found: Succession, old_job: Job, new_job: Job) -> None:
        before, newer = found.before, found.after
        words = (
            f"The new training judges {counted(len(found.mended), 'picture')} better and "
            f"{counted(len(found.broken), 'picture')} worse than the old one."
        )
        self._state.set_text(words)
        rows = [
            ("False alarms", before.n_false_alarms, newer.n_false_alarms, before.n_good),
            ("Missed defects", before.n_missed, newer.n_missed, before.n_defective),
        ]
        cells = "".join(
            f"<tr><td>{name}</td><td>{old} of {total}</td><td>{new} of {total}</td></tr>"
            for name, old, new, total in rows
        )
        self._train.props("outline")  # what comes next is to take the new one
        self._comparison.clear()
        with self._comparison:
            ui.html(
                "<table class='plain'><tr><th>On all pictures known so far</th>"
                f"<th>Old: {html.escape(training_name(old_job))}</th>"
                f"<th>New: {html.escape(training_name(new_job))}</th></tr>{cells}</table>",
                sanitize=False,
            ).classes("w-full")
            if found.broken:
                names = ", ".join(path.name for path in found.broken[:5])
                ui.label(f"Judged worse: {names}").classes("small warn")
            if not found.is_better:
                empty("The new training is not better: keep the old one, or add pictures.")
            deploy = step_address(self._category, "deploy", run=new_job.id)
            ui.button("Take the new one: deploy it", on_click=lambda: ui.navigate.to(deploy)).props(
                "unelevated" if found.is_better else "outline"
            )
