import hashlib
import http.client
import http.server
import json
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
from making import REPOSITORY, another_user, content

from pipeline.adapters.process import locks
from pipeline.adapters.scans import batches, folders, inbox, inbox_places, regular_files
from pipeline.adapters.scans.inbox import Entry, Inbox
from pipeline.adapters.scans.inbox_places import Folder, Place
from pipeline.adapters.scans.limits import Limits
from pipeline.domain import arrival
from pipeline.domain.arrival import ListedFile
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
DIGEST = arrival.batch_digest({name: hashlib.sha256(SCANS[name]).hexdigest() for name in SCANS})


@dataclass
class LocalInbox:
    """An inbox folder, the folders that belong to it, and a clock that a test sets."""

    root: Path
    now: float = 1000.0
    limits: Limits = field(default_factory=lambda: Limits(max_gib=1))
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
            endpoint_url=endpoint_url, limits=self.limits, settle_seconds=SETTLE,
            clock=lambda: self.now,
        )  # fmt: skip

    def look(self, place: Place | None = None) -> dict[str, Entry]:
        """Look once, with a new `Inbox` that knows only what is on disk."""
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

    def imported(self) -> dict[str, dict[str, bytes]]:
        """Return the files in `incoming` by batch, without the notes."""
        return {
            folder.name: {
                name: body for name, body in content(folder).items() if name != batches.NOTE
            }
            for folder in sorted(self.incoming.iterdir())
        }

    def partial_copies(self) -> dict[str, bytes]:
        return content(self.state / "aside")


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.batch: entry for entry in entries}


@pytest.fixture
def local(tmp_path) -> LocalInbox:
    return LocalInbox(tmp_path)


def is_one_line(text: str) -> bool:
    return bool(text) and "\n" not in text and "Traceback" not in text


