"""Inputs of a stage against what DVC recorded, and the room that a stage needs."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.adapters.checkout import dvc_lock
from pipeline.errors import GliaflowError

STAGES: dict[str, Any] = {
    "ingest": {"cmd": "ingest", "outs": ["scans", "manifest.csv"]},
    "validate": {"cmd": "validate", "deps": ["scans", "manifest.csv"], "outs": ["model.keras"]},
}
TABLE = "patient,slice\nA,1\nA,2\nB,1\n"


@pytest.fixture
def root(tmp_path) -> Path:
    """A checkout in which the stage `ingest` has run."""
    (tmp_path / "manifest.csv").write_text(TABLE)
    (tmp_path / "scans" / "A").mkdir(parents=True)
    (tmp_path / "scans" / "A" / "images.npy").write_bytes(b"1234")
    (tmp_path / "scans" / "masks.npy").write_bytes(b"12")
    md5 = hashlib.md5(TABLE.encode(), usedforsecurity=False).hexdigest()
    outs = [
        {"path": "scans", "md5": "0.dir", "size": 6, "nfiles": 2},
        {"path": "manifest.csv", "md5": md5, "size": len(TABLE)},
    ]
    write_lock(tmp_path, {"ingest": {"outs": outs}})
    return tmp_path


def write_lock(root: Path, stages: dict[str, Any]) -> None:
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def verify(root: Path) -> None:
    paths = [root / "scans", root / "manifest.csv", root / "elsewhere.csv"]
    dvc_lock.verify_inputs(root, STAGES, "validate", paths)


def test_inputs_as_they_were_written_pass(root):
    verify(root)


def test_a_table_cut_at_a_line_end_is_refused(root):
    (root / "manifest.csv").write_text("patient,slice\nA,1\nA,2\n")
    with pytest.raises(GliaflowError) as refused:
        verify(root)
    message = str(refused.value)
    assert message.startswith("manifest.csv is not what the stage ingest wrote (22 bytes, MD5 ")
    assert "; recorded: 26, MD5 " in message
    assert message.endswith(
        "; nothing was built on it: run `dvc repro validate`, which makes it again"
    )


def test_a_table_with_another_value_of_the_same_length_is_refused(root):
    (root / "manifest.csv").write_text(TABLE.replace("B,1", "B,7"))
    with pytest.raises(GliaflowError, match=r"\(26 bytes, MD5 \w{32}; recorded: 26, MD5 \w{32}\)"):
        verify(root)


def test_a_folder_that_lost_a_file_is_refused(root):
    (root / "scans" / "masks.npy").unlink()
    with pytest.raises(GliaflowError, match=r"1 files of 4 bytes; recorded: 2 of 6"):
        verify(root)


def test_a_record_without_a_digest_is_no_proof(root):
    write_lock(root, {"ingest": {"outs": [{"path": "manifest.csv", "size": len(TABLE)}]}})
    with pytest.raises(GliaflowError, match=r"MD5 None"):
        verify(root)


def test_a_missing_input_is_refused(root):
    (root / "manifest.csv").unlink()
    with pytest.raises(GliaflowError, match=r"manifest\.csv is not .* \(it is missing\)"):
        verify(root)


def test_other_files_and_inputs_that_nothing_recorded_are_not_compared(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "manifest.csv"
    elsewhere.write_text("patient\n")
    dvc_lock.verify_inputs(root, STAGES, "validate", [elsewhere])
    (root / "dvc.lock").unlink()
    (root / "manifest.csv").write_text("patient\n")
    verify(root)


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< HEAD\n",
        "stages: 3\n",
        "[]\n",
        "stages: {a: 1}\n",
        "stages: {a: {outs: 7}}\n",
        "stages: {a: {outs: [manifest.csv]}}\n",
        "stages: {a: {outs: [{md5: 0}]}}\n",
        "stages: {a: {outs: [{path: [1]}]}}\n",
        "[" * 10**4,
    ],
    ids=lambda text: text[:40],
)
def test_a_broken_lock_file_is_told(root, text):
    (root / "dvc.lock").write_text(text)
    with pytest.raises(GliaflowError, match=r"dvc\.lock is not a lock file of DVC"):
        verify(root)


def test_room_is_what_the_last_run_wrote_and_checkpoints_of_its_model(root):
    assert dvc_lock.bytes_needed(root, "validate") == dvc_lock.MIN_FREE
    assert dvc_lock.bytes_needed(root, "ingest") == dvc_lock.MIN_FREE + 6 + len(TABLE)
    write_lock(root, {"validate": {"outs": [{"path": "model.keras", "size": 1000}]}})
    expected = dvc_lock.MIN_FREE + 1000 * (1 + dvc_lock.CHECKPOINTS_PER_MODEL)
    assert dvc_lock.bytes_needed(root, "validate") == expected


def test_a_missing_file_and_a_folder_with_fewer_files_are_incomplete(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "one").touch()
    assert dvc_lock.is_incomplete(tmp_path / "missing", {})
    assert dvc_lock.is_incomplete(folder, {"nfiles": 2})
    assert not dvc_lock.is_incomplete(folder, {"nfiles": 1})
    assert not dvc_lock.is_incomplete(folder / "one", {"md5": "other"})
