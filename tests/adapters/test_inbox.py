import hashlib
import http.client
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from making import REPOSITORY, content

from pipeline.adapters import batches, inbox, locks
from pipeline.adapters.inbox import Entry, Folder, Inbox, Place
from pipeline.domain import inbox as rules
from pipeline.domain.inbox import Item
from pipeline.errors import GliaflowError

SETTLE = 60
P, Q = "TCGA_CS_1", "TCGA_DU_2"
SCANS = {
    f"{P}/{P}_1.tif": b"first slice",
    f"{P}/{P}_1_mask.tif": b"its mask",
    f"{Q}/{Q}_1.tif": b"another patient's slice",
    f"{Q}/{Q}_1_mask.tif": b"another mask",
}
CHANGED = SCANS | {f"{Q}/{Q}_1.tif": b"another patient's slicE"}  # one byte
DIGEST = rules.batch_digest({name: hashlib.sha256(SCANS[name]).hexdigest() for name in SCANS})


@dataclass
class Yard:
    """An inbox folder, what belongs to it, and a clock that a test moves."""

    root: Path
    now: float = 1000.0
    drop: Path = field(init=False)
    incoming: Path = field(init=False)
    state: Path = field(init=False)
    lock: Path = field(init=False)

    def __post_init__(self) -> None:
        self.drop, self.incoming = self.root / "inbox", self.root / "data" / "incoming"
        self.state, self.lock = self.root / ".local" / "inbox", self.root / ".local" / "lock"
        self.drop.mkdir()
        self.incoming.mkdir(parents=True)

    def open(self, place: Place | None = None, *, endpoint_url: str | None = None) -> Inbox:
        return Inbox(
            place or Folder(self.drop), incoming=self.incoming, state=self.state, lock=self.lock,
            endpoint_url=endpoint_url, max_gib=1, settle_seconds=SETTLE, clock=lambda: self.now,
        )  # fmt: skip

    def look(self, place: Place | None = None) -> dict[str, Entry]:
        """One look through an inbox that remembers nothing by itself."""
        return by_name(self.open(place).look())

    def look_when_settled(self, place: Place | None = None) -> dict[str, Entry]:
        self.look(place)
        self.now += SETTLE
        return self.look(place)

    def put(self, batch: str, entries: dict[str, bytes]) -> Path:
        for name, body in entries.items():
            (self.drop / batch / name).parent.mkdir(parents=True, exist_ok=True)
            (self.drop / batch / name).write_bytes(body)
        return self.drop / batch

    def taken(self) -> dict[str, dict[str, bytes]]:
        """What lies in `incoming`, by batch, without the notes."""
        found = {folder.name: content(folder) for folder in sorted(self.incoming.iterdir())}
        return {
            batch: {name: body for name, body in entries.items() if name != batches.NOTE}
            for batch, entries in found.items()
        }

    def half_copies(self) -> dict[str, bytes]:
        return content(self.state / "aside")


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.batch: entry for entry in entries}


@pytest.fixture
def yard(tmp_path) -> Yard:
    return Yard(tmp_path)


def is_sentence(text: str) -> bool:
    return bool(text) and "\n" not in text and "Traceback" not in text


class Disk:
    """The real one, but a file of a given name cannot be read while it is `broken`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: str):
        self.broken: str | None = broken
        self.read: list[str] = []
        really = Path.read_bytes

        def read_bytes(path: Path) -> bytes:
            self.read.append(path.name)
            if path.name == self.broken:
                raise OSError(5, "Input/output error")
            return really(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)


class Changing(Folder):
    """A folder to which something happens right before it is listed for the second time."""

    def __init__(self, root: Path, change: Callable[[], object]):
        super().__init__(root)
        self._change = change
        self._looks = 0

    def listings(self) -> dict[str, list[Item]]:
        self._looks += 1
        if self._looks == 2:
            self._change()
        return super().listings()


class Named(Folder):
    """A folder whose one batch goes by another name, as a bucket's keys can name it."""

    def __init__(self, root: Path, name: str):
        super().__init__(root)
        self._name = name

    def listings(self) -> dict[str, list[Item]]:
        (listing,) = super().listings().values()
        return {self._name: listing}


# Arriving


def test_a_batch_of_links_to_patients_is_taken_as_their_files(yard, tmp_path):
    store = tmp_path / "store"
    for name, body in SCANS.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(body)
    (yard.drop / "spring").mkdir()
    for patient in (P, Q):
        (yard.drop / "spring" / patient).symlink_to(store / patient)
    assert yard.look_when_settled()["spring"].state == "taken"
    assert yard.taken() == {"spring": SCANS}