class Disk:
    """The real disk, but the file named `broken` cannot be read. read: names of files read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: str):
        self.broken: str | None = broken
        self.read: list[str] = []
        original = regular_files.read

        def read_bytes(path: Path) -> bytes:
            self.read.append(path.name)
            if path.name == self.broken:
                raise OSError(5, "Input/output error")
            return original(path)

        monkeypatch.setattr(regular_files, "read", read_bytes)


class Changing(Folder):
    """A folder that calls `change` right before it is listed for the second time."""

    def __init__(self, root: Path, change: Callable[[], object]):
        super().__init__(root)
        self._change = change
        self._looks = 0

    def listings(self) -> dict[str, list[ListedFile]]:
        self._looks += 1
        if self._looks == 2:
            self._change()
        return super().listings()


class Named(Folder):
    """A folder whose single batch has another name, such as only the keys of a bucket allow."""

    def __init__(self, root: Path, name: str):
        super().__init__(root)
        self._name = name

    def listings(self) -> dict[str, list[ListedFile]]:
        (listing,) = super().listings().values()
        return {self._name: listing}


# Arrival


def test_a_batch_of_links_to_patients_is_imported_as_their_files(local, tmp_path):
    store = tmp_path / "store"
    for name, body in SCANS.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(body)
    (local.drop / "spring").mkdir()
    for patient in (P, Q):
        (local.drop / "spring" / patient).symlink_to(store / patient)
    assert local.look_when_settled()["spring"].state == "taken"
    assert local.imported() == {"spring": SCANS}


def test_a_batch_settles_and_is_then_imported_as_a_whole(local):
    local.put("march", SCANS)
    assert local.look()["march"].state == "settling"
    assert local.imported() == {}
    local.now += SETTLE
    entry = local.look()["march"]
    assert (entry.state, entry.note) == ("taken", "2 patients, 4 files, as march")
    assert local.imported() == {"march": SCANS}
    assert local.partial_copies() == {}


def test_an_imported_batch_stays_in_the_inbox_unchanged(local):
    dropped = local.put("march", SCANS)
    local.look_when_settled()
    assert content(dropped) == SCANS


def test_an_imported_batch_has_a_note_with_time_and_digest(local):
    local.put("march", SCANS)
    local.look_when_settled()
    note = batches.read_note(local.incoming / "march")
    assert datetime.fromisoformat(note.arrived) == datetime.fromtimestamp(1060, UTC)
    assert note.digest == DIGEST


def test_a_batch_is_imported_no_second_before_it_has_settled(local):
    local.put("march", SCANS)
    local.look()
    local.now += SETTLE - 1
    assert local.look()["march"].state == "settling"
    local.now += 1
    assert local.look()["march"].state == "taken"


@pytest.mark.parametrize("name", [f"{P}/{P}_2.tif", f"{Q}/{Q}_1.tif"], ids=["new", "longer"])
def test_a_batch_that_grows_between_looks_is_not_imported(local, name):
    local.put("march", SCANS)
    local.look()
    local.now += SETTLE
    local.put("march", {name: b"a slice that came later, or was not whole before"})
    assert local.look()["march"].state == "settling"
    assert local.imported() == {}
    local.now += SETTLE
    assert local.look()["march"].state == "taken"
    assert local.imported() == {"march": content(local.drop / "march")}


def test_a_batch_that_grows_while_it_is_copied_is_not_imported_and_leaves_no_copy(local):
    local.put("march", SCANS)
    late = {f"{P}/{P}_2.tif": b"late"}
    local.look()
    local.now += SETTLE
    entry = local.look(Changing(local.drop, lambda: local.put("march", late)))["march"]
    assert entry.state == "settling"
    assert "changed while it was copied" in entry.note
    assert local.imported() == {}
    assert local.partial_copies() == {}
    local.look_when_settled()
    assert local.imported() == {"march": SCANS | late}


def test_a_batch_that_is_removed_while_it_is_copied_is_not_imported(local):
    local.put("march", SCANS)
    local.look()
    local.now += SETTLE
    local.look(Changing(local.drop, lambda: shutil.rmtree(local.drop / "march")))
    assert local.imported() == {}
    assert local.look() == {}


def test_a_batch_with_the_marker_is_imported_at_once(local):
    local.put("march", SCANS | {"COMPLETE": b""})
    assert local.look()["march"].state == "taken"
    assert local.imported() == {"march": SCANS}


def test_a_batch_that_is_settling_does_not_delay_another(local):
    local.put("march", SCANS)
    local.put("april", {f"{P}/{P}_7.tif": b"seventh slice", "COMPLETE": b""})
    entries = local.look()
    assert (entries["march"].state, entries["april"].state) == ("settling", "taken")


def test_files_beside_the_batches_and_hidden_folders_are_no_batches(local):
    local.put(".trash", SCANS)
    (local.drop / "readme.txt").write_text("drop here")
    assert local.look_when_settled() == {}


def test_an_empty_inbox_has_no_entries(local):
    assert local.look() == {}
    assert local.open().data_digest("phantom") is None


# Known batches


def test_the_same_content_under_another_name_is_known_and_not_imported_again(local):
    local.put("march", SCANS)
    local.look_when_settled()
    local.put("again", SCANS)
    entry = local.look_when_settled()["again"]
    assert entry.state == "known"
    assert "march" in entry.note
    assert local.imported() == {"march": SCANS}
    assert local.partial_copies() == {}


def test_of_two_equal_batches_in_the_same_look_one_is_imported(local):
    local.put("a", SCANS)
    local.put("b", SCANS)
    entries = local.look_when_settled()
    assert (entries["a"].state, entries["b"].state) == ("taken", "known")
    assert local.imported() == {"a": SCANS}


def test_a_changed_batch_is_imported_under_a_second_name(local):
    local.put("march", SCANS)
    local.look_when_settled()
    local.put("march", CHANGED)
    local.look()
    assert list(local.imported()) == ["march"]
    entry = local.look_when_settled()["march"]
    assert (entry.state, entry.note) == ("taken", "2 patients, 4 files, as march-2")
    assert local.imported() == {"march": SCANS, "march-2": CHANGED}


def test_an_imported_batch_is_not_read_again(local, monkeypatch):
    local.put("march", SCANS)
    first = local.look_when_settled()
    disk = Disk(monkeypatch, broken=f"{P}_1.tif")
    local.now += SETTLE
    assert local.look() == first
    assert disk.read == []


def test_entries_are_the_same_for_a_new_inbox_object(local):
    local.put("march", SCANS)
    entries = local.look_when_settled()
    assert by_name(local.open().entries()) == entries


def test_a_batch_that_was_removed_from_the_inbox_keeps_its_entry(local):
    local.put("march", SCANS)
    local.look_when_settled()
    shutil.rmtree(local.drop / "march")
    assert local.look() == {}
    assert by_name(local.open().entries())["march"].state == "taken"
    assert local.imported() == {"march": SCANS}


@pytest.mark.parametrize("text", [None, "", '{"looks": {"mar'], ids=["gone", "empty", "cut off"])
def test_with_its_state_lost_the_inbox_imports_nothing_twice(local, text):
    local.put("march", SCANS)
    local.look_when_settled()
    if text is None:
        shutil.rmtree(local.state)
    else:
        (local.state / "state.json").write_text(text)
    assert local.look_when_settled()["march"].state == "known"
    assert local.imported() == {"march": SCANS}


def test_the_digest_of_the_data_changes_only_with_a_new_batch(local):
    local.put("march", SCANS)
    assert local.open().data_digest("phantom") is None
    local.look_when_settled()
    first = local.open().data_digest("phantom")
    assert first == arrival.data_digest("phantom", [DIGEST])
    local.put("again", SCANS)
    local.look_when_settled()
    assert local.open().data_digest("phantom") == first
    local.put("march", CHANGED)
    local.look_when_settled()
    assert local.open().data_digest("phantom") != first


def test_a_batch_that_was_put_into_incoming_by_hand_is_not_touched(local):
    (local.incoming / "march").mkdir()
    (local.incoming / "march" / "mine").write_bytes(b"by hand")
    local.put("march", SCANS)
    assert local.look_when_settled()["march"].note.endswith("as march-2")
    assert local.imported() == {"march": {"mine": b"by hand"}, "march-2": SCANS}


# Refused batches


def test_a_batch_without_scans_is_refused_and_imported_once_it_is_fixed(local):
    local.put("march", {"letter.txt": b"the scans follow"})
    entry = local.look_when_settled()["march"]
    assert entry.state == "refused"
    assert is_one_line(entry.note)
    assert "holds no scans" in entry.note
    assert local.imported() == {}
    local.put("march", SCANS)
    assert local.look()["march"].state == "settling"
    assert local.look_when_settled()["march"].state == "taken"
    assert local.imported() == {"march": SCANS}


def test_an_empty_batch_is_refused(local):
    (local.drop / "march").mkdir()
    entry = local.look_when_settled()["march"]
    assert entry.state == "refused"
    assert "holds no scans" in entry.note


def test_a_refused_batch_does_not_delay_another(local):
    local.put("bad", {"letter.txt": b"the scans follow"})
    local.put("good", SCANS)
    entries = local.look_when_settled()
    assert (entries["bad"].state, entries["good"].state) == ("refused", "taken")


def test_a_refused_batch_is_tried_again_at_every_look(local):
    local.put("march", {"letter.txt": b"the scans follow"})
    first = local.look_when_settled()["march"]
    local.now += 7
    second = local.look()["march"]
    assert second.state == "refused"
    elapsed = datetime.fromisoformat(second.when) - datetime.fromisoformat(first.when)
    assert elapsed.total_seconds() == 7


def test_two_copies_of_a_slice_that_differ_are_refused_with_both_paths(local):
    local.put("march", SCANS | {f"copy/{P}/{P}_1.tif": b"not the same"})
    entry = local.look_when_settled()["march"]
    assert entry.state == "refused"
    assert is_one_line(entry.note)
    assert f"{P}/{P}_1.tif and " in entry.note
    assert local.imported() == {}


@pytest.mark.parametrize(
    "name", ["source", "march scans", "-rf", "x" * 101, "März", "line\nend", "march.dvc"]
)
def test_a_batch_with_an_invalid_name_is_refused(local, name):
    local.put(name, SCANS)
    entry = local.look_when_settled()[name]
    assert entry.state == "refused"
    assert is_one_line(entry.note)
    assert local.imported() == {}


@pytest.mark.parametrize("name", ["..", "../march", "/", "/tmp", "a/../../march", ".", ""])
def test_a_batch_whose_name_leads_out_of_the_inbox_is_refused_and_writes_nothing(local, name):
    local.put("march", SCANS)
    before = content(local.root)
    entry = local.look_when_settled(Named(local.drop, name))[name]
    assert entry.state == "refused"
    assert is_one_line(entry.note)
    after = content(local.root)
    assert {path for path in after if path not in before} <= {
        ".local/inbox/look.lock",
        ".local/inbox/state.json",
    }


def test_a_missing_inbox_folder_is_an_error_that_says_what_to_do(local):
    local.drop.rmdir()
    with pytest.raises(GliaflowError) as raised:
        local.look()
    assert is_one_line(str(raised.value))
    assert str(local.drop) in str(raised.value)
    assert "watch.source" in str(raised.value)


def test_an_inbox_that_is_a_file_is_an_error(local):
    local.drop.rmdir()
    local.drop.write_text("no folder")
    with pytest.raises(GliaflowError) as raised:
        local.look()
    assert str(local.drop) in str(raised.value)


def test_entries_stay_when_the_inbox_cannot_be_read(local):
    local.put("march", SCANS)
    before = local.look_when_settled()
    local.drop.rename(local.root / "elsewhere")
    with pytest.raises(GliaflowError):
        local.look()
    assert by_name(local.open().entries()) == before
    (local.root / "elsewhere").rename(local.drop)
    assert local.look() == before


def test_without_room_on_the_disk_a_batch_is_refused_and_stays_in_the_inbox(local, monkeypatch):
    dropped = local.put("march", SCANS)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**30 + 53))
        entry = local.look_when_settled()["march"]  # the scans have 54 bytes
    assert entry.state == "refused"
    assert is_one_line(entry.note)
    assert "make room" in entry.note
    assert local.imported() == {}
    assert content(dropped) == SCANS
    assert local.look()["march"].state == "taken"


def test_a_batch_that_just_fits_is_imported(local, monkeypatch):
    local.put("march", SCANS)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**30 + 54))
    assert local.look_when_settled()["march"].state == "taken"


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({"max_file_mib": 1}, f"{P}/{P}_1.tif has 2.0 MiB; allowed: 1 (fetch.max_file_mib in "),
        ({"max_patient_files": 1}, f"the patient {P} has 2 files; allowed: 1 (fetch.max_patient_"),
        ({"max_batch_patients": 1}, "march holds 2 patients; allowed: 1 (fetch.max_batch_patie"),
    ],
)
def test_a_batch_over_a_limit_is_refused_with_number_and_key(local, limits, found):
    local.put("march", SCANS | {f"{P}/{P}_1.tif": bytes(2**21)})
    local.limits = Limits(max_gib=1, **limits)
    entry = local.look_when_settled()["march"]
    assert entry.state == "refused"
    assert is_one_line(entry.note)
    assert found in entry.note
    assert "nothing was copied" in entry.note
    assert local.partial_copies() == {}


def test_a_file_over_the_limit_is_named_rather_than_the_room_that_it_would_take(local, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    local.put("march", SCANS | {f"{P}/{P}_1.tif": bytes(2**21)})
    local.limits = Limits(max_gib=1, max_file_mib=1)
    assert "fetch.max_file_mib" in local.look_when_settled()["march"].note


def test_a_batch_that_may_not_be_read_is_refused_and_does_not_delay_another(shared):
    local = LocalInbox(shared)
    (local.put("bad", SCANS) / P).chmod(0)
    local.put("good", SCANS)
    for folder in (local.root, local.incoming, local.root / "data"):
        folder.chmod(0o777)
    with another_user():
        entries = local.look_when_settled()
    assert entries["good"].state == "taken"
    assert entries["bad"].state == "refused"
    assert f"{local.drop / 'bad' / P} may not be read" in entries["bad"].note


def test_a_batch_whose_folder_is_moved_while_it_is_listed_does_not_delay_another(
    local, monkeypatch
):
    local.put("bad", SCANS)
    local.put("good", SCANS)
    original = folders.walk

    def walk(root: Path) -> Iterator[folders.WalkedPath]:
        if root.name == "bad":
            raise FileNotFoundError(root)
        return original(root)

    monkeypatch.setattr(folders, "walk", walk)
    assert {name: entry.state for name, entry in local.look_when_settled().items()} == {
        "good": "taken"
    }


def test_folders_without_scans_are_named_in_the_note(local):
    (local.put("march", SCANS) / "TCGA_X").mkdir()
    note = local.look_when_settled()["march"].note
    assert note == "2 patients, 4 files, as march; 1 folder or file skipped: TCGA_X (no tif)"


def test_a_batch_with_names_that_are_not_valid_utf8_is_imported_without_them(local):
    batch = local.put("march", SCANS)
    (batch / os.fsdecode(b"TCGA_\xff")).mkdir()
    (batch / P / os.fsdecode(b"\xff.tif")).write_bytes(b"a slice")
    entry = local.look_when_settled()["march"]
    assert entry.state == "taken"
    assert entry.note.isascii()
    assert f"'{P}/\\udcff.tif' (its name is not valid UTF-8)" in entry.note
    assert local.imported() == {"march": SCANS}


def test_a_batch_whose_name_is_not_valid_utf8_is_refused(local):
    local.put("good", SCANS)
    local.put(os.fsdecode(b"m\xffrch"), SCANS)
    entries = local.look_when_settled()
    assert entries["good"].state == "taken"
    (bad,) = (entry for entry in entries.values() if entry.batch != "good")
    assert (bad.batch, bad.state) == ("m\\udcffrch", "refused")
    assert "cannot be the name of a batch" in bad.note
    assert by_name(local.open().entries()) == entries


# Clock and state


def test_a_batch_settles_although_the_clock_is_set_back(local):
    local.put("march", SCANS)
    local.look()
    local.now -= 10_000
    assert local.look()["march"].state == "settling"
    local.now += SETTLE
    assert local.look()["march"].state == "taken"


def arrivals(local: LocalInbox) -> list[str]:
    """Return the batches in the order of arrival."""
    return [folder.name for folder in batches.in_arrival_order(local.incoming)]


def test_a_batch_that_is_imported_later_arrives_later_although_the_clock_is_set_back(local):
    local.now = 1_000_000.0
    local.put("z", SCANS)
    local.look_when_settled()
    local.now = 1000.0
    local.put("a", CHANGED)
    local.look_when_settled()
    assert arrivals(local) == ["z", "a"]
    first, second = (batches.read_note(local.incoming / name).arrived for name in ("z", "a"))
    assert datetime.fromisoformat(first) == datetime.fromtimestamp(1_000_060, UTC)
    assert datetime.fromisoformat(second) == datetime.fromtimestamp(1_000_061, UTC)


def test_batches_of_one_look_arrive_one_after_the_other(local):
    for name, body in (("b", SCANS), ("a", CHANGED), ("c", {f"{P}/{P}_3.tif": b"third"})):
        local.put(name, body)
    local.look_when_settled()
    times = [batches.read_note(local.incoming / name).arrived for name in "abc"]
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    "text",
    [
        "[]", "7", "null", "[" * 100_000, '{"looks": [], "entries": 1}',
        '{"looks": {"march": []}, "entries": {"march": []}}',
        '{"looks": {"march": {"signature": "a", "since": "long ago"}}, "entries": {}}',
        '{"looks": {"march": {"signature": "a", "since": NaN}}, "entries": {}}',
        '{"looks": {"\\ud800": {"signature": "a", "since": 1}}, "entries": {}}',
        '{"looks": {"march": {"signature": 1, "since": 1}}, "entries": {"march": {"batch": 1}}}',
        '{"entries": {"march": {"batch": "march", "state": "lost", "note": "", "when": ""}}}',
        '{"entries": {"march": {"batch": "march", "state": "taken", "note": "", "when": "",'
        ' "signature": "", "colour": "red"}}}',
        '{"entries": {"march": {"batch": "march", "state": "taken", "note": "", "when": 1}}}',
    ],
)  # fmt: skip
def test_state_of_another_shape_counts_as_nothing_remembered(local, text):
    local.state.mkdir(parents=True)
    (local.state / "state.json").write_text(text)
    assert local.open().entries() == []
    local.put("march", SCANS)
    assert local.look_when_settled()["march"].state == "taken"
    assert local.imported() == {"march": SCANS}


@pytest.mark.parametrize("since", ["NaN", "Infinity", "1" + "0" * 400, "-1" + "0" * 400])
def test_a_remembered_time_that_is_none_does_not_keep_a_batch_from_settling(local, since):
    local.put("march", SCANS)
    local.look()
    state = local.state / "state.json"
    state.write_text(state.read_text().replace("1000.0", since))
    assert local.look_when_settled()["march"].state == "taken"


def test_what_is_remembered_of_one_batch_survives_another_that_is_damaged(local):
    local.put("march", SCANS)
    local.look_when_settled()
    path = local.state / "state.json"
    state = json.loads(path.read_text())
    state["entries"]["april"] = ["damaged"]
    path.write_text(json.dumps(state))
    assert [entry.batch for entry in local.open().entries()] == ["march"]


# Interrupted copies


def test_a_copy_with_a_hidden_patient_is_resumed(local, monkeypatch):
    hidden = {f".hidden/{P}_1.tif": b"misnamed"}
    local.put("march", SCANS | hidden)
    disk = Disk(monkeypatch, broken=f"{Q}_1.tif")
    assert local.look_when_settled()["march"].state == "refused"
    disk.broken = None
    assert local.look()["march"].state == "taken"
    assert local.imported() == {"march": SCANS | hidden}


def test_a_copy_that_failed_in_the_middle_is_refused_and_resumed_at_the_next_look(
    local, monkeypatch
):
    local.put("march", SCANS)
    disk = Disk(monkeypatch, broken=f"{Q}_1.tif")
    entry = local.look_when_settled()["march"]
    assert (entry.state, local.imported()) == ("refused", {})
    assert is_one_line(entry.note)
    assert "Input/output error" in entry.note
    assert disk.read == [f"{P}_1.tif", f"{P}_1_mask.tif", f"{Q}_1.tif"]
    disk.read, disk.broken = [], None
    assert local.look()["march"].state == "taken"
    assert sorted(set(disk.read) & {Path(name).name for name in SCANS}) == [
        f"{Q}_1.tif",
        f"{Q}_1_mask.tif",
    ]
    assert local.imported() == {"march": SCANS}


def test_a_partial_copy_of_a_batch_that_changed_since_is_discarded(local, monkeypatch):
    local.put("march", SCANS)
    disk = Disk(monkeypatch, broken=f"{Q}_1.tif")
    assert local.look_when_settled()["march"].state == "refused"
    disk.broken = None
    local.put("march", {f"{P}/{P}_1.tif": b"FIRST SLICE"})  # as long as before
    os.utime(local.drop / "march" / P / f"{P}_1.tif", ns=(1, 1))
    assert local.look_when_settled()["march"].state == "taken"
    assert local.imported() == {"march": SCANS | {f"{P}/{P}_1.tif": b"FIRST SLICE"}}
    assert local.partial_copies() == {}


# Looks into an inbox and is killed after the first three bytes of a file.
KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.adapters.scans.inbox import Inbox
from pipeline.adapters.scans.inbox_places import Folder
from pipeline.adapters.scans.limits import Limits
root, name = Path(sys.argv[1]), sys.argv[2]
original = Path.write_bytes
def write_bytes(path, body):
    if name in path.name:
        original(path, body[:3])
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path, body)
Path.write_bytes = write_bytes
Inbox(
    Folder(root / "inbox"), incoming=root / "data" / "incoming", state=root / ".local" / "inbox",
    lock=root / ".local" / "lock", endpoint_url=None, limits=Limits(max_gib=1), settle_seconds=60,
    clock=lambda: 1060.0,
).look()
"""


