"""Step 2, Look: are these really good? The pictures that look least like the others come first."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from nicegui import ui

from edge_ad.data import GOOD
from edge_ad.project.folder import Picture
from edge_ad.project.job import HERE, Job
from edge_ad.studio.gallery import Gallery, item_of, picture_address
from edge_ad.studio.layout import count, empty, go_on, head, say, step_address, told
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError

QUICK = ("padim", "fast")


def draw(studio: Studio, category: str) -> None:
    """Draw the page."""
    Look(studio, category)


def scored_by(studio: Studio, category: str) -> Job | None:
    """Return the newest job that scored the good pictures; None: none has."""
    jobs = studio.queue.jobs(category)
    return next(
        (job for job in jobs if job.state == "done" and job.kind in ("look", "train")), None
    )


class Look:
    """One open page."""

    def __init__(self, studio: Studio, category: str) -> None:
        """Draw it."""
        self._studio, self._category = studio, category
        self._folder = studio.folder(category)
        self._chosen = ""
        self._shown: object = None
        self._beside: object = ()
        self._scored = ""
        with head(
            "Look: are these really good?",
            "Each good picture is compared with all the others. A defective part among them hides "
            "defects of its kind, so leave out what you would not ship.",
        ):
            go_on("Next: train", step_address(category, "train"))
        with ui.row().classes("panel items-center justify-between"):
            self._state = ui.label()
            self._button = ui.button("Compare the good pictures", on_click=self._score)
            self._button.props("unelevated")
        with ui.element("div").classes("columns"):
            self._gallery = Gallery(self._on_pick, self._on_key)
            self._gallery.classes("wide").style("height: calc(100vh - 262px)")
            with ui.column().classes("side panel"):
                self._side = ui.column().classes("w-full").style("gap: 10px")
        self._look()
        ui.timer(0.8, self._look)

    def _score(self) -> None:
        method, preset = QUICK
        arguments = ["train", method, "--class", self._category, "--skip-bad", "--json"]
        arguments += ["--data-root", str(self._studio.data_root), "--results", HERE]
        arguments += ["--preset", preset, "--progress", f"{HERE}/progress.json"]
        with told():
            self._studio.queue.submit(
                "look",
                self._category,
                f"{self._category}, comparing the good pictures",
                arguments,
                method=method,
                preset=preset,
            )
            self._look()

    def _look(self) -> None:
        """Show it again when a comparison has gone on, or the pictures have changed."""
        jobs = self._studio.queue.jobs(self._category, "look")
        running = next((job for job in jobs if not job.is_over), None)
        progress = running.progress() if running else None
        train = self._folder.path / "train" / GOOD
        changed_at = train.stat().st_mtime_ns if train.is_dir() else 0
        newest = scored_by(self._studio, self._category)
        failed = jobs[0].message if jobs and jobs[0].state == "failed" else ""
        state = (running, progress, changed_at, newest and newest.id, failed)
        if newest is not None and newest.id != self._scored:
            self._scored, self._chosen = newest.id, ""  # the first of the new order
        if state != self._shown:
            self._shown = state
            self._show()
            if running is not None:
                steps = f": {progress.done} of {progress.total}" if progress else ""
                self._state.set_text(f"Comparing{steps} ...")
            elif failed:
                self._state.set_text(f"The comparison failed: {failed}")
            self._button.set_enabled(running is None)
            self._button.props("outline" if newest else "", remove="" if newest else "outline")

    def _show(self) -> None:
        good = [
            one
            for one in self._folder.pictures()
            if one.is_good and one.use == "train" and not one.excluded
        ]
        scores, aside = self._scores()
        known = [one for one in good if one.path.resolve() in scores]
        known.sort(key=lambda one: -scores[one.path.resolve()])
        new = [one for one in good if one.path.resolve() not in scores]
        items = [
            item_of(
                self._category,
                one,
                ["unlike the others"] if one.path.resolve() in aside else [],
                f"{scores[one.path.resolve()]:.3g}",
            )
            for one in known
        ]
        items += [item_of(self._category, one, [], "new") for one in new]
        self._pictures: dict[str, Picture] = {one.key: one for one in [*known, *new]}
        if self._chosen not in self._pictures:
            self._chosen = items[0]["key"] if items else ""
        self._gallery.show(items, self._chosen)
        self._gallery.set_visibility(bool(scores) and bool(items))
        if scores:
            fresh = f", {count(len(new), 'new one')} not compared yet" if new else ""
            self._state.set_text(
                f"{count(len(known), 'good picture')}, the least usual one first{fresh}."
            )
        else:
            self._state.set_text(f"{count(len(good), 'good picture')}, not compared yet.")
        self._show_chosen(bool(scores))

    def _scores(self) -> tuple[dict[Path, float], set[Path]]:
        """Return the leave-one-out scores by path, and the pictures that were set aside."""
        job = scored_by(self._studio, self._category)
        if job is None:
            return {}, set()
        try:
            run = self._studio.run(job)
        except EdgeAdError:
            return {}, set()
        return (
            {one.path: one.score for one in run.good},
            {one.path for one in run.good if one.set_aside},
        )

    def _on_pick(self, key: str) -> None:
        self._chosen = key
        self._show_chosen(True)

    async def _on_key(self, key: str, letter: str) -> None:
        self._chosen = key
        if letter == "x":
            await self._leave_out()
        elif letter == "d":
            await self._move(lambda: self._folder.place(key, "test", "defect"))

    async def _leave_out(self) -> None:
        key = self._chosen
        await self._move(lambda: self._folder.exclude(key))
        say("Left out. It is under Collect, Left out, if you want it back.")

    async def _move(self, change: Callable[[], Picture]) -> None:
        keys = list(self._pictures)
        at = keys.index(self._chosen) if self._chosen in keys else 0
        with told():
            await asyncio.to_thread(change)
            self._chosen = keys[at + 1] if at + 1 < len(keys) else ""
        self._show()

    def _show_chosen(self, scored: bool) -> None:
        picture = self._pictures.get(self._chosen)
        # Buttons under somebody's finger are not drawn anew without a reason.
        if self._beside == (picture, scored):
            return
        self._beside = (picture, scored)
        self._side.clear()
        with self._side:
            if picture is None or not scored:
                empty("Press the button above: the comparison takes some seconds.")
                return
            ui.html(
                f"<img class='preview' src='{picture_address(self._category, picture)}' alt=''>",
                sanitize=False,
            )
            ui.label(picture.path.name).style("font-weight: 600; overflow-wrap: anywhere")
            ui.button("Leave it out (X)", on_click=self._leave_out).props(
                "unelevated color=negative"
            ).classes("w-full")
            key = picture.key
            ui.button(
                "It is a defective part (D)",
                on_click=lambda: self._move(lambda: self._folder.place(key, "test", "defect")),
            ).props("outline").classes("w-full")