def test_a_batch_settles_and_is_then_taken_whole(yard):
    yard.put("march", SCANS)
    assert yard.look()["march"].state == "settling"
    assert yard.taken() == {}
    yard.now += SETTLE
    entry = yard.look()["march"]
    assert (entry.state, entry.note) == ("taken", "2 patients, 4 files, as march")
    assert yard.taken() == {"march": SCANS}
    assert yard.half_copies() == {}


def test_a_batch_is_left_in_the_inbox_as_it_was(yard):
    dropped = yard.put("march", SCANS)
    yard.look_when_settled()
    assert content(dropped) == SCANS


def test_a_taken_batch_has_a_note_of_when_and_what(yard):
    yard.put("march", SCANS)
    yard.look_when_settled()
    note = batches.read_note(yard.incoming / "march")
    assert datetime.fromisoformat(note.arrived) == datetime.fromtimestamp(1060, UTC)
    assert note.digest == DIGEST


def test_a_batch_is_taken_no_second_earlier_than_it_settled(yard):
    yard.put("march", SCANS)
    yard.look()
    yard.now += SETTLE - 1
    assert yard.look()["march"].state == "settling"
    yard.now += 1
    assert yard.look()["march"].state == "taken"


@pytest.mark.parametrize("name", [f"{P}/{P}_2.tif", f"{Q}/{Q}_1.tif"], ids=["new", "longer"])
def test_a_batch_that_grows_between_looks_is_not_taken(yard, name):
    yard.put("march", SCANS)
    yard.look()
    yard.now += SETTLE
    yard.put("march", {name: b"a slice that came later, or was not whole before"})
    assert yard.look()["march"].state == "settling"
    assert yard.taken() == {}
    yard.now += SETTLE
    assert yard.look()["march"].state == "taken"
    assert yard.taken() == {"march": content(yard.drop / "march")}


def test_a_batch_that_grows_while_it_is_copied_is_not_taken_and_leaves_nothing(yard):
    yard.put("march", SCANS)
    late = {f"{P}/{P}_2.tif": b"late"}
    yard.look()
    yard.now += SETTLE
    entry = yard.look(Changing(yard.drop, lambda: yard.put("march", late)))["march"]
    assert entry.state == "settling"
    assert "changed while it was copied" in entry.note
    assert yard.taken() == {}
    assert yard.half_copies() == {}
    yard.look_when_settled()
    assert yard.taken() == {"march": SCANS | late}


def test_a_batch_that_is_taken_away_while_it_is_copied_is_not_taken(yard):
    yard.put("march", SCANS)
    yard.look()
    yard.now += SETTLE
    yard.look(Changing(yard.drop, lambda: shutil.rmtree(yard.drop / "march")))
    assert yard.taken() == {}
    assert yard.look() == {}


def test_the_marker_takes_a_batch_at_once(yard):
    yard.put("march", SCANS | {"COMPLETE": b""})
    assert yard.look()["march"].state == "taken"
    assert yard.taken() == {"march": SCANS}


def test_a_batch_that_settles_does_not_hold_up_another(yard):
    yard.put("march", SCANS)
    yard.put("april", {f"{P}/{P}_7.tif": b"seventh slice", "COMPLETE": b""})
    found = yard.look()
    assert (found["march"].state, found["april"].state) == ("settling", "taken")


def test_files_beside_the_batches_and_hidden_folders_are_no_batches(yard):
    yard.put(".trash", SCANS)
    (yard.drop / "readme.txt").write_text("drop here")
    assert yard.look_when_settled() == {}


def test_an_empty_inbox_has_no_entries(yard):
    assert yard.look() == {}
    assert yard.open().data_digest("phantom") is None


# Known, and again


def test_the_same_content_under_another_name_is_known_and_not_copied(yard):
    yard.put("march", SCANS)
    yard.look_when_settled()
    yard.put("again", SCANS)
    entry = yard.look_when_settled()["again"]
    assert entry.state == "known"
    assert "march" in entry.note
    assert yard.taken() == {"march": SCANS}
    assert yard.half_copies() == {}


def test_two_equal_batches_of_one_look_are_taken_once(yard):
    yard.put("a", SCANS)
    yard.put("b", SCANS)
    found = yard.look_when_settled()
    assert (found["a"].state, found["b"].state) == ("taken", "known")
    assert yard.taken() == {"a": SCANS}


