"""What comes over the network: bad files, large ones, and callers who must not come in."""

import asyncio
import http.client
import re
import socket
import tracemalloc
import zipfile
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from edge_ad.project.folder import CategoryFolder
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.model.picture_file import read_frame

pytest.importorskip("nicegui", reason="no nicegui: pip install 'edge-ad[studio]'")

from fastapi import FastAPI

from edge_ad.studio.routes import router
from edge_ad.studio.server import StudioServer
from edge_ad.studio.state import Studio
from edge_ad_runtime.stream.config import ServeConfig
from tests.edge_ad.studio.conftest import StudioProcess, Until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
TOKEN = "a-token-of-the-test"


@pytest.fixture(scope="module")
def folder(studio: StudioProcess) -> CategoryFolder:
    return CategoryFolder.create("plate", studio.data_root)


@pytest.fixture(scope="module", autouse=True)
def half_a_request(studio: StudioProcess) -> Iterator[socket.socket]:
    """A client that sends no more; the Studio's patience runs out while other tests run."""
    with closing(connect(studio)) as connection:
        connection.connect()
        connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        yield connection.sock


def ask(
    studio: StudioProcess, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, str]:
    """Send a request whose header names have `_` for `-`; returns status and body."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(connect(studio)) as connection:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


def connect(studio: StudioProcess) -> http.client.HTTPConnection:
    address = urlsplit(studio.url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)


def put(studio: StudioProcess, name: str, data: bytes) -> tuple[int, str]:
    return ask(studio, "PUT", "/studio/upload/plate", data, X_File_Name=name)


def zipped(**entries: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def picture(ending: str = ".png", depth: Any = np.uint8) -> bytes:
    pixels = np.full((20, 30, 3), np.iinfo(depth).max // 2, depth)
    return cv2.imencode(ending, pixels)[1].tobytes()


def uploads(studio: StudioProcess) -> list[Path]:
    return list((studio.data_root / ".edge-ad-studio" / "uploads").iterdir())


def test_good_files_are_taken(studio: StudioProcess, folder: CategoryFolder) -> None:
    assert put(studio, "a%20part.png", picture()) == (200, '{"taken":1,"refused":[]}')
    assert put(studio, "deep.tiff", picture(".tiff", np.uint16))[0] == 200
    assert put(studio, "more.zip", zipped(**{"x/1.png": picture(), "x/2.png": b"no"}))[0] == 200
    names = sorted(one.path.name for one in folder.pictures())
    assert names == ["1.png", "a part.png", "deep.tiff"]
    assert read_frame(folder.path / "train/good/deep.tiff")[0, 0, 0] == 127
    status, found = ask(studio, "GET", "/studio/thumbnail/plate/train/good/a%20part.png")
    assert status == 200 and "JFIF" in found
    assert uploads(studio) == []


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("evil.zip", zipped(**{"../../evil.png": b"x"}), "leads out of it"),
        ("torn.zip", b"PK\x03\x04torn", "damaged or not a ZIP"),
        ("phone.heic", b"\0\0\0\x18ftypheic", "convert it first"),
        ("phone.png", b"\0\0\0\x18ftypheic" + bytes(90), "it is HEIC or AVIF"),
        ("../../evil.sh", b"rm", "convert it first"),
        ("", picture(), "convert it first"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(
    studio: StudioProcess, folder: CategoryFolder, name: str, data: bytes, sentence: str
) -> None:
    before = len(folder.pictures())
    status, found = put(studio, name, data)
    assert sentence in found and status in (200, 400)
    assert str(studio.data_root) not in found
    assert len(folder.pictures()) == before and uploads(studio) == []


def test_a_name_leads_nowhere(studio: StudioProcess, folder: CategoryFolder) -> None:
    assert put(studio, "..%2F..%2F..%2Foutside.png", picture())[0] == 200
    assert (folder.path / "train/good/outside.png").is_file()
    assert not list(studio.data_root.parent.glob("outside.png"))
    for path in ("/studio/picture/plate/../../x.png", "/studio/picture/plate/%2e%2e/x.png"):
        assert "not readable" in ask(studio, "GET", path)[1] or ask(studio, "GET", path)[0] == 404
    assert "not readable" in ask(studio, "GET", "/studio/marked/opened/0.jpg")[1]
    assert ask(studio, "PUT", "/studio/upload/..", picture(), X_File_Name="a.png")[0] >= 400


def test_two_gigabytes_are_refused_before_they_come(
    studio: StudioProcess, folder: CategoryFolder
) -> None:
    status, found = ask(
        studio,
        "PUT",
        "/studio/upload/plate",
        iter([bytes(2**16)]),
        X_File_Name="huge.zip",
        Content_Length=str(2**31),
    )
    assert (status, "is larger than the 1 GiB" in found) == (413, True)
    assert ask(studio, "POST", "/_nicegui/anything", bytes(2**20 + 1))[0] == 413
    assert uploads(studio) == []


def test_a_torn_upload_leaves_nothing(
    studio: StudioProcess, folder: CategoryFolder, until: Until
) -> None:
    count = len(folder.pictures())
    with closing(connect(studio)) as connection:
        connection.putrequest("PUT", "/studio/upload/plate")
        connection.putheader("X-File-Name", "slow.zip")
        connection.putheader("Content-Length", str(2**29))
        connection.endheaders()
        connection.send(bytes(2**21))
        until(lambda: any(path.stat().st_size >= 2**20 for path in uploads(studio)))
    until(lambda: uploads(studio) == [])
    assert len(folder.pictures()) == count


def test_an_upload_goes_to_disk_as_it_comes(tmp_path: Path) -> None:
    """The same route without a server, so that its memory alone is measured."""
    studio = Studio(tmp_path)
    CategoryFolder.create("plate", tmp_path)
    application = FastAPI()
    application.include_router(router(studio))
    parts, sent = 64, []
    scope = {
        "type": "http",
        "method": "PUT",
        "path": "/studio/upload/plate",
        "query_string": b"",
        "headers": [(b"x-file-name", b"large.zip")],
    }

    async def receive() -> dict[str, Any]:
        nonlocal parts
        parts -= 1
        return {"type": "http.request", "body": bytes(2**20), "more_body": parts > 0}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    tracemalloc.start()
    # In a thread of its own: the browser of other tests has a loop in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(application(scope, receive, send))).result()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert b"large.zip is damaged or" in b"".join(message.get("body", b"") for message in sent)
    assert peak < 16 * 2**20


def handshake(studio: StudioProcess, **headers: str) -> int:
    """Ask for the page's websocket; returns the status, 101 where it is opened."""
    sent = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    with closing(connect(studio)) as connection:
        connection.request("GET", path, None, sent)
        return connection.getresponse().status


