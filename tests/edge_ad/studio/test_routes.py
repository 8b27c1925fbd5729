"""What the Studio's addresses give to somebody who asks for what he should not have."""

import json
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nicegui", reason="no nicegui: pip install 'edge-ad[studio]'")

from fastapi import FastAPI
from starlette.testclient import TestClient

from edge_ad.project.bundle import CONFIG_FILE
from edge_ad.studio.routes import router
from edge_ad.studio.state import Studio
from tests.conftest import good_plate, write_picture

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODEL = next(Path(__file__).parents[2].glob("golden/padim/*.onnx"))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    plate = good_plate(np.random.default_rng(1))
    write_picture(tmp_path / "secret.png", plate)
    write_picture(tmp_path / "data/plate/train/good/0.png", plate)
    return Studio(tmp_path / "data")


@pytest.fixture
def client(studio: Studio) -> TestClient:
    application = FastAPI()
    application.include_router(router(studio))
    return TestClient(application)


@pytest.mark.parametrize("what", ["picture", "thumbnail", "mask"])
def test_no_picture_of_another_folder(client: TestClient, tmp_path: Path, what: str) -> None:
    for path in (f"{tmp_path}/secret.png", "%2e%2e/%2e%2e/secret.png", f"train/{'a' * 300}.png"):
        answer = client.get(f"/studio/{what}/plate/{path}")
        assert "not readable" in answer.text, path
    assert "not readable" not in client.get("/studio/thumbnail/plate/train/good/0.png").text


def test_names_of_files_that_no_file_can_have(
    client: TestClient, studio: Studio, tmp_path: Path
) -> None:
    data = (tmp_path / "secret.png").read_bytes()
    for name in ("a%00b.png", "%C3%A9" * 300 + ".png", "../../x.png", "%ED%A0%80.png"):
        answer = client.put("/studio/upload/plate", headers={"X-File-Name": name}, content=data)
        assert answer.status_code == 200 and not answer.json()["refused"], answer.text
    assert list(studio.uploads.iterdir()) == []
    assert {path.parent for path in tmp_path.rglob("*.png")} == {
        tmp_path,
        tmp_path / "data/plate/train/good",
    }


def test_marked_parts_only_of_the_folder_that_a_page_shows(
    client: TestClient, studio: Studio, tmp_path: Path
) -> None:
    studio.marked["page"] = (tmp_path / "secret.png",)
    assert client.get("/studio/marked/page/0.jpg").headers["content-type"] == "image/jpeg"
    for path in ("page/1.jpg", "page/-1.jpg", "other/0.jpg"):
        assert "not readable" in client.get(f"/studio/marked/{path}").text


def test_two_people_download_one_bundle_at_once(client: TestClient, studio: Studio) -> None:
    """Each gets the camera that he named, and nothing is left on the disk."""
    job = studio.home / "jobs/20260101T000000-000-export-0000"
    job.mkdir(parents=True)
    about: dict[str, object] = {"kind": "export", "category": "plate", "title": "", "arguments": []}
    about |= {"about": {"target": "cpu"}, "state": "done", "created_at": 1.0}
    (job / "job.json").write_text(json.dumps(about))
    (job / "result.json").write_text(json.dumps({"model": str(MODEL)}))

    def camera_of(name: str) -> str:
        answer = client.get(f"/studio/download/{job.name}/bundle?camera={name}")
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(BytesIO(answer.content)) as archive:
            return str(tomllib.loads(archive.read(CONFIG_FILE).decode())["camera"][0]["name"])

    names = [f"camera {number}" for number in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(camera_of, names)) == names
    assert list(studio.uploads.iterdir()) == []
    assert sorted(path.name for path in job.iterdir()) == ["job.json", "result.json"]


def test_it_starts_again_after_a_kill(studio: Studio) -> None:
    left = studio.uploads / "0123" / "all.zip"
    left.parent.mkdir()
    left.write_bytes(b"half")
    intake = studio.data_root / "plate/.edge-ad-x.tmp"
    intake.mkdir()
    again = Studio(studio.data_root)
    assert list(again.uploads.iterdir()) == [] and not intake.exists()


@pytest.mark.parametrize("model", [5, None, "/gone.onnx", "a\0", "\ud800", ["x"], "deep"])
def test_a_model_that_is_not_there(client: TestClient, studio: Studio, model: object) -> None:
    folder = studio.home / "jobs/20260101T000000-000-export-0000"
    folder.mkdir(parents=True)
    job = {"kind": "export", "category": "plate", "title": "Export", "arguments": [], "about": {}}
    (folder / "job.json").write_text(json.dumps(job | {"state": "done", "created_at": 1.0}))
    result = "[" * 50_000 if model == "deep" else json.dumps({"model": model})
    (folder / "result.json").write_text(result)
    for what in ("model", "config", "bundle"):
        answer = client.get(f"/studio/download/{folder.name}/{what}")
        assert answer.status_code == 400 and "export again" in answer.json()["error"]
