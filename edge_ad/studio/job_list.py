"""The trainings of a product: how each stands, and what can be done with it."""

import asyncio
import time

from nicegui import ui

from edge_ad.config import CONFIGS
from edge_ad.project.job import Job
from edge_ad.studio.layout import seconds, step_address, told
from edge_ad.studio.state import Studio

_MOST_SHOWN = 12
_STAGES = {
    "leave-one-out": "Scoring each good picture without itself",
    "coreset": "Choosing what to remember",
    "fit": "Learning from the good pictures",
    "evaluate": "Scoring the test pictures",
    "proof": "Comparing the file with the training",
}


class JobList:
    """The list on one open page; it shows by itself what changes."""

    def __init__(self, studio: Studio, category: str, next_step: ui.button) -> None:
        """Draw it.

        Args:
            studio: where everything lies.
            category: the product.
            next_step: the button that needs a finished training.
        """
        self._studio, self._category, self._next = studio, category, next_step
        self._shown: object = None
        self._rows: dict[str, tuple[ui.label, ui.linear_progress]] = {}
        self._jobs = ui.column().classes("w-full").style("gap: 10px")
        self.show()
        ui.timer(0.7, self.show)

    def show(self) -> None:
        """Show how the trainings stand; a row is drawn anew only when its buttons change."""
        jobs = self._studio.queue.jobs(self._category, "train")[:_MOST_SHOWN]
        self._next.set_enabled(any(job.state == "done" for job in jobs))
        states = [(job.id, job.state) for job in jobs]
        if states != self._shown:
            self._shown = states
            self._rows.clear()
            self._jobs.clear()
            with self._jobs:
                if jobs:
                    ui.html("<h2>Trainings</h2>", sanitize=False)
                for job in jobs:
                    self._draw_job(job)
        for job in jobs:
            words, bar = self._rows[job.id]
            words.set_text(_how_it_stands(job))
            bar.set_value(_share(job) if job.state == "running" else 0)

    def _draw_job(self, job: Job) -> None:
        with ui.row().classes("panel items-center no-wrap").style("padding: 10px 16px"):
            with ui.column().style("flex: 1; gap: 2px; min-width: 0"):
                started = time.strftime("%d %b, %H:%M", time.localtime(job.created_at))
                config = CONFIGS.get(str(job.about.get("method")))
                method = config.title if config else "unknown method"
                ui.label(f"{started}: {job.about.get('preset')}, {method}").style(
                    "font-weight: 600"
                )
                words = ui.label().classes("small" + (" bad" if job.message else ""))
                bar = ui.linear_progress(0, show_value=False).props("instant-feedback")
                bar.set_visibility(job.state == "running")
                self._rows[job.id] = (words, bar)
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
        with told():
            await asyncio.to_thread(self._studio.queue.stop, job.id)
        self.show()

    def _again(self, job: Job) -> None:
        with told():
            self._studio.queue.again(job.id)
            self.show()

    async def _remove(self, job: Job) -> None:
        with ui.dialog() as dialog, ui.card():
            ui.label("Delete this training with its limit and its model file?")
            with ui.row():
                ui.button("Delete", on_click=lambda: dialog.submit(True)).props(
                    "unelevated color=negative"
                )
                ui.button("Keep it", on_click=lambda: dialog.submit(False)).props("outline")
        if await dialog:
            with told():
                await asyncio.to_thread(self._studio.queue.remove, job.id)
            self.show()


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
    if left is not None:
        return f"{words}, about {seconds(left)} left"
    expected = job.about.get("expected_seconds") is not None
    return words + (", longer than expected" if expected else "")


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
