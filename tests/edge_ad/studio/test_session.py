"""A whole session in a real browser: from a folder of pictures to a bundle for the device."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edge_ad.data import load_category
from edge_ad.project.folder import CategoryFolder
from edge_ad.project.job import Job
from edge_ad.runs import Run
from edge_ad_runtime import Scorer, read_frame
from tests.edge_ad.studio.conftest import StudioProcess, Until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

LONG_MS = 400_000
"""For a training or an export: on a machine with ten times as much to do as it has cores, too."""


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def test_from_a_folder_to_the_device(
    page: Any, studio: StudioProcess, pictures: Path, video: Path, until: Until, tmp_path: Path
) -> None:
    page.goto(studio.url)
    page.get_by_label("Name of a new product").fill("part")
    button(page, "Create").click()
    collect_from_a_folder(page, studio, pictures)
    give_a_picture_to_the_test(page, studio)
    mark_a_defect(page, studio, until)
    training = train_while_the_studio_starts_again(page, studio)
    leave_the_least_usual_picture_out(page, studio)
    limit = lower_the_limit(page, studio, training, until)
    change_the_colours_of_a_heat_map(page, until)
    export_and_download(page, studio, tmp_path)
    assert Scorer(tmp_path / "part-fusion.onnx").threshold == pytest.approx(limit, rel=0.05)
    try_on_a_video(page, studio, video)


def collect_from_a_folder(page: Any, studio: StudioProcess, pictures: Path) -> None:
    page.get_by_role("tab", name="Folder").click()
    page.get_by_label("Folder or ZIP on this machine").fill(str(pictures))
    button(page, "Copy the pictures").click()
    page.get_by_text("27 pictures taken in.").wait_for()
    button(page, "Good 16").wait_for()
    assert len(load_category("part", studio.data_root).train) == 16


def give_a_picture_to_the_test(page: Any, studio: StudioProcess) -> None:
    """By one key."""
    button(page, "Good 16").click()
    chosen = page.locator(".gallery figure").nth(2)
    key = chosen.get_attribute("data-key")
    chosen.click()
    page.keyboard.press("t")
    button(page, "Good 15").wait_for()
    button(page, "For testing 6").wait_for()
    assert (studio.data_root / "part" / key.replace("train", "test")).is_file()


def mark_a_defect(page: Any, studio: StudioProcess, until: Until) -> None:
    """With a rectangle, drawn to a place beside the picture, where the button is released."""
    button(page, "Defective 6").click()
    page.locator(".gallery figure .t-defect").first.click()
    button(page, "Draw a mask (M)").click()
    picture = page.locator(".q-dialog img")
    page.wait_for_function(  # the picture is there, and the dialog has come to rest
        "() => document.querySelector('.q-dialog img')?.naturalWidth > 0"
        " && document.getAnimations().length === 0"
    )

    def drawn() -> bool:  # a picture that still comes to its place lets the first grip miss
        box = picture.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 120, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 140, steps=4)
        page.mouse.move(box["x"] + box["width"] + 30, box["y"] + 140)
        page.mouse.up()
        rectangle = page.locator(".q-dialog rect")
        return bool(rectangle.count() and float(rectangle.last.get_attribute("width") or 0) > 1)

    until(drawn)
    button(page, "Save the mask").click()
    page.get_by_text("The mask is saved.").wait_for()
    (mask,) = (studio.data_root / "part" / "ground_truth").rglob("*_mask.png")
    marked = read_frame(mask)[:, :, 0] > 0
    assert 0.01 < marked.mean() < 0.5


def train_while_the_studio_starts_again(page: Any, studio: StudioProcess) -> Job:
    page.goto(f"{studio.url}/product/part/train")
    page.get_by_text("15 good pictures to learn from, 12 pictures to test with.").wait_for()
    page.get_by_text("Expert options").click()
    size = page.get_by_label("size", exact=True)
    size.fill("7")
    page.get_by_text("expected a whole number from 32 to 2048 pixels as size").wait_for()
    size.fill("64")
    button(page, "Start the training").click()
    page.get_by_role("button", name="Stop", exact=True).wait_for()
    training = studio.queue.jobs(kind="train")[0]
    studio.stop()
    studio.start()
    # The page that is open finds the Studio again by itself.
    button(page, "Judge").wait_for(timeout=LONG_MS)
    assert studio.queue.job(training.id).state == "done"
    return studio.queue.job(training.id)


def leave_the_least_usual_picture_out(page: Any, studio: StudioProcess) -> None:
    page.goto(f"{studio.url}/product/part/look")
    page.get_by_text("15 good pictures, the least usual one first.").wait_for()
    first = page.locator(".gallery figure").first.get_attribute("data-key")
    button(page, "Leave it out (X)").click()
    page.get_by_text("14 good pictures, the least usual one first.").wait_for()
    assert (studio.data_root / "part" / "excluded" / first).is_file()
    assert len(load_category("part", studio.data_root).train) == 14


def lower_the_limit(page: Any, studio: StudioProcess, training: Job, until: Until) -> float:
    """The pictures on both sides of it change, and then it is taken."""
    page.goto(f"{studio.url}/product/part/judge")
    chart = page.locator("svg.chart .limit-text")
    before = chart.text_content()
    stopped = page.get_by_text(re.compile("Are stopped: [0-9]+ pictures")).inner_text()
    slider = page.locator(".q-slider__track-container").first

    def moved() -> bool:
        slider.press("ArrowLeft")
        now = page.get_by_text(re.compile("Are stopped: [0-9]+ pictures")).inner_text()
        return bool(chart.text_content() != before and now != stopped)

    until(moved)
    run = training.folder / "part" / "fusion"
    trained = Run.read(run).metrics.threshold
    button(page, "Use this limit").click()
    page.get_by_text("The limit is set.").first.wait_for()
    limit = Run.read(run).metrics.threshold
    assert limit < trained and before == f"decision limit {trained:.4g}"
    until(lambda: chart.text_content() == f"decision limit {limit:.4g}")
    return limit


def change_the_colours_of_a_heat_map(page: Any, until: Until) -> None:
    page.locator(".strip figure").first.click()
    page.get_by_text("Range of the colours").wait_for()
    heat = page.locator(".q-dialog img").last
    before = heat.get_attribute("src")

    def cooled() -> bool:  # a dialog that still moves into place lets the first grip miss
        hot = page.locator(".q-dialog .q-slider__thumb").last.bounding_box()
        page.mouse.move(hot["x"] + hot["width"] / 2, hot["y"] + hot["height"] / 2)
        page.mouse.down()
        page.mouse.move(hot["x"] - 50, hot["y"] + hot["height"] / 2, steps=4)
        page.mouse.up()
        return bool(heat.get_attribute("src") != before)

    until(cooled)
    button(page, "Close").click()


def export_and_download(page: Any, studio: StudioProcess, into: Path) -> None:
    """The bundle of the model file, which was proven, for a camera with a name."""
    page.goto(f"{studio.url}/product/part/deploy")
    button(page, "Export").click()
    page.get_by_text("Largest difference of a score").wait_for(timeout=LONG_MS)
    page.get_by_label("Name of the camera").fill("left")
    page.get_by_text('name = "left"').wait_for()
    with page.expect_download() as download:
        button(page, "Download the bundle (ZIP)").click()
    download.value.save_as(into / "bundle.zip")
    with zipfile.ZipFile(into / "bundle.zip") as archive:
        archive.extractall(into)
    assert 'name = "left"' in (into / "line.toml").read_text()


def try_on_a_video(page: Any, studio: StudioProcess, video: Path) -> None:
    page.goto(f"{studio.url}/product/part/live")
    page.get_by_label("Camera, URL, video or folder").fill("/nowhere.avi")
    button(page, "Start").click()
    page.get_by_text("found nothing at '/nowhere.avi'").wait_for()
    page.get_by_label("Camera, URL, video or folder").fill(str(video))
    button(page, "Start").click()
    page.get_by_text("The source has ended.").wait_for()
    page.get_by_text("11 parts:").wait_for()
    source = page.locator(".live img").get_attribute("src")
    assert page.request.get(f"{studio.url}{source}").headers["content-type"] == "image/jpeg"


def test_learning_from_the_line(
    page: Any, studio: StudioProcess, pictures: Path, tmp_path: Path, until: Until
) -> None:
    """After the session above: wrong verdicts join, and the new training is compared."""
    if not studio.queue.jobs("part", "train"):
        pytest.skip("the session before it broke off")
    marks = tmp_path / "marks" / "part"
    for place, name in (("train/good", "a"), ("train/good", "b"), ("test/missed", "c")):
        kind = "test/good" if place == "train/good" else "test/anomaly"
        source = sorted((pictures / kind).iterdir())[ord(name) - ord("a")]
        (marks / place).mkdir(parents=True, exist_ok=True)
        (marks / place / f"{name}{source.suffix}").write_bytes(source.read_bytes())
    page.goto(f"{studio.url}/product/part/learn")
    page.get_by_label("Folder of marked parts").fill(str(tmp_path / "marks"))
    button(page, "Show them").click()
    button(page, "Dismiss").nth(2).wait_for()
    button(page, "Confirm all").click()
    page.get_by_text("3 pictures joined the data.").wait_for()
    category = load_category("part", studio.data_root)
    assert len(category.train) == 16
    assert sum(sample.label == "missed" for sample in category.test) == 1
    button(page, "Train again").click()
    page.get_by_text("On all pictures known so far").wait_for(timeout=LONG_MS)
    page.get_by_text(re.compile(r"of 7$")).first.wait_for()
    page.get_by_text(re.compile("better and [0-9]+ pictures? worse")).wait_for()
    # The limit was moved in the session above: the new training promises the same.
    old, new = reversed(studio.queue.jobs("part", "train"))
    rates = [Run.read(job.folder / "part/fusion").metrics.false_alarm_rate for job in (old, new)]
    assert rates[0] == rates[1]
    page.reload()
    page.get_by_text("On all pictures known so far").wait_for()

    # Two trainings stand side by side.
    page.goto(f"{studio.url}/product/part/judge")
    page.get_by_label("Compare with").click()
    page.get_by_role("option").nth(1).click()
    until(lambda: page.locator("svg.chart").count() == 3)


def test_the_camera_of_the_browser_through_a_model_file(
    page: Any, studio: StudioProcess, until: Until
) -> None:
    """A file of an earlier version, as if a training and an export had made it."""
    model = next(Path(__file__).parents[2].glob("golden/padim/*.onnx"))
    CategoryFolder.create("live", studio.data_root)
    jobs = studio.data_root / ".edge-ad-studio" / "jobs"
    about: dict[str, Any] = {"category": "live", "title": "", "arguments": [], "created_at": 1.0}
    for kind, belongs in (("train", {"method": "padim"}), ("export", {"training": "1-train"})):
        folder = jobs / f"1-{kind}"
        (folder / "live" / "padim").mkdir(parents=True)
        job = about | {"kind": kind, "about": belongs, "state": "done"}
        (folder / "job.json").write_text(json.dumps(job))
    (folder / "result.json").write_text(json.dumps({"model": str(model)}))
    page.goto(f"{studio.url}/product/live/live")
    page.get_by_text("Camera of this browser").click()
    button(page, "Start").click()
    page.get_by_text(re.compile("^([2-9]|[0-9]{2,}) parts: ")).wait_for()
    source = page.locator(".live img").get_attribute("src")
    assert page.request.get(f"{studio.url}{source}").headers["content-type"] == "image/jpeg"
    button(page, "Stop").click()
    page.locator("video").wait_for(state="detached")
    button(page, "Start").and_(page.locator(":enabled")).wait_for()

    # Somebody deletes the file: the page says so, and does not load itself again and again.
    (folder / "result.json").write_text(json.dumps({"model": str(folder / "gone.onnx")}))
    page.reload()
    page.evaluate("window.isTheSame = true")
    page.get_by_text("The model file of this export was deleted: export again.").wait_for()
    button(page, "Export the model file").and_(page.locator(":enabled")).wait_for()
    assert page.evaluate("window.isTheSame")


def test_cameras_of_the_browser_and_of_the_machine(
    page: Any, studio: StudioProcess, video: Path, until: Until
) -> None:
    page.goto(studio.url)
    page.get_by_label("Name of a new product").fill("seen")
    button(page, "Create").click()
    page.get_by_role("tab", name="Browser's camera").click()
    button(page, "Open the camera").click()
    button(page, "Take a picture").dblclick()  # the second one while the first is on its way
    button(page, "All 2").wait_for()
    good = studio.data_root / "seen" / "train" / "good"
    assert len(list(good.glob("browser-*.png"))) == 2
    frame = read_frame(next(good.glob("*.png")))
    assert min(frame.shape[:2]) >= 240 and frame.std() > 5
    button(page, "Close the camera").click()
    button(page, "Open the camera").wait_for()

    # A camera of the Studio's machine: here a video.
    page.get_by_role("tab", name="Camera", exact=True).click()
    page.get_by_label("Number of the camera, or URL").fill(str(video))
    button(page, "Open").click()
    button(page, "Take a picture").click()
    button(page, "All 3").wait_for()
    button(page, "Close").click()
    button(page, "Open").wait_for()


def test_two_browsers_do_not_harm_each_other(
    page: Any, chromium: Any, studio: StudioProcess, pictures: Path, until: Until
) -> None:
    # A folder that somebody made by hand, with a name that the command line takes as well.
    (studio.data_root / "Gehäuse <b>M8" / "train" / "good").mkdir(parents=True)
    page.goto(studio.url)
    page.get_by_text("Gehäuse <b>M8", exact=True).click()
    upload = page.locator("input[type=file]")
    upload.set_input_files(sorted((pictures / "train" / "good").iterdir())[:4])
    button(page, "All 4").wait_for()
    other = chromium.new_page()
    other.goto(page.url)
    button(other, "All 4").wait_for()
    # Both leave the same picture out; the second one is told what has happened, or sees it.
    page.locator(".gallery figure").first.click()
    page.keyboard.press("x")
    button(page, "Left out 1").wait_for()
    button(other, "Left out 1").wait_for()
    other.locator(".gallery figure").first.click()
    other.keyboard.press("x")
    button(page, "Left out 2").wait_for()
    assert len(load_category("Gehäuse <b>M8", studio.data_root).train) == 2
    other.close()
