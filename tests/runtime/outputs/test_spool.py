"""The spool: order, limit, restart, damage of every kind, power cuts."""

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_ad_runtime import DataError
from edge_ad_runtime.outputs.spool import Spool, SpoolError


def fill(path: Path, count: int = 50) -> list[str]:
    spool = Spool(path, limit=1000)
    messages = [f"message {number} " + "x" * 200 for number in range(count)]
    for message in messages:
        spool.put("left/verdict", message)
    spool.close()
    return messages


def drain(spool: Spool) -> list[str]:
    found = []
    while head := spool.head(0):
        found.append(head[2])
        spool.remove(head[0])
        assert len(found) <= 100
    return found


def test_a_full_spool_drops_its_oldest_and_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit=2)
    spool.put("t", "a")
    spool.put("t", "b")
    with pytest.raises(OSError, match="holds 2 messages"):
        spool.put("t", "c")
    assert drain(spool) == ["b", "c"] and len(spool) == 0
    spool.close()


def test_a_full_disk_is_an_error_of_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit=1000)
    pages = spool._base.execute("PRAGMA page_count").fetchone()[0]
    spool._base.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(SpoolError, match=r"cannot use the spool .*is full"):
        for _ in range(99):
            spool.put("t", "x" * 1000)
    assert len(drain(spool)) > 1
    spool.close()


@pytest.mark.parametrize("content", [b"something else" * 1000, b"\x08\x08onnx" * 1000])
def test_a_file_that_is_something_else_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "spool").write_bytes(content)
    with pytest.raises(DataError, match="cannot use the spool"):
        Spool(tmp_path / "spool", limit=2)
    assert (tmp_path / "spool").read_bytes() == content


@pytest.mark.parametrize("name", ["parts.db", "edge-ad-mqtt.spool"])
def test_a_database_of_another_program_gets_no_table_of_ours(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE parts (number INTEGER)")
    before = path.read_bytes()
    if path.suffix == ".spool":
        spool = Spool(path, limit=2)
        assert "damaged spool" in spool.take_notices()[0]
        spool.close()
        (path,) = tmp_path.glob("*.damaged-*")
    else:
        with pytest.raises(DataError, match="something else than messages"):
            Spool(path, limit=2)
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("SELECT name FROM sqlite_master").fetchall() == [("parts",)]
    assert len(before) == path.stat().st_size


def test_no_second_process_or_output_gets_the_same_spool(tmp_path: Path) -> None:
    first = Spool(tmp_path / "spool", limit=2)
    with pytest.raises(DataError, match="in use by another stream"):
        Spool(tmp_path / "spool", limit=2)
    first.close()
    Spool(tmp_path / "spool", limit=2).close()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit=2)
    spool.put("t", "a")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"spool": 0o600, "spool-wal": 0o600}
    spool.close()


def test_garbage_under_the_name_of_a_spool_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "edge-ad-mqtt.spool").write_bytes(random.Random(0).randbytes(9000))
    spool = Spool(tmp_path / "edge-ad-mqtt.spool", limit=2)
    assert len(spool) == 0 and "damaged" in spool.take_notices()[0]
    spool.close()
    assert len(list(tmp_path.glob("*.spool.damaged-*"))) == 1


