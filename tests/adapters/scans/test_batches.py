import os

import pytest

from pipeline.adapters.scans import batches
from pipeline.adapters.scans.batches import BatchNote


def test_a_note_round_trips(tmp_path):
    note = BatchNote("2026-01-01T09:00:00+00:00", "digest")
    batches.write_note(tmp_path / "march", note)
    assert batches.read_note(tmp_path / "march") == note


@pytest.mark.parametrize(
    "body",
    [
        None, "", "[]", '{"arrived": "2026"}', "\0", "[" * 100_000,
        '{"arrived": 1, "digest": "x"}', '{"arrived": "2026", "digest": []}',
    ],
)  # fmt: skip
def test_a_missing_or_invalid_note_is_none(tmp_path, body):
    if body is not None:
        (tmp_path / batches.NOTE).write_text(body)
    assert batches.read_note(tmp_path) is None


def test_a_pipe_in_place_of_a_note_is_none(tmp_path):
    os.mkfifo(tmp_path / batches.NOTE)
    assert batches.read_note(tmp_path) is None


def test_the_source_comes_first_then_batches_by_arrival_then_those_without_note(tmp_path):
    for name, hour in (("a-later", "12"), ("z-earlier", "09")):
        batches.write_note(tmp_path / name, BatchNote(f"2026-01-01T{hour}:00:00", "x"))
    for name in ("b-by-hand", "a-by-hand", "source"):
        (tmp_path / name).mkdir()
    (tmp_path / "a-later.dvc").write_text("no folder")
    assert [path.name for path in batches.in_arrival_order(tmp_path)] == [
        "source", "z-earlier", "a-later", "a-by-hand", "b-by-hand",
    ]  # fmt: skip
