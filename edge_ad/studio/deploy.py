"""Step 6, Deploy: the model file, proven; what the device needs; the commands there."""

import html
import time
from typing import Any
from urllib.parse import quote

from nicegui import ui

from edge_ad.project.bundle import CONFIG_FILE, Device, device_steps, stream_config
from edge_ad.project.job import HERE, Job
from edge_ad.runs import METRICS_FILE
from edge_ad.studio.judge import training_name
from edge_ad.studio.layout import empty, go_on, head, seconds, step_address, told
from edge_ad.studio.state import Studio, model_job, model_path, run_folder
from edge_ad_runtime.errors import DataError, EdgeAdError

TARGETS = {
    "cpu": "Processor (x86 or ARM)",
    "cuda": "NVIDIA graphics card",
    "tensorrt": "NVIDIA Jetson, TensorRT",
    "portable": "Any runtime (C++, C#, JavaScript)",
}
_EXPORT_SECONDS = 30.0


def draw(studio: Studio, category: str, training: str) -> None:
    """Draw the page about a training, or the newest one."""
    job = choose_training(
        studio,
        category,
        training,
        "deploy",
        "Deploy",
        "Export the training as one file, see that it scores as the training does, and take it to "
        "the device.",
    )
    if job is not None:
        Deploy(studio, category, job)


def choose_training(
    studio: Studio, category: str, training: str, step: str, title: str, lead: str
) -> Job | None:
    """Draw a page's head with a choice of trainings; None: there is none yet."""
    jobs = studio.trained(category)
    job = next((job for job in jobs if job.id == training), jobs[0] if jobs else None)
    with head(title, lead):
        if job is None:
            go_on("Train first", step_address(category, "train"))
        else:
            names = {one.id: training_name(one) for one in jobs}
            chosen = ui.select(names, value=job.id, label="Training").props("dense outlined")
            chosen.style("width: 310px").on_value_change(
                lambda event: ui.navigate.to(step_address(category, step, run=event.value))
            )
    if job is None:
        with ui.column().classes("panel"):
            empty("There is no finished training yet.")
    return job


def submit_export(studio: Studio, job: Job, target: str = "cpu") -> Job:
    """Put the export of a training into the queue."""
    arguments = ["export", str(run_folder(job)), "--target", target, "--json"]
    arguments += ["--output", f"{HERE}/{job.category}-{job.about['method']}.onnx"]
    arguments += ["--progress", f"{HERE}/progress.json"]
    return studio.queue.submit(
        "export",
        job.category,
        f"{job.category}, export",
        arguments,
        training=job.id,
        target=target,
        expected_seconds=_EXPORT_SECONDS,
    )


def export_first(studio: Studio, job: Job, why: str) -> None:
    """Draw the export as what comes next; the page is loaded again when it is done."""
    with ui.column().classes("panel items-center"):
        words = ui.label(why).classes("empty")

        def start() -> None:
            with told():
                submit_export(studio, job)
                button.disable()

        button = ui.button("Export the model file", on_click=start).props("unelevated")

        def look() -> None:
            exports = exports_of(studio, job)
            if not exports:
                return
            words.set_text(how_it_stands(exports[0]))
            button.set_enabled(exports[0].is_over)
            if model_job(studio, job) is not None:
                ui.navigate.reload()

        ui.timer(0.7, look)


def exports_of(studio: Studio, job: Job) -> list[Job]:
    """Return the exports of a training, the newest first."""
    exports = studio.queue.jobs(job.category, "export")
    return [one for one in exports if one.about.get("training") == job.id]


def how_it_stands(export: Job) -> str:
    """Say how an export stands."""
    if export.state == "failed":
        return f"The export failed: {export.message}"
    if export.state == "queued":
        return "The export waits for the work before it."
    if export.state == "running":
        progress = export.progress()
        if progress is not None and progress.stage == "proof":
            return f"Comparing with the training: {progress.done} of {progress.total} pictures."
        return f"Building the file, for {seconds(time.time() - export.started_at)} so far."
    if export.state == "stopped":
        return "The export was stopped."
    try:
        model_path(export)
    except DataError:
        return "The model file of this export was deleted: export again."
    return "The export is done."