def test_after_a_look_is_killed_in_the_middle_of_a_file_the_next_imports_the_batch(local):
    local.put("march", SCANS)
    local.look()
    command = [sys.executable, "-c", KILLED, local.root, f"{Q}_1.tif"]
    assert subprocess.run(command, cwd=REPOSITORY).returncode == -signal.SIGKILL
    assert local.imported() == {}
    local.now += SETTLE
    assert local.look()["march"].state == "taken"
    assert local.imported() == {"march": SCANS}
    assert batches.read_note(local.incoming / "march").digest == DIGEST


# Two looks at the same time


def assert_imported_once(local: LocalInbox, looks: list[dict[str, Entry]]) -> None:
    states = sorted(entries["march"].state for entries in looks)
    assert local.imported() == {"march": SCANS}
    assert states in (["known", "taken"], ["taken", "taken"])
    assert batches.read_note(local.incoming / "march").digest == DIGEST


def test_a_batch_waits_while_incoming_is_being_read(local):
    local.put("march", SCANS | {"COMPLETE": b""})
    with ThreadPoolExecutor(1) as pool:
        with locks.hold(local.lock):
            copied = threading.Event()
            looking = pool.submit(local.look, Changing(local.drop, copied.set))
            assert copied.wait(60)
            assert local.imported() == {}
        assert looking.result()["march"].state == "taken"
    assert local.imported() == {"march": SCANS}


