"""A picture with its heat map, large, with a slider for the range of the colours."""

from nicegui import ui

from edge_ad.project.job import Job
from edge_ad.runs import Run
from edge_ad.studio.state import Studio
from edge_ad_runtime.model.overlay import color_range

_STEPS = 200


class HeatDialog:
    """The dialog of one page; it is made once and filled when it opens."""

    def __init__(self, studio: Studio, job: Job, run: Run) -> None:
        """Draw nothing yet."""
        self._studio, self._job, self._run = studio, job, run
        metrics = run.metrics
        cold, hot = color_range(metrics.map_range[0], metrics.map_threshold)
        self._usual = (cold, hot)
        self._highest = max(2 * hot, metrics.map_range[1])
        self._index = 0
        with ui.dialog() as self._dialog, ui.card().style("max-width: 1120px; width: 92vw"):
            self._title = ui.label().style("font-weight: 600")
            with ui.row().classes("w-full no-wrap items-start").style("gap: 12px"):
                shown = "width: calc(50% - 6px); max-height: 56vh; object-fit: contain"
                self._plain = ui.element("img").style(shown)
                self._heat = ui.element("img").style(shown)
            ui.label("Range of the colours: from cold at the left to hot at the right").classes(
                "small"
            )
            self._range = ui.range(min=0, max=_STEPS, value=self._steps()).props(
                "aria-label='Range of the heat map'"
            )
            self._range.on_value_change(self._show)
            with ui.row().classes("w-full justify-between items-center"):
                self._words = ui.label().classes("small")
                with ui.row():
                    ui.button("Usual range", on_click=self._reset).props("outline")
                    ui.button("Close", on_click=self._dialog.close).props("unelevated")

    def open(self, index: int) -> None:
        """Show a picture of the run by its number: first those of the test, then the fitted."""
        self._index = index
        scored, good = self._run.scored, self._run.good
        if index < len(scored):
            item = scored[index]
            name, score, kind = item.sample.path.name, item.score, item.sample.label
        else:
            one = good[index - len(scored)]
            name, score, kind = one.path.name, one.score, "good, training"
        verdict = "is stopped" if score >= self._run.metrics.threshold else "passes"
        self._title.set_text(f"{name} ({kind}): score {score:.4g}, {verdict} at the limit in force")
        self._show()
        self._dialog.open()

    def _show(self) -> None:
        low, high = (self._range.value[end] / _STEPS * self._highest for end in ("min", "max"))
        high = max(high, low + 1e-3 * self._highest)
        base = f"/studio/heat/{self._job.id}/{self._index}.jpg?low={low:.6g}&high={high:.6g}"
        self._plain.props(f'src="{base}&plain=1"')
        self._heat.props(f'src="{base}"')
        self._words.set_text(f"cold below {low:.3g}, hot from {high:.3g}")

    def _reset(self) -> None:
        self._range.set_value(self._steps())

    def _steps(self) -> dict[str, float]:
        low, high = (round(value / self._highest * _STEPS) for value in self._usual)
        return {"min": low, "max": max(high, low + 1)}