def test_other_pages_and_other_names_are_kept_out(studio: StudioProcess) -> None:
    assert ask(studio, "GET", "/")[0] == 200
    assert ask(studio, "GET", "/", Host="evil.example")[0] == 403
    assert ask(studio, "PUT", "/studio/upload/plate", b"", Origin="http://evil.example")[0] == 403
    assert handshake(studio) == 101
    assert handshake(studio, Origin="http://evil.example") == 403
    assert handshake(studio, Host="evil.example") == 403


def test_beyond_this_machine_only_with_a_token(tmp_path: Path, studio: StudioProcess) -> None:
    with pytest.raises(DataError, match="set a token"):
        StudioServer(tmp_path / "other", ServeConfig(host="0.0.0.0", port=0))
    with pytest.raises(ConfigError, match="another Studio already works in"):
        StudioServer(studio.data_root, ServeConfig(port=0))
    port = urlsplit(studio.url).port or 0
    with pytest.raises(ConfigError, match="choose another port"):
        StudioServer(tmp_path / "other", ServeConfig(port=port))
    assert not (tmp_path / "other").exists()

    guarded = StudioProcess.__new__(StudioProcess)
    guarded.data_root, guarded._folder, guarded._port = tmp_path / "data", tmp_path, 0
    guarded.start("--host", "0.0.0.0", EDGE_AD_TOKEN=TOKEN)
    try:
        assert ask(guarded, "GET", "/")[0] == 401
        assert handshake(guarded) == 403
        assert ask(guarded, "GET", f"/?token={TOKEN}")[0] == 303
        assert ask(guarded, "GET", "/", Cookie=f"edge_ad_token={TOKEN}")[0] == 200
        assert handshake(guarded, Cookie=f"edge_ad_token={TOKEN}") == 101
    finally:
        guarded.stop()


def test_every_page_forbids_other_addresses(studio: StudioProcess) -> None:
    with closing(connect(studio)) as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        policy = answer.getheader("content-security-policy") or ""
        text = answer.read().decode()
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", text)


def test_half_a_request_is_cut_off(half_a_request: socket.socket) -> None:
    """So that clients which send no more cannot use up the process's descriptors."""
    half_a_request.settimeout(60)
    try:
        assert half_a_request.recv(100) == b""
    except ConnectionResetError:
        pass
