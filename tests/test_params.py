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
    """The committed parameters, to be changed by the test."""
    return yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))


def refusal(call: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(GliaflowError) as refused:
        call(*args)
    return str(refused.value)


def put(raw: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        raw = raw[section]
    raw[last] = value


def take_out(raw: dict[str, Any], key: str) -> None:
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


def test_what_was_read_already_is_checked_alike(raw):
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
def test_an_unknown_key_names_itself_and_the_near_one(raw, key, near):
    put(raw, key, 1)
    said = refusal(params.parse, raw)
    assert f"the key {key} is not known" in said
    assert f"did you mean {near}?" in said


def test_an_unknown_key_like_no_other_names_those_known_there(raw):
    put(raw, "report.zzz", 1)
    assert "report.zzz is not known; known there: patients, slices" in refusal(params.parse, raw)


@pytest.mark.parametrize(
    ("key", "found", "allowed"),
    [
        ("fetch.phantom.patients", 2, "greater than or equal to 3"),
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
def test_a_value_out_of_range_says_its_name_what_was_found_and_what_is_allowed(
    raw, key, found, allowed
):
    put(raw, key, found)
    said = refusal(params.parse, raw)
    assert said.startswith(f"params.yaml: {key} is {found!r}; allowed: ")
    assert allowed in said


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
    ],
)
def test_a_value_on_the_end_of_its_range_is_taken(raw, key, value):
    put(raw, key, value)
    params.parse(raw)


def test_one_bad_value_of_a_list_is_named_by_its_place(raw):
    put(raw, "train.filters", [8, 16, 0, 64, 128])
    assert "train.filters.2 is 0" in refusal(params.parse, raw)


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (0.3, 0.8)])
def test_shares_that_leave_nothing_to_train_on_are_refused(raw, validation, test):
    raw["split"].update(validation=validation, test=test)
    said = refusal(params.parse, raw)
    assert f"split: validation {validation} and test {test} together must stay under 1" in said


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"average_epochs": 5, "schedule": "plateau"}, "with schedule cosine (it is plateau)"),
        ({"average_epochs": 31, "epochs": 30, "schedule": "cosine"}, "must be at most epochs 30"),
    ],
)
def test_a_mean_over_epochs_that_are_not_there_is_refused(raw, changed, expected):
    raw["train"].update(changed)
    assert expected in refusal(params.parse, raw)


@pytest.mark.parametrize(
    ("finer", "expected"),
    [
        ({"epochs": 3, "average_epochs": 4}, "average_epochs 4 must be at most epochs 3"),
        ({"learning_rate": 0.001, "min_learning_rate": 0.002}, "must not be over learning_rate"),
        ({"epochs": 8}, "finer.epochs is 8 and schedule plateau"),
    ],
)
def test_a_finer_network_that_cannot_be_is_refused(raw, finer, expected):
    raw["train"]["finer"] |= finer
    assert expected in refusal(params.parse, raw)


def test_a_finer_network_goes_with_a_schedule_that_ends(raw):
    raw["train"] |= {"schedule": "cosine"}
    raw["train"]["finer"] |= {"epochs": 8}
    assert params.parse(raw).train.finer.epochs == 8


def test_an_evaluation_without_the_test_split_is_refused(raw):
    put(raw, "evaluate.splits", ["validation"])
    assert "evaluate: splits must name test" in refusal(params.parse, raw)


@pytest.mark.parametrize("key", ["train", "train.epochs", "train.augment.flip", "validate"])
def test_a_missing_key_is_named(raw, key):
    take_out(raw, key)
    assert f"the key {key} is missing" in refusal(params.parse, raw)


def test_a_section_without_values_is_named(raw):
    put(raw, "train", None)
    assert "train is None" in refusal(params.parse, raw)


@pytest.mark.parametrize("content", ["train: [", "a: b: c", "train:\n\t- 1\n"])
def test_a_file_that_is_no_yaml_is_named(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    said = refusal(params.load, path)
    assert said.startswith(f"{path} is not YAML")
    assert "\n" not in said


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "seven"])
def test_a_file_without_sections_is_named(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    assert "params.yaml holds no sections" in refusal(params.load, path)


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    said = refusal(params.load, tmp_path / "params.yaml")
    assert str(tmp_path / "params.yaml") in said
    assert "in the folder of the repository" in said


def test_a_refusal_names_the_file_it_is_about(tmp_path, raw):
    put(raw, "train.epochs", 0)
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert refusal(params.load, path).startswith("other.yaml: train.epochs is 0")


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
    found = section(params.load(COMMITTED))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(found, name, 1)


def test_lists_are_frozen_as_well():
    loaded = params.load(COMMITTED)
    assert isinstance(loaded.train.filters, tuple)
    assert isinstance(loaded.evaluate.splits, tuple)