def test_a_changed_batch_of_the_same_name_is_taken_under_a_second(yard):
    yard.put("march", SCANS)
    yard.look_when_settled()
    yard.put("march", CHANGED)
    yard.look()
    assert list(yard.taken()) == ["march"]
    entry = yard.look_when_settled()["march"]
    assert (entry.state, entry.note) == ("taken", "2 patients, 4 files, as march-2")
    assert yard.taken() == {"march": SCANS, "march-2": CHANGED}


def test_a_batch_that_was_taken_is_not_read_again(yard, monkeypatch):
    yard.put("march", SCANS)
    first = yard.look_when_settled()
    disk = Disk(monkeypatch, broken=f"{P}_1.tif")
    yard.now += SETTLE
    assert yard.look() == first
    assert disk.read == []


def test_what_is_known_survives_a_new_inbox_object(yard):
    yard.put("march", SCANS)
    found = yard.look_when_settled()
    assert by_name(yard.open().entries()) == found


def test_a_batch_removed_from_the_inbox_is_still_told_of(yard):
    yard.put("march", SCANS)
    yard.look_when_settled()
    shutil.rmtree(yard.drop / "march")
    assert yard.look() == {}
    assert by_name(yard.open().entries())["march"].state == "taken"
    assert yard.taken() == {"march": SCANS}


@pytest.mark.parametrize("left", [None, "", '{"looks": {"mar'], ids=["gone", "empty", "cut off"])
def test_a_lost_memory_takes_nothing_twice(yard, left):
    yard.put("march", SCANS)
    yard.look_when_settled()
    if left is None:
        shutil.rmtree(yard.state)
    else:
        (yard.state / "state.json").write_text(left)
    assert yard.look_when_settled()["march"].state == "known"
    assert yard.taken() == {"march": SCANS}


def test_the_digest_of_the_data_changes_with_a_new_batch_and_with_nothing_else(yard):
    yard.put("march", SCANS)
    assert yard.open().data_digest("phantom") is None
    yard.look_when_settled()
    first = yard.open().data_digest("phantom")
    assert first == rules.data_digest("phantom", [DIGEST])
    yard.put("again", SCANS)
    yard.look_when_settled()
    assert yard.open().data_digest("phantom") == first
    yard.put("march", CHANGED)
    yard.look_when_settled()
    assert yard.open().data_digest("phantom") != first


def test_a_batch_put_into_incoming_by_hand_is_let_be(yard):
    (yard.incoming / "march").mkdir()
    (yard.incoming / "march" / "mine").write_bytes(b"by hand")
    yard.put("march", SCANS)
    assert yard.look_when_settled()["march"].note.endswith("as march-2")
    assert yard.taken() == {"march": {"mine": b"by hand"}, "march-2": SCANS}


# Refused


def test_a_batch_without_scans_is_refused_and_goes_through_when_mended(yard):
    yard.put("march", {"letter.txt": b"the scans follow"})
    entry = yard.look_when_settled()["march"]
    assert entry.state == "refused"
    assert is_sentence(entry.note)
    assert "holds no scans" in entry.note
    assert yard.taken() == {}
    yard.put("march", SCANS)
    assert yard.look()["march"].state == "settling"
    assert yard.look_when_settled()["march"].state == "taken"
    assert yard.taken() == {"march": SCANS}


def test_an_empty_batch_is_refused(yard):
    (yard.drop / "march").mkdir()
    entry = yard.look_when_settled()["march"]
    assert entry.state == "refused"
    assert "holds no scans" in entry.note


def test_a_refused_batch_does_not_hold_up_another(yard):
    yard.put("bad", {"letter.txt": b"the scans follow"})
    yard.put("good", SCANS)
    found = yard.look_when_settled()
    assert (found["bad"].state, found["good"].state) == ("refused", "taken")


def test_a_refused_batch_is_tried_again_at_every_look(yard):
    yard.put("march", {"letter.txt": b"the scans follow"})
    first = yard.look_when_settled()["march"]
    yard.now += 7
    second = yard.look()["march"]
    assert second.state == "refused"
    waited = datetime.fromisoformat(second.when) - datetime.fromisoformat(first.when)
    assert waited.total_seconds() == 7


def test_a_slice_twice_with_different_content_is_refused_with_both_places(yard):
    yard.put("march", SCANS | {f"copy/{P}/{P}_1.tif": b"not the same"})
    entry = yard.look_when_settled()["march"]
    assert entry.state == "refused"
    assert is_sentence(entry.note)
    assert f"{P}/{P}_1.tif and " in entry.note
    assert yard.taken() == {}


