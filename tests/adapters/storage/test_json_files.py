import pytest

from pipeline.adapters.storage import json_files
from pipeline.errors import GliaflowError

NAN, INFINITY = float("nan"), float("inf")


def test_json_round_trips(tmp_path):
    value = {"mean": 0.1, "names": ["ä", None], "nested": {"patients": 3}}
    json_files.write_json(tmp_path / "file.json", value)
    assert json_files.read_json(tmp_path / "file.json") == value


def test_written_json_is_indented_utf8_and_ends_with_a_newline(tmp_path):
    json_files.write_json(tmp_path / "file.json", {"name": "ä"})
    assert (tmp_path / "file.json").read_bytes() == '{\n  "name": "ä"\n}\n'.encode()


def test_as_json_is_one_line_without_escapes():
    assert json_files.as_json({"name": "ä", "mean": 0.5}) == '{"name": "ä", "mean": 0.5}'


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_nan_and_infinity_are_rejected_and_the_old_file_stays(tmp_path, value):
    json_files.write_json(tmp_path / "file.json", {"mean": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        json_files.write_json(tmp_path / "file.json", {"mean": value})
    with pytest.raises(ValueError, match="JSON"):
        json_files.as_json({"mean": value})
    assert json_files.read_json(tmp_path / "file.json") == {"mean": 0.5}


def test_a_missing_file_is_an_error_that_says_what_builds_it(tmp_path):
    with pytest.raises(GliaflowError, match=r"nowhere does not exist; run `dvc repro`"):
        json_files.read_json(tmp_path / "nowhere")


@pytest.mark.parametrize("body", [b"", b'{"mean": ', b"\xff\xfe"])
def test_invalid_json_is_an_error_that_names_the_file(tmp_path, body):
    (tmp_path / "metrics.json").write_bytes(body)
    with pytest.raises(GliaflowError, match=r"metrics.json is not valid JSON"):
        json_files.read_json(tmp_path / "metrics.json")