def damage(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    kind = rng.randrange(4)
    if kind == 0:
        del data[rng.randrange(len(data)) :]
    elif kind == 1:
        for _ in range(rng.choice((1, 1, 3, 50))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        start = rng.randrange(len(data)) // 512 * 512
        data[start : start + rng.choice((512, 4096, 20_000))] = bytes(512)
    else:
        data[rng.randrange(100)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_damage_neither_stops_the_start_nor_invents_a_message(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "spool"
    messages = fill(path)
    damage(path, random.Random(seed))
    whole = path.read_bytes()
    spool = Spool(path, limit=1000)
    found = drain(spool)
    assert [message for message in messages if message in found] == found
    if found != messages and whole:
        assert spool.take_notices()
    spool.put("left/verdict", "next")
    assert drain(spool) == ["next"]
    spool.close()


def test_damaged_names_of_tables_are_damage_of_a_spool(tmp_path: Path) -> None:
    """Such a name is not UTF-8, and Python cannot even say what SQLite says about it."""
    path = tmp_path / "spool"
    messages = fill(path)
    data = path.read_bytes()
    first, last = data.index(b"CREATE TABLE"), data.index(b"checksum INTEGER")
    for place in range(first, last, 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x80]) + data[place + 1 :])
        spool = Spool(path, limit=1000)
        assert drain(spool) == messages or spool.take_notices()
        spool.close()


def test_messages_behind_a_damaged_page_are_saved(tmp_path: Path) -> None:
    """A long queue was lost but for its first messages."""
    path = tmp_path / "spool"
    messages = fill(path, count=900)
    with path.open("r+b") as file:
        for page in (5, 20, 21):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    spool = Spool(path, limit=1000)
    assert "damaged" in spool.take_notices()[0]
    found = []
    while head := spool.head(0):
        found.append(head[2])
        spool.remove(head[0])
    assert [message for message in messages if message in set(found)] == found
    assert len(found) > 800 and found[-1] == messages[-1]
    spool.close()


def test_a_damaged_log_is_told(tmp_path: Path) -> None:
    """SQLite ends at the first damaged frame of its log, without a word about the rest."""
    path, copy = tmp_path / "spool", tmp_path / "copy"
    spool = Spool(path, limit=1000)
    messages = [f"message {number}" for number in range(50)]
    for message in messages:
        spool.put("t", message)
    base, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    spool.close()
    for place in (None, 3, 9, 17, 40, 5000, len(log) // 2, len(log) - 10):
        damaged = bytearray(log)
        if place is not None:
            damaged[place] ^= 1
        copy.write_bytes(base)
        Path(f"{copy}-wal").write_bytes(damaged)
        spool = Spool(copy, limit=1000)
        found = drain(spool)
        assert found == messages[: len(found)]
        told = any("damaged log" in notice for notice in spool.take_notices())
        assert told == (place is not None) == (found != messages)
        spool.close()


def test_a_spool_never_reads_a_message_for_ever(tmp_path: Path) -> None:
    """Damaged, and under a number that leads nowhere: it can be read, but not deleted."""
    path = tmp_path / "spool"
    fill(path, count=3)
    with closing(sqlite3.connect(path)) as base:
        base.execute("UPDATE message SET checksum = 1")
        base.commit()
    spool = Spool(path, limit=1000)
    keep = "CREATE TRIGGER keep BEFORE DELETE ON message BEGIN SELECT RAISE(IGNORE); END"
    spool._base.execute(keep)
    assert spool.head(0) is None and spool.take_notices()
    spool.put("t", "next")
    assert drain(spool) == ["next"]
    spool.close()


def test_a_lower_limit_holds_from_the_start(tmp_path: Path) -> None:
    messages = fill(tmp_path / "spool", count=50)
    spool = Spool(tmp_path / "spool", limit=10)
    assert len(spool) == 10 and "dropped 40 messages" in spool.take_notices()[0]
    assert drain(spool) == messages[40:]
    spool.close()


def test_a_spool_damaged_while_it_is_used_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    fill(path, count=300)
    spool = Spool(path, limit=1000)
    assert spool.head(0) is not None
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(100_000))
    drained = 0
    while head := spool.head(0):
        spool.remove(head[0])
        drained += 1
        assert drained <= 300
    spool.put("t", "next")
    assert drain(spool) == ["next"]
    spool.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_after_a_power_cut_the_first_messages_are_there(tmp_path: Path, share: float) -> None:
    """Copy the files of a spool in use, with a log whose end never reached the disk."""
    path, copy = tmp_path / "spool", tmp_path / "copy"
    spool = Spool(path, limit=1000)
    assert spool._base.execute("PRAGMA synchronous").fetchone()[0] == 1
    messages = [f"message {number}" for number in range(50)]
    for message in messages:
        spool.put("t", message)
    log = Path(f"{path}-wal").read_bytes()
    shutil.copy(path, copy)
    Path(f"{copy}-wal").write_bytes(log[: int(share * len(log))])
    spool.close()
    cut = Spool(copy, limit=1000)
    found = drain(cut)
    assert found == messages[: len(found)] and cut.take_notices() == []
    assert len(found) >= int(share * 40)
    cut.close()


def test_a_spool_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "spool")
    base.execute(
        "CREATE TABLE message (number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload TEXT)"
    )
    base.execute("INSERT INTO message (topic, payload) VALUES ('t', 'old')")
    base.commit()
    base.close()
    spool = Spool(tmp_path / "spool", limit=9)
    spool.put("t", "new")
    assert drain(spool) == ["old", "new"] and spool.take_notices() == []
    spool.close()