@pytest.mark.parametrize(
    "name", ["source", "march scans", "-rf", "x" * 101, "März", "line\nend", "march.dvc"]
)
def test_a_batch_with_a_name_that_cannot_be_is_refused(yard, name):
    yard.put(name, SCANS)
    entry = yard.look_when_settled()[name]
    assert entry.state == "refused"
    assert is_sentence(entry.note)
    assert yard.taken() == {}


@pytest.mark.parametrize("name", ["..", "../march", "/", "/tmp", "a/../../march", ".", ""])
def test_a_batch_whose_name_climbs_out_is_refused_and_writes_nothing(yard, name):
    yard.put("march", SCANS)
    before = content(yard.root)
    entry = yard.look_when_settled(Named(yard.drop, name))[name]
    assert entry.state == "refused"
    assert is_sentence(entry.note)
    after = content(yard.root)
    assert {path for path in after if path not in before} <= {
        ".local/inbox/look.lock",
        ".local/inbox/state.json",
    }


def test_a_missing_inbox_folder_is_one_sentence_that_says_what_to_do(yard):
    yard.drop.rmdir()
    with pytest.raises(GliaflowError) as refused:
        yard.look()
    assert is_sentence(str(refused.value))
    assert str(yard.drop) in str(refused.value)
    assert "watch.source" in str(refused.value)


def test_an_inbox_that_is_a_file_is_one_sentence(yard):
    yard.drop.rmdir()
    yard.drop.write_text("no folder")
    with pytest.raises(GliaflowError) as refused:
        yard.look()
    assert str(yard.drop) in str(refused.value)


def test_what_was_known_is_kept_when_the_inbox_is_out_of_reach(yard):
    yard.put("march", SCANS)
    found = yard.look_when_settled()
    yard.drop.rename(yard.root / "elsewhere")
    with pytest.raises(GliaflowError):
        yard.look()
    assert by_name(yard.open().entries()) == found
    (yard.root / "elsewhere").rename(yard.drop)
    assert yard.look() == found


def test_without_room_on_the_disk_a_batch_is_refused_and_left_where_it_is(yard, monkeypatch):
    dropped = yard.put("march", SCANS)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**30 + 53))
        entry = yard.look_when_settled()["march"]  # the scans have 54 bytes
    assert entry.state == "refused"
    assert is_sentence(entry.note)
    assert "make room" in entry.note
    assert yard.taken() == {}
    assert content(dropped) == SCANS
    assert yard.look()["march"].state == "taken"


def test_a_batch_that_just_fits_is_taken(yard, monkeypatch):
    yard.put("march", SCANS)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**30 + 54))
    assert yard.look_when_settled()["march"].state == "taken"


# Cut off


def test_a_copy_that_failed_in_the_middle_is_refused_and_goes_on_where_it_was(yard, monkeypatch):
    yard.put("march", SCANS)
    disk = Disk(monkeypatch, broken=f"{Q}_1.tif")
    entry = yard.look_when_settled()["march"]
    assert (entry.state, yard.taken()) == ("refused", {})
    assert is_sentence(entry.note)
    assert "Input/output error" in entry.note
    assert disk.read == [f"{P}_1.tif", f"{P}_1_mask.tif", f"{Q}_1.tif"]
    disk.read, disk.broken = [], None
    assert yard.look()["march"].state == "taken"
    assert sorted(set(disk.read) & {Path(name).name for name in SCANS}) == [
        f"{Q}_1.tif",
        f"{Q}_1_mask.tif",
    ]
    assert yard.taken() == {"march": SCANS}


def test_a_half_copy_of_a_batch_that_changed_since_is_not_mixed_in_nor_kept(yard, monkeypatch):
    yard.put("march", SCANS)
    disk = Disk(monkeypatch, broken=f"{Q}_1.tif")
    assert yard.look_when_settled()["march"].state == "refused"
    disk.broken = None
    yard.put("march", {f"{P}/{P}_1.tif": b"FIRST SLICE"})  # as long as before
    os.utime(yard.drop / "march" / P / f"{P}_1.tif", ns=(1, 1))
    assert yard.look_when_settled()["march"].state == "taken"
    assert yard.taken() == {"march": SCANS | {f"{P}/{P}_1.tif": b"FIRST SLICE"}}
    assert yard.half_copies() == {}


