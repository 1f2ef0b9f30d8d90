import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.adapters.scans import read_cache

P = "TCGA_DU_5849"
ROWS = [{"patient": P, "slice": 1, "blank": "", "pre_mean": 0.5, "conflict": None}]


@pytest.fixture
def arrays(tmp_path) -> Path:
    """A folder with one array, as `ingest` writes it."""
    (tmp_path / "scans" / P).mkdir(parents=True)
    np.save(tmp_path / "scans" / P / "images.npy", np.arange(12))
    return tmp_path / "scans" / P


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def stored(cache, arrays) -> Path:
    """The cache, with the patient's entry under the key `key`."""
    read_cache.store(cache, P, "key", ROWS, arrays=arrays)
    return cache


@pytest.fixture
def other(tmp_path) -> Path:
    """Another folder to fetch arrays into."""
    return tmp_path / "other"


def test_an_entry_is_fetched_as_it_was_and_its_arrays_are_hard_links(stored, arrays):
    before = (arrays / "images.npy").stat()
    shutil.rmtree(arrays)
    assert read_cache.fetch(stored, P, "key", arrays=arrays) == ROWS
    after = (arrays / "images.npy").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in arrays.iterdir()] == ["images.npy"]


def test_fetched_arrays_replace_those_that_are_there(stored, other):
    other.mkdir()
    (other / "old.npy").write_bytes(b"old")
    assert read_cache.fetch(stored, P, "key", arrays=other) == ROWS
    assert [path.name for path in other.iterdir()] == ["images.npy"]


def test_a_patient_without_arrays_is_cached_too_and_gets_no_folder(cache, tmp_path):
    read_cache.store(cache, P, "key", ROWS, arrays=None)
    assert read_cache.fetch(cache, P, "key", arrays=tmp_path / "scans" / P) == ROWS
    assert not (tmp_path / "scans").exists()


def test_arrays_are_copied_where_links_are_impossible(cache, arrays, monkeypatch):
    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    before = (arrays / "images.npy").read_bytes()
    read_cache.store(cache, P, "key", [], arrays=arrays)
    shutil.rmtree(arrays)
    assert read_cache.fetch(cache, P, "key", arrays=arrays) == []
    assert (arrays / "images.npy").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", "{}", '{"key": "key"}', '{"key": "key", "arrays": 3}', "\0"],
)
def test_an_entry_whose_record_cannot_be_read_is_none(stored, other, text):
    (stored / P / read_cache.RECORD).write_text(text)
    assert read_cache.fetch(stored, P, "key", arrays=other) is None
    assert not other.exists()


def test_a_patient_without_an_entry_is_none(cache, other):
    assert read_cache.fetch(cache, P, "key", arrays=other) is None
    assert not other.exists()


def test_an_entry_under_another_key_is_none(stored, other):
    assert read_cache.fetch(stored, P, "other", arrays=other) is None
    assert not other.exists()


def test_a_stored_array_that_was_written_to_is_none(stored, other):
    path = stored / P / "images.npy"
    later = path.stat().st_mtime_ns + 1
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(0, later))
    assert read_cache.fetch(stored, P, "key", arrays=other) is None


def test_a_stored_array_that_is_missing_is_none(stored, other):
    (stored / P / "images.npy").unlink()
    assert read_cache.fetch(stored, P, "key", arrays=other) is None


def test_storing_again_replaces_the_entry(stored, other):
    read_cache.store(stored, P, "new", ROWS * 2, arrays=None)
    assert read_cache.fetch(stored, P, "key", arrays=other) is None
    assert read_cache.fetch(stored, P, "new", arrays=other) == ROWS * 2


def test_pruning_removes_other_patients_and_remains_of_killed_runs(cache, arrays):
    read_cache.prune(cache, keep=[P])
    for name in (P, "gone", ".gone.1234"):
        read_cache.store(cache, name, "key", [], arrays=arrays)
    read_cache.prune(cache, keep=[P])
    assert [path.name for path in cache.iterdir()] == [P]


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two batches with one file each."""
    for batch in ("source", "later"):
        (tmp_path / "raw" / batch / P).mkdir(parents=True)
        (tmp_path / "raw" / batch / P / f"{P}_1.tif").write_bytes(batch.encode())
    return tmp_path / "raw"


def key(raw: Path, *names: str, shaping: tuple[object, ...] = ("code", 32)) -> str:
    versions = [[raw / name / P / f"{P}_1.tif"] for name in names]
    return read_cache.cache_key(versions, root=raw, shaping=list(shaping))


def test_a_key_does_not_depend_on_where_the_files_lie(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "elsewhere")
    assert key(raw, "source", "later") == key(tmp_path / "elsewhere", "source", "later")


def test_a_key_changes_with_bytes_names_order_and_code(raw):
    keys = [
        key(raw, "source", "later"),
        key(raw, "later", "source"),
        key(raw, "source"),
        key(raw, "source", "later", shaping=("other code", 32)),
        key(raw, "source", "later", shaping=("code", 64)),
    ]
    (raw / "later").rename(raw / "renamed")
    keys.append(key(raw, "source", "renamed"))
    (raw / "renamed" / P / f"{P}_1.tif").write_bytes(b"other")
    keys.append(key(raw, "source", "renamed"))
    assert len(set(keys)) == len(keys)


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_slice_has_a_key_of_its_own(tmp_path):
    path = tmp_path / "P_A_1_1.tif"
    path.write_bytes(b"a slice")
    of_file = read_cache.cache_key([[path]], root=tmp_path, shaping=[])
    path.unlink()
    os.mkfifo(path)
    assert read_cache.cache_key([[path]], root=tmp_path, shaping=[]) != of_file
