"""Step 2, Look: are these really good? The pictures that look least like the others come first."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nicegui import ui

from edge_ad.data import GOOD
from edge_ad.project.folder import Picture
from edge_ad.project.job import HERE, Job
from edge_ad.runs import GoodPicture
from edge_ad.studio.gallery import Gallery, item_of, picture_address
from edge_ad.studio.layout import empty, go_on, head, say, step_address, told
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError, counted

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


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """A good picture, and its leave-one-out score where it has one."""

    picture: Picture
    score: float | None
    set_aside: bool


class Look:
    """One open page."""

    def __init__(self, studio: Studio, category: str) -> None:
        """Draw it."""
        self._studio, self._category = studio, category
        self._folder = studio.folder(category)
        self._chosen = ""
        self._shown: object = None
        self._beside: object = ()
        self._scored = self._found = ""
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
            self._gallery = Gallery("xd", self._on_pick, self._on_key)
            self._gallery.classes("wide").style("height: calc(100vh - 262px)")
            with ui.column().classes("side panel"):
                self._side = ui.column().classes("w-full").style("gap: 10px")
        self._pictures: dict[str, Picture] = {}
        ui.timer(0.05, self._look, once=True)
        ui.timer(0.8, self._look)

    async def _score(self) -> None:
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
            await self._look()

    async def _look(self) -> None:
        """Show it again when a comparison has gone on, or the pictures have changed."""
        jobs = self._studio.queue.jobs(self._category, "look")
        running = next((job for job in jobs if not job.is_over), None)
        newest = scored_by(self._studio, self._category)
        is_new = newest is not None and newest.id != self._scored
        if newest is not None and is_new:
            self._scored, self._chosen = newest.id, ""
        train = self._folder.path / "train" / GOOD
        changed_at = train.stat().st_mtime_ns if train.is_dir() else 0
        state = (changed_at, newest and newest.id)
        if state != self._shown:
            self._shown = state
            await self._show()
        if is_new:
            self._gallery.choose(self._chosen)  # the first of the new order
        words = self._found
        if running is not None:
            progress = running.progress()
            steps = f": {progress.done} of {progress.total}" if progress else ""
            words = f"Comparing{steps} ..."
        elif jobs and jobs[0].state == "failed":
            words = f"The comparison failed: {jobs[0].message}"
        self._state.set_text(words)
        self._button.set_enabled(running is None)
        self._button.props("outline" if newest else "", remove="" if newest else "outline")

    async def _show(self) -> None:
        ranked = await asyncio.to_thread(self._rank)
        items = [
            item_of(
                self._category,
                one.picture,
                ["unlike the others"] if one.set_aside else [],
                "new" if one.score is None else f"{one.score:.3g}",
            )
            for one in ranked
        ]
        self._pictures = {one.picture.key: one.picture for one in ranked}
        if self._chosen not in self._pictures:
            self._chosen = items[0]["key"] if items else ""
        n_new = sum(one.score is None for one in ranked)
        scored = n_new < len(ranked)
        self._gallery.show(items, self._chosen)
        self._gallery.set_visibility(scored)
        if scored:
            fresh = f", {counted(n_new, 'new one')} not compared yet" if n_new else ""
            known = counted(len(ranked) - n_new, "good picture")
            self._found = f"{known}, the least usual one first{fresh}."
        else:
            self._found = f"{counted(len(ranked), 'good picture')}, not compared yet."
        self._state.set_text(self._found)
        self._show_chosen(scored)

    def _rank(self) -> list[_Ranked]:
        """Return the good pictures, the least usual one first; those without a score last."""
        good = [
            one
            for one in self._folder.pictures()
            if one.is_good and one.use == "train" and not one.excluded
        ]
        scores: dict[Path, GoodPicture] = {}
        job = scored_by(self._studio, self._category)
        if job is not None:
            with suppress(EdgeAdError):  # deleted meanwhile
                scores = {one.path: one for one in self._studio.run(job).good}
        ranked = []
        for picture in good:
            found = scores.get(picture.path.resolve())
            ranked.append(
                _Ranked(
                    picture=picture,
                    score=found.score if found else None,
                    set_aside=found is not None and found.set_aside,
                )
            )
        ranked.sort(key=lambda one: -math.inf if one.score is None else one.score, reverse=True)
        return ranked

    def _on_pick(self, key: str) -> None:
        self._chosen = key
        self._show_chosen(True)

    async def _on_key(self, key: str, letter: str) -> None:
        if letter == "x":
            await self._leave_out(key)
        elif letter == "d":
            await self._move(key, lambda: self._folder.place(key, "test", "defect"))

    async def _leave_out(self, key: str) -> None:
        if await self._move(key, lambda: self._folder.exclude(key)):
            say("Left out. It is under Collect, Left out, if you want it back.")

    async def _move(self, key: str, change: Callable[[], Picture]) -> bool:
        """Move a picture, and choose the one after it, where nobody has chosen another yet."""
        keys = list(self._pictures)
        at = keys.index(key) if key in keys else 0
        is_moved = False
        with told():
            await asyncio.to_thread(change)
            is_moved = True
            if self._chosen == key:
                self._chosen = keys[at + 1] if at + 1 < len(keys) else ""
        await self._show()
        return is_moved

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
            key = picture.key
            ui.button("Leave it out (X)", on_click=lambda: self._leave_out(key)).props(
                "unelevated color=negative"
            ).classes("w-full")
            ui.button(
                "It is a defective part (D)",
                on_click=lambda: self._move(key, lambda: self._folder.place(key, "test", "defect")),
            ).props("outline").classes("w-full")