DIES = """
import os, signal, sys
from pathlib import Path
from pipeline.adapters.inbox import Folder, Inbox
root, name = Path(sys.argv[1]), sys.argv[2]
write = Path.write_bytes
def dies(path, body):
    if name in path.name:
        write(path, body[:3])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, body)
Path.write_bytes = dies
Inbox(
    Folder(root / "inbox"), incoming=root / "data" / "incoming", state=root / ".local" / "inbox",
    lock=root / ".local" / "lock", endpoint_url=None, max_gib=1, settle_seconds=60,
    clock=lambda: 1060.0,
).look()
"""


def test_a_look_killed_in_the_middle_of_a_file_is_made_up_for_by_the_next(yard):
    yard.put("march", SCANS)
    yard.look()
    died = subprocess.run([sys.executable, "-c", DIES, yard.root, f"{Q}_1.tif"], cwd=REPOSITORY)
    assert died.returncode == -signal.SIGKILL
    assert yard.taken() == {}
    yard.now += SETTLE
    assert yard.look()["march"].state == "taken"
    assert yard.taken() == {"march": SCANS}
    assert batches.read_note(yard.incoming / "march").digest == DIGEST


# Two at once


def whole_and_once(yard: Yard, found: list[dict[str, Entry]]) -> None:
    states = sorted(entries["march"].state for entries in found)
    assert yard.taken() == {"march": SCANS}
    assert states in (["known", "taken"], ["taken", "taken"])
    assert batches.read_note(yard.incoming / "march").digest == DIGEST


def test_a_batch_waits_while_incoming_is_being_read(yard):
    yard.put("march", SCANS | {"COMPLETE": b""})
    with ThreadPoolExecutor(1) as pool:
        with locks.alone(yard.lock):
            copied = threading.Event()
            looking = pool.submit(yard.look, Changing(yard.drop, copied.set))
            assert copied.wait(60)
            assert yard.taken() == {}
        assert looking.result()["march"].state == "taken"
    assert yard.taken() == {"march": SCANS}


def test_two_inboxes_that_come_to_the_lock_together_take_a_batch_once(yard, monkeypatch):
    yard.put("march", SCANS | {"COMPLETE": b""})
    both, really = threading.Barrier(2), locks.alone

    def together(path: Path, *, what: str = "") -> object:
        with suppress(threading.BrokenBarrierError):  # the other may wait somewhere else
            both.wait(1)
        return really(path, what=what)

    monkeypatch.setattr(inbox.locks, "alone", together)
    with ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(yard.look) for _ in range(2)]
    whole_and_once(yard, [look.result() for look in looks])


def test_an_inbox_that_falls_behind_another_does_not_take_what_that_one_took(yard):
    yard.put("march", SCANS | {"COMPLETE": b""})
    copied, overtaken = threading.Event(), threading.Event()

    def fall_behind() -> None:
        copied.set()
        overtaken.wait(1)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(yard.look, Changing(yard.drop, fall_behind))
        assert copied.wait(60)
        fast = yard.look()
        overtaken.set()
    whole_and_once(yard, [fast, slow.result()])


# From a bucket


@dataclass(frozen=True)
class Wharf:
    """A yard whose batches lie in a bucket of their own, below `drop`."""

    yard: Yard
    url: str
    client: object
    bucket: str

    def put(self, batch: str, entries: dict[str, bytes]) -> None:
        for name, body in entries.items():
            self.client.put_object(Bucket=self.bucket, Key=f"drop/{batch}/{name}", Body=body)

    def open(self, *, url: str | None = None, source: str | None = None) -> Inbox:
        source, url = source or f"s3://{self.bucket}/drop", url or self.url
        place = inbox.open_place(source, url, self.yard.root)
        return self.yard.open(place, endpoint_url=url)

    def look(self, **changes: str) -> dict[str, Entry]:
        return by_name(self.open(**changes).look())

    def refusal(self, **changes: str) -> str:
        with pytest.raises(GliaflowError) as refused:
            self.look(**changes)
        assert is_sentence(str(refused.value))
        return str(refused.value)


@pytest.fixture
def wharf(yard, s3_login) -> Wharf:
    bucket = "inbox-" + hashlib.sha256(str(yard.root).encode()).hexdigest()[:12]
    s3_login.fill(bucket, {"elsewhere/march/P/P_1.tif": b"not in the inbox"})
    return Wharf(yard, s3_login.url, s3_login.client(), bucket)