def test_two_inboxes_that_reach_the_lock_together_import_a_batch_once(local, monkeypatch):
    local.put("march", SCANS | {"COMPLETE": b""})
    both, original = threading.Barrier(2), locks.hold

    def hold_together(path: Path, *, what: str = "") -> object:
        with suppress(threading.BrokenBarrierError):  # the other may wait somewhere else
            both.wait(1)
        return original(path, what=what)

    monkeypatch.setattr(inbox.locks, "hold", hold_together)
    with ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(local.look) for _ in range(2)]
    assert_imported_once(local, [look.result() for look in looks])


def test_an_inbox_that_falls_behind_another_does_not_import_the_same_batch_again(local):
    local.put("march", SCANS | {"COMPLETE": b""})
    copied, overtaken = threading.Event(), threading.Event()

    def fall_behind() -> None:
        copied.set()
        overtaken.wait(1)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(local.look, Changing(local.drop, fall_behind))
        assert copied.wait(60)
        fast = local.look()
        overtaken.set()
    assert_imported_once(local, [fast, slow.result()])


# Buckets


@dataclass(frozen=True)
class BucketInbox:
    """An inbox whose batches lie in a bucket of its own, below `drop`."""

    local: LocalInbox
    url: str
    client: object
    bucket: str

    def put(self, batch: str, entries: dict[str, bytes]) -> None:
        for name, body in entries.items():
            self.client.put_object(Bucket=self.bucket, Key=f"drop/{batch}/{name}", Body=body)

    def open(self, *, url: str | None = None, source: str | None = None) -> Inbox:
        source, url = source or f"s3://{self.bucket}/drop", url or self.url
        place = inbox_places.open_place(source, url, self.local.root)
        return self.local.open(place, endpoint_url=url)

    def look(self, **changes: str) -> dict[str, Entry]:
        return by_name(self.open(**changes).look())

    def error(self, **changes: str) -> str:
        with pytest.raises(GliaflowError) as raised:
            self.look(**changes)
        assert is_one_line(str(raised.value))
        return str(raised.value)


