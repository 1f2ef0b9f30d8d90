"""params.yaml: which keys and values are accepted, and how an error names the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline import params
from pipeline.errors import GliaflowError

COMMITTED = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def raw() -> dict[str, Any]:
    """The committed parameters, for a test to change."""
    return yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))


def error_of(call: Callable[..., Any], *args: Any) -> str:
    """Return the message of the error that a call raises."""
    with pytest.raises(GliaflowError) as refused:
        call(*args)
    return str(refused.value)


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        raw = raw[section]
    raw[last] = value


def delete_key(raw: dict[str, Any], key: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        raw = raw[section]
    del raw[last]


def test_the_committed_file_loads_with_the_values_written_in_it(raw):
    loaded = params.load(COMMITTED)
    assert loaded.train.image_size == raw["train"]["image_size"]
    assert loaded.train.filters == tuple(raw["train"]["filters"])
    assert loaded.fetch.phantom.seed == raw["fetch"]["phantom"]["seed"]
    assert loaded.validate_.height_px == raw["validate"]["height_px"]
    assert loaded.register_.model == raw["register"]["model"]


def test_parameters_that_are_already_read_are_checked_alike(raw):
    assert params.parse(raw) == params.load(COMMITTED)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.learning_rat", "learning_rate"),
        ("train.augment.rotate_degree", "rotate_degrees"),
        ("fetch.phantom.patient", "patients"),
        ("gate.min_tverski", "min_tversky"),
        ("validate.hight_px", "height_px"),
        ("register.modell", "model"),
        ("trian", "train"),
        ("validation", "validate"),
        ("register_", "register"),
    ],
)
def test_an_unknown_key_is_named_with_the_most_similar_known_key(raw, key, near):
    set_key(raw, key, 1)
    message = error_of(params.parse, raw)
    assert f"the key {key} is not known" in message
    assert f"did you mean {near}?" in message


def test_an_unknown_key_similar_to_none_is_named_with_the_known_keys(raw):
    set_key(raw, "report.zzz", 1)
    assert "report.zzz is not known; known there: patients, slices" in error_of(params.parse, raw)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("fetch.phantom.patients", 2, "greater than or equal to 3"),
        ("fetch.max_file_mib", 0, "greater than or equal to 1"),
        ("fetch.max_file_mib", 4097, "less than or equal to 4096"),
        ("fetch.max_patient_files", 0, "greater than or equal to 1"),
        ("fetch.max_patient_files", 200_001, "less than or equal to 200000"),
        ("fetch.max_batch_patients", 0, "greater than or equal to 1"),
        ("fetch.max_batch_patients", 1_000_001, "less than or equal to 1000000"),
        ("split.validation", 0, "greater than 0"),
        ("split.test", 1.0, "less than 1"),
        ("split.unit", "slices", "'patient' or 'slice'"),
        ("train.image_size", 50, "a multiple of 16"),
        ("train.image_size", 2048, "less than or equal to 1024"),
        ("train.filters", [8, 16, 32, 64], "5 values"),
        ("train.filters", [1, 2, 3, 4, 5, 6], "5 values"),
        ("train.epochs", 0, "greater than or equal to 1"),
        ("train.epochs", 1.5, "a valid integer"),
        ("train.epochs", "many", "a valid integer"),
        ("train.learning_rate", 0.0, "greater than 0"),
        ("train.learning_rate", -0.1, "greater than 0"),
        ("train.learning_rate", float("nan"), "less than or equal to 1"),
        ("train.missed_weight", 1.2, "less than or equal to 1"),
        ("train.plateau_factor", 0.9, "less than or equal to 0.5"),
        ("train.augment.flip", -0.1, "greater than or equal to 0"),
        ("train.seed", -1, "greater than or equal to 0"),
        ("evaluate.threshold", 1.0, "less than 1"),
        ("evaluate.resamples", 10, "greater than or equal to 100"),
        ("register.model", "", "at least 1 character"),
        ("gate.min_tversky", None, "a valid number"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_key_and_what_is_allowed(raw, key, value, allowed):
    set_key(raw, key, value)
    message = error_of(params.parse, raw)
    assert message.startswith(f"params.yaml: {key} is {value!r}; allowed: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.missed_weight", 0),
        ("train.missed_weight", 1),
        ("train.learning_rate", 1),
        ("train.image_size", 16),
        ("train.image_size", 1024),
        ("train.augment.flip", 1.0),
        ("gate.min_tversky", 0.0),
        ("gate.min_patients", 1),
        ("fetch.phantom.slices", 5),
        ("fetch.max_file_mib", 1),
        ("fetch.max_patient_files", 200_000),
        ("fetch.max_batch_patients", 1_000_000),
    ],
)
def test_a_value_at_the_end_of_its_range_is_accepted(raw, key, value):
    set_key(raw, key, value)
    params.parse(raw)


def test_a_bad_value_in_a_list_is_named_by_its_position(raw):
    set_key(raw, "train.filters", [8, 16, 0, 64, 128])
    assert "train.filters.2 is 0" in error_of(params.parse, raw)


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (0.3, 0.8)])
def test_shares_that_leave_no_patients_for_training_are_refused(raw, validation, test):
    raw["split"].update(validation=validation, test=test)
    expected = f"split: validation {validation} and test {test} together must stay under 1"
    assert expected in error_of(params.parse, raw)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"average_epochs": 5, "schedule": "plateau"}, "with schedule cosine (it is plateau)"),
        ({"average_epochs": 31, "epochs": 30, "schedule": "cosine"}, "must be at most epochs 30"),
    ],
)
def test_averaging_more_epochs_than_are_trained_is_refused(raw, changed, expected):
    raw["train"].update(changed)
    assert expected in error_of(params.parse, raw)


@pytest.mark.parametrize(
    ("refine", "expected"),
    [
        ({"epochs": 3, "average_epochs": 4}, "average_epochs 4 must be at most epochs 3"),
        ({"learning_rate": 0.001, "min_learning_rate": 0.002}, "must not be over learning_rate"),
        ({"epochs": 8}, "refine.epochs is 8 and schedule plateau"),
    ],
)
def test_an_impossible_refinement_is_refused(raw, refine, expected):
    raw["train"]["refine"] |= refine
    assert expected in error_of(params.parse, raw)


def test_refinement_is_accepted_with_the_cosine_schedule(raw):
    raw["train"] |= {"schedule": "cosine"}
    raw["train"]["refine"] |= {"epochs": 8}
    assert params.parse(raw).train.refine.epochs == 8


def test_an_evaluation_without_the_test_split_is_refused(raw):
    set_key(raw, "evaluate.splits", ["validation"])
    assert "evaluate: splits must name test" in error_of(params.parse, raw)


@pytest.mark.parametrize("complete", [True, False])
def test_a_key_of_an_earlier_release_is_named_with_its_new_name(raw, complete):
    refine = raw["train"]["refine"] if complete else raw["train"].pop("refine")
    set_key(raw, "train.finer", refine)
    expected = "params.yaml: the key train.finer is now called train.refine; rename it"
    assert error_of(params.parse, raw) == expected


@pytest.mark.parametrize("key", ["train", "train.epochs", "train.augment.flip", "validate"])
def test_a_missing_key_is_named(raw, key):
    delete_key(raw, key)
    assert f"the key {key} is missing" in error_of(params.parse, raw)


def test_a_section_without_values_is_named(raw):
    set_key(raw, "train", None)
    assert "train is None" in error_of(params.parse, raw)


@pytest.mark.parametrize("content", ["train: [", "a: b: c", "train:\n\t- 1\n"])
def test_a_file_that_is_not_yaml_is_named(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    message = error_of(params.load, path)
    assert message.startswith(f"{path} is not YAML")
    assert "\n" not in message


def test_a_key_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("gate:\n  min_patients: 5\n  min_patients: 6\n", encoding="utf-8")
    assert "the key min_patients occurs twice; remove one" in error_of(params.load, path)


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "seven"])
def test_a_file_without_sections_is_named(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    assert "params.yaml holds no sections" in error_of(params.load, path)


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    message = error_of(params.load, tmp_path / "params.yaml")
    assert message.startswith(f"{tmp_path / 'params.yaml'} does not exist")
    assert "in the folder of the repository" in message


def test_an_error_names_the_file(tmp_path, raw):
    set_key(raw, "train.epochs", 0)
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert error_of(params.load, path).startswith("other.yaml: train.epochs is 0")


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (lambda loaded: loaded, "train"),
        (lambda loaded: loaded.train, "epochs"),
        (lambda loaded: loaded.train.augment, "flip"),
        (lambda loaded: loaded.fetch.phantom, "seed"),
        (lambda loaded: loaded.gate, "min_tversky"),
    ],
    ids=["params", "train", "train.augment", "fetch.phantom", "gate"],
)
def test_sections_are_frozen(section, name):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section(params.load(COMMITTED)), name, 1)


def test_lists_are_frozen_too():
    loaded = params.load(COMMITTED)
    assert isinstance(loaded.train.filters, tuple)
    assert isinstance(loaded.evaluate.splits, tuple)