@pytest.mark.parametrize("end", ["", "/"])
def test_a_batch_in_a_bucket_settles_and_is_then_taken_whole(wharf, end):
    source = f"s3://{wharf.bucket}/drop{end}"
    wharf.put("march", SCANS)
    assert wharf.look(source=source)["march"].state == "settling"
    wharf.yard.now += SETTLE
    entry = wharf.look(source=source)["march"]
    assert (entry.state, entry.note) == ("taken", "2 patients, 4 files, as march")
    assert wharf.yard.taken() == {"march": SCANS}
    assert batches.read_note(wharf.yard.incoming / "march").digest == DIGEST


def test_a_batch_in_a_bucket_that_changes_between_looks_is_not_taken(wharf):
    wharf.put("march", SCANS)
    wharf.look()
    wharf.yard.now += SETTLE
    wharf.put("march", CHANGED)  # as long as before: only its ETag differs
    assert wharf.look()["march"].state == "settling"
    assert wharf.yard.taken() == {}


def test_the_marker_takes_a_batch_in_a_bucket_at_once(wharf):
    wharf.put("march", SCANS)
    wharf.put("march", {"COMPLETE": b""})
    assert wharf.look()["march"].state == "taken"


def test_a_batch_in_a_bucket_is_known_where_a_folder_brought_it(wharf):
    wharf.yard.put("march", SCANS)
    wharf.yard.look_when_settled()
    wharf.put("april", SCANS | {"COMPLETE": b""})
    assert wharf.look()["april"].state == "known"
    assert wharf.yard.taken() == {"march": SCANS}


def test_a_bucket_with_nothing_dropped_has_no_entries(wharf):
    assert wharf.look() == {}


def test_objects_beside_the_batches_are_no_batches(wharf):
    wharf.client.put_object(Bucket=wharf.bucket, Key="drop/readme.txt", Body=b"drop here")
    assert wharf.look() == {}


@pytest.mark.parametrize("key", ["drop/", "drop/april/"])
def test_a_key_that_stands_for_a_folder_is_no_batch(wharf, key):
    wharf.client.put_object(Bucket=wharf.bucket, Key=key, Body=b"")
    assert wharf.look() == {}


def test_a_wrong_secret_is_one_sentence_about_credentials(wharf, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    sentence = wharf.refusal()
    assert "SignatureDoesNotMatch" in sentence
    assert "credentials" in sentence


def test_a_bucket_that_is_not_there_is_one_sentence_about_its_name(wharf):
    sentence = wharf.refusal(source="s3://nobody-made-this/drop")
    assert "s3://nobody-made-this/drop" in sentence
    assert "NoSuchBucket" in sentence


def test_a_source_that_names_no_bucket_is_one_sentence(wharf):
    assert "names no bucket" in wharf.refusal(source="s3://")


def test_a_dead_server_is_one_sentence_with_its_address(wharf, closed_port, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    url = f"http://127.0.0.1:{closed_port}"
    assert f"no answer at {url}" in wharf.refusal(url=url)


def test_a_server_that_goes_away_in_the_middle_leaves_the_batch_for_the_next_look(
    wharf, ferry, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    wharf.put("march", SCANS | {"COMPLETE": b""})
    ferry.sinks = f"{Q}_1.tif"
    entry = wharf.look(url=ferry.url)["march"]
    assert entry.state == "refused"
    assert is_sentence(entry.note)
    assert wharf.yard.taken() == {}
    ferry.sinks, ferry.brought = None, []
    assert wharf.look(url=ferry.url)["march"].state == "taken"
    assert wharf.yard.taken() == {"march": SCANS}
    assert ferry.brought == [f"{Q}_1.tif"]


class Ferry:
    """A way to the S3 server that breaks off in the middle of an object while `sinks` names it."""

    def __init__(self) -> None:
        self.url = ""
        self.sinks: str | None = None
        self.brought: list[str] = []


@pytest.fixture
def ferry(s3) -> Iterator[Ferry]:
    ferry, host = Ferry(), s3.url.removeprefix("http://")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server = http.client.HTTPConnection(host)
            server.request("GET", self.path, headers=dict(self.headers))
            answer = server.getresponse()
            body = answer.read()
            server.close()
            name = self.path.partition("?")[0].rpartition("/")[2]
            if name.endswith(".tif"):
                ferry.brought.append(name)
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:3] if name == ferry.sinks else body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ferry.url = f"http://127.0.0.1:{server.server_port}"
        yield ferry
        server.shutdown()
