"""Step 7, Learn from the line: wrong verdicts join the data, and a new training must be better."""

import asyncio
import html
from pathlib import Path
from urllib.parse import quote

from nicegui import ui

from edge_ad.project.job import Job
from edge_ad.project.marks import Marked, join, read_marks
from edge_ad.project.successor import Succession, compare_runs
from edge_ad.studio.deploy import choose_training
from edge_ad.studio.layout import complain, count, empty, say, step_address, told
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError

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

    async def _open(self) -> None:
        source = Path(str(self._source.value or "").strip() or "edge-ad-marks")
        try:
            self._marks = await asyncio.to_thread(read_marks, source, self._folder)
        except EdgeAdError as error:
            complain(str(error))
            return
        self._studio.marked.update(one.path for one in self._marks)
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
            address = f"/studio/marked/{self._category}?path={quote(str(one.path), safe='')}"
            ui.html(f"<img src='{html.escape(address)}' loading='lazy' alt=''>", sanitize=False)
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
                self._marks.remove(one)
        say(f"{count(joined, 'picture')} joined the data.")
        self._show_marks()

    def _retrain(self) -> None:
        with told():
            again = self._studio.queue.submit(
                "train",
                self._category,
                f"{self._category}, training again",
                self._job.arguments,
                **self._job.about | {"replaces": self._job.id},
            )
            self._state.set_text(f"Training again: {again.state}")
        self._look()

    def _successor(self) -> Job | None:
        jobs = self._studio.queue.jobs(self._category, "train")
        return next((job for job in jobs if job.about.get("replaces") == self._job.id), None)

    async def _compare(self, after: Job) -> None:
        studio = self._studio

        def judge() -> Succession:
            before, newer = (studio.run(job) for job in (self._job, after))
            return compare_runs(
                (before, studio.detector(self._job)),
                (newer, studio.detector(after)),
                self._folder.pictures(),
            )

        self._state.set_text("Comparing both on all pictures ...")
        try:
            found = await asyncio.to_thread(judge)
        except EdgeAdError as error:
            self._state.set_text(str(error))
            return
        self._show_comparison(found, after)

    def _look(self) -> None:
        after = self._successor()
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
        elif after.state == "done":
            ui.timer(0.01, lambda: self._compare(after), once=True)
        else:
            steps = f": {progress.done} of {progress.total}" if progress else ""
            self._state.set_text(f"Training again{steps} ...")

    def _show_comparison(self, found: Succession, after: Job) -> None:
        before, newer = found.before, found.after
        words = (
            f"The new training judges {count(len(found.mended), 'picture')} better and "
            f"{count(len(found.broken), 'picture')} worse than the old one."
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
        self._comparison.clear()
        with self._comparison:
            ui.html(
                "<table class='plain'><tr><th>On all pictures known so far</th><th>Old</th>"
                f"<th>New</th></tr>{cells}</table>",
                sanitize=False,
            ).classes("w-full")
            if found.broken:
                names = ", ".join(path.name for path in found.broken[:5])
                ui.label(f"Judged worse: {names}").classes("small warn")
            if not found.is_better:
                empty("The new training is not better: keep the old one, or add pictures.")
            deploy = step_address(self._category, "deploy", run=after.id)
            ui.button("Take the new one: deploy it", on_click=lambda: ui.navigate.to(deploy)).props(
                "unelevated" if found.is_better else "outline"
            )