@pytest.fixture
def remote(local, s3_login) -> BucketInbox:
    bucket = "inbox-" + hashlib.sha256(str(local.root).encode()).hexdigest()[:12]
    s3_login.fill(bucket, {"elsewhere/march/P/P_1.tif": b"not in the inbox"})
    return BucketInbox(local, s3_login.url, s3_login.client(), bucket)


@pytest.mark.parametrize("end", ["", "/"])
def test_a_batch_in_a_bucket_settles_and_is_then_imported_as_a_whole(remote, end):
    source = f"s3://{remote.bucket}/drop{end}"
    remote.put("march", SCANS)
    assert remote.look(source=source)["march"].state == "settling"
    remote.local.now += SETTLE
    entry = remote.look(source=source)["march"]
    assert (entry.state, entry.note) == ("taken", "2 patients, 4 files, as march")
    assert remote.local.imported() == {"march": SCANS}
    assert batches.read_note(remote.local.incoming / "march").digest == DIGEST


def test_a_batch_in_a_bucket_that_changes_between_looks_is_not_imported(remote):
    remote.put("march", SCANS)
    remote.look()
    remote.local.now += SETTLE
    remote.put("march", CHANGED)  # as long as before: only its ETag differs
    assert remote.look()["march"].state == "settling"
    assert remote.local.imported() == {}