class Deploy:
    """One open page."""

    def __init__(self, studio: Studio, category: str, job: Job) -> None:
        """Draw it."""
        self._studio, self._category, self._job = studio, category, job
        self._shown: object = None
        with ui.element("div").classes("columns"):
            with ui.column().classes("wide").style("gap: 14px"):
                with ui.column().classes("panel"):
                    with ui.row().classes("w-full items-center justify-between"):
                        self._target = (
                            ui.select(TARGETS, value="cpu", label="The device has")
                            .props("dense outlined")
                            .style("width: 290px")
                        )
                        self._button = ui.button("Export", on_click=self._export)
                        self._button.props("unelevated")
                    self._state = ui.label().classes("small")
                    self._proof = ui.column().classes("w-full")
                self._device = ui.column().classes("panel")
            with ui.column().classes("side panel"):
                ui.html("<h2>Take it to the device</h2>", sanitize=False)
                self._downloads = ui.column().classes("w-full")
        self._show()
        ui.timer(0.7, self._show)

    def _export(self) -> None:
        with told():
            submit_export(self._studio, self._job, str(self._target.value))
            self._show()

    def _show(self) -> None:
        exports = exports_of(self._studio, self._job)
        newest = exports[0] if exports else None
        done = model_job(self._studio, self._job)
        self._state.set_text(
            how_it_stands(newest) if newest else "It has not been exported yet: press Export."
        )
        self._button.set_enabled(newest is None or newest.is_over)
        self._button.props("outline" if done else "", remove="" if done else "outline")
        state = (done.id if done else None, newest.state if newest else None)
        if state == self._shown:
            return
        self._shown = state
        for place in (self._proof, self._device, self._downloads):
            place.clear()
        if done is None:
            with self._device:
                empty("Configuration and commands appear here after the export.")
            with self._downloads:
                ui.label("Nothing to download before the export.").classes("small")
            return
        with told():
            self._draw_proof(done)
            self._draw_device(done)
            self._draw_downloads(done)

    def _draw_proof(self, export: Job) -> None:
        with self._proof:
            ui.html(proof_table(export.result()), sanitize=False).classes("w-full")
            limit = self._studio.run(self._job).metrics.threshold
            changed_at = (run_folder(self._job) / METRICS_FILE).stat().st_mtime
            if changed_at > export.started_at:
                ui.label(
                    f"The limit was changed to {limit:.4g} after this export: export again."
                ).classes("warn")

    def _draw_device(self, export: Job) -> None:
        name = model_path(export).name
        with self._device:
            with ui.row().classes("w-full no-wrap"):
                camera = ui.input("Name of the camera", value="camera").props("dense outlined")
                source = ui.input("Camera on the device", value="0").props("dense outlined")
                camera.style("flex: 1")
                source.style("flex: 2")
            config = ui.html("", sanitize=False).classes("w-full")
            steps = ui.html("", sanitize=False).classes("w-full")

            def write() -> None:
                device = self._device_of(export)
                try:
                    text = stream_config(name, device)
                except EdgeAdError as error:
                    config.set_content(f"<p class='bad'>{html.escape(str(error))}</p>")
                    return
                config.set_content(f"<pre class='code'>{html.escape(text)}</pre>")
                commands = html.escape(device_steps(name, device))
                steps.set_content(f"<pre class='code'>{commands}</pre>")

            self._fields = (camera, source)
            camera.on_value_change(write)
            source.on_value_change(write)
            write()

    def _draw_downloads(self, export: Job) -> None:
        path = model_path(export)
        size = path.stat().st_size / 1e6

        def fetch(what: str) -> None:
            device = self._device_of(export)
            with told():  # refused here, where the page can say why
                model_path(export)
                stream_config(path.name, device)
                ui.download(
                    f"/studio/download/{export.id}/{what}?camera={quote(device.camera, safe='')}"
                    f"&source={quote(device.source, safe='')}"
                )

        with self._downloads:
            for what, title, props in (
                ("bundle", "Download the bundle (ZIP)", "unelevated"),
                ("model", f"Model file ({size:.1f} MB)", "outline"),
                ("config", f"Configuration ({CONFIG_FILE})", "outline"),
            ):
                ui.button(title, on_click=lambda what=what: fetch(what)).props(props).classes(
                    "w-full"
                )
            wheels = self._studio.wheels
            ui.label(
                "The bundle holds model file, configuration and steps"
                + (", and all packages for a device without internet." if wheels else ".")
            ).classes("small")
            if wheels is None:
                ui.label(
                    "For a device without internet, run `make bundle` and start the Studio with "
                    "--wheels dist/edge-ad-bundle: the packages then come along."
                ).classes("small")

    def _device_of(self, export: Job) -> Device:
        camera, source = (str(field.value or "").strip() for field in self._fields)
        target = str(export.about.get("target", "cpu"))
        return Device(camera=camera, source=source, target=target)


def proof_table(result: Any) -> str:
    """Return what the export proved, as a table; empty where its result has been deleted."""
    result = result if isinstance(result, dict) else {}
    parity = result.get("parity", {})
    rows = [
        ("Pictures compared", parity.get("n_pictures")),
        ("Largest difference of a score", _number(parity.get("score_difference"))),
        ("Verdicts that changed", parity.get("verdict_flips")),
        ("Precision", parity.get("precision")),
        ("Limit of the file", _number(result.get("threshold"))),
    ]
    auroc = parity.get("image_auroc")
    if auroc:
        told_apart = f"{100 * auroc[1]:.2f} % (training: {100 * auroc[0]:.2f} %)"
        rows.insert(3, ("Good and defective told apart", told_apart))
    cells = "".join(
        f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows
        if value is not None
    )
    return f"<table class='plain'>{cells}</table>"


def _number(value: Any) -> str | None:
    return (
        f"{value:.2g}"
        if isinstance(value, float) and value < 0.1
        else (f"{value:.4g}" if isinstance(value, int | float) else None)
    )
