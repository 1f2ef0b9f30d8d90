"""DVC's record of readers and writers after a kill, a reused process number, a full disk."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.adapters.checkout import dvc_holders


@pytest.fixture
def record(tmp_path) -> Path:
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    return path


def wait_for_command_line(pid: int) -> None:
    """Wait until a new process has its own command line: the system sets it a moment later."""
    while not Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.01)


def gone() -> int:
    """Return the number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_entries_of_processes_that_are_gone_or_no_dvc_are_dropped(record, tmp_path):
    dead = gone()
    with subprocess.Popen(["sleep", "60"]) as other:
        wait_for_command_line(other.pid)
        holders = [{"pid": pid, "cmd": "dvc repro"} for pid in (other.pid, dead)]
        content = {"read": {"a": holders, "b": holders[:1]}, "write": {"c": holders[1]}}
        record.write_text(json.dumps(content))
        dropped = dvc_holders.release_stale(tmp_path)
        assert [int(sentence.split()[5].rstrip(",")) for sentence in dropped] == sorted(
            [other.pid, dead]
        )
        other.kill()
    assert json.loads(record.read_text()) == {"read": {}, "write": {}}


def test_the_entry_of_a_running_dvc_stays(record, tmp_path):
    code = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, "dvc", "repro"]) as running:
        wait_for_command_line(running.pid)
        content = {"read": {}, "write": {"c": {"pid": running.pid, "cmd": "dvc repro"}}}
        record.write_text(json.dumps(content))
        assert dvc_holders.release_stale(tmp_path) == []
        running.kill()
    assert json.loads(record.read_text()) == content


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"read": {"a": [{"pi',
        "[]",
        '{"write": {"a": 3}}',
        '{"write": {"a": {"pid": "7"}, "b": {"pid": 7}}}',
        '{"read": {"a": [{"pid": null}]}}',
        "[" * 10**5,
    ],
    ids=lambda text: text[:30],
)
def test_a_record_that_was_cut_off_is_removed(record, tmp_path, text):
    record.write_text(text)
    (removed,) = dvc_holders.release_stale(tmp_path)
    assert removed.startswith(f"removed {record}") and "cut off" in removed
    assert not record.exists()


def test_a_record_that_a_running_dvc_is_writing_stays(record, tmp_path, monkeypatch):
    record.write_text("")
    monkeypatch.setattr(dvc_holders.time, "sleep", lambda _: record.write_text("{}"))
    assert dvc_holders.release_stale(tmp_path) == []
    assert record.read_text() == "{}"


def test_without_a_record_nothing_happens(tmp_path):
    assert dvc_holders.release_stale(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