def test_a_batch_in_a_bucket_with_the_marker_is_imported_at_once(remote):
    remote.put("march", SCANS)
    remote.put("march", {"COMPLETE": b""})
    assert remote.look()["march"].state == "taken"


def test_a_batch_in_a_bucket_is_known_if_it_was_imported_from_a_folder(remote):
    remote.local.put("march", SCANS)
    remote.local.look_when_settled()
    remote.put("april", SCANS | {"COMPLETE": b""})
    assert remote.look()["april"].state == "known"
    assert remote.local.imported() == {"march": SCANS}


def test_a_bucket_without_batches_has_no_entries(remote):
    assert remote.look() == {}


def test_objects_beside_the_batches_are_no_batches(remote):
    remote.client.put_object(Bucket=remote.bucket, Key="drop/readme.txt", Body=b"drop here")
    assert remote.look() == {}


@pytest.mark.parametrize("key", ["drop/", "drop/april/"])
def test_a_key_that_stands_for_a_folder_is_no_batch(remote, key):
    remote.client.put_object(Bucket=remote.bucket, Key=key, Body=b"")
    assert remote.look() == {}


def test_a_wrong_secret_is_an_error_about_credentials(remote, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    message = remote.error()
    assert "SignatureDoesNotMatch" in message
    assert "credentials" in message


def test_a_bucket_that_does_not_exist_is_an_error_with_its_name(remote):
    message = remote.error(source="s3://nobody-made-this/drop")
    assert "s3://nobody-made-this/drop" in message
    assert "NoSuchBucket" in message


def test_a_source_without_a_bucket_is_an_error(remote):
    assert "names no bucket" in remote.error(source="s3://")


def test_a_server_that_does_not_answer_is_an_error_with_its_address(
    remote, closed_port, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    url = f"http://127.0.0.1:{closed_port}"
    assert f"no answer at {url}" in remote.error(url=url)


def test_a_copy_from_a_server_that_fails_in_the_middle_is_resumed_at_the_next_look(
    remote, proxy, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    remote.put("march", SCANS | {"COMPLETE": b""})
    proxy.truncated = f"{Q}_1.tif"
    entry = remote.look(url=proxy.url)["march"]
    assert entry.state == "refused"
    assert is_one_line(entry.note)
    assert remote.local.imported() == {}
    proxy.truncated, proxy.read = None, []
    assert remote.look(url=proxy.url)["march"].state == "taken"
    assert remote.local.imported() == {"march": SCANS}
    assert proxy.read == [f"{Q}_1.tif"]


class Proxy:
    """A proxy to the S3 server.

    truncated: name of an object that breaks off after three bytes. read: names of tifs read.
    """

    def __init__(self) -> None:
        self.url = ""
        self.truncated: str | None = None
        self.read: list[str] = []


@pytest.fixture
def proxy(s3) -> Iterator[Proxy]:
    proxy, host = Proxy(), s3.url.removeprefix("http://")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server = http.client.HTTPConnection(host)
            server.request("GET", self.path, headers=dict(self.headers))
            response = server.getresponse()
            body = response.read()
            server.close()
            name = self.path.partition("?")[0].rpartition("/")[2]
            if name.endswith(".tif"):
                proxy.read.append(name)
            self.send_response(response.status)
            for key, value in response.getheaders():
                if key.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:3] if name == proxy.truncated else body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        yield proxy
        server.shutdown()
