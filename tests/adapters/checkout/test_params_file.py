from pathlib import Path
from typing import Any

import pytest
from making import REPOSITORY

from pipeline import params
from pipeline.adapters.checkout import params_file
from pipeline.errors import GliaflowError


@pytest.fixture
def path(tmp_path) -> Path:
    """A copy of params.yaml, set to the phantom."""
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    params_file.change_params(tmp_path / "params.yaml", params_file.load_preset("phantom"))
    return tmp_path / "params.yaml"


def use_lgg(path: Path, **fetch: Any) -> list[str]:
    preset = params_file.load_preset("lgg")
    return params_file.change_params(path, preset | {"fetch": preset.get("fetch", {}) | fetch})


def use_phantom(path: Path) -> list[str]:
    return params_file.change_params(path, params_file.load_preset("phantom"))


def comments(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[line.index("#") :] for line in lines if "#" in line]


def test_lgg_sets_the_published_network_and_the_selected_training(path):
    use_lgg(path, source="/scans")
    parameters = params.load(path)
    assert parameters.fetch.source == "/scans"
    assert parameters.train.filters == (16, 32, 64, 128, 256)
    assert parameters.train.intensity == "scan"
    assert parameters.train.augment.missing == 0.2
    assert parameters.train.loss_by_slice == 0.5
    assert parameters.evaluate.keep == "largest"
    assert parameters.evaluate.views == 4
    assert parameters.gate.min_tversky == 0.8


@pytest.mark.parametrize(
    "fetch",
    [
        {"source": "/scans"},
        {"source": "/home/somebody/downloads/with a blank/lgg-mri-segmentation.zip"},
        {"source": "s3://scans/lgg", "endpoint_url": "http://127.0.0.1:8333"},
        {"source": "/scans: copy # 2"},
    ],
)
def test_lgg_and_back_to_the_phantom_gives_the_same_bytes(path, fetch):
    before = path.read_bytes()
    use_lgg(path, **fetch)
    assert path.read_bytes() != before
    use_phantom(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("source", ["/scans", "/a/rather/long/path/to/lgg-mri-segmentation.zip"])
def test_every_comment_is_kept(path, source):
    before = comments(path)
    assert len(before) > 20
    use_lgg(path, source=source)
    assert comments(path) == before


def test_other_lines_stay_as_they_are(path):
    before = path.read_text().splitlines()
    params_file.change_params(path, {"train": {"epochs": 41}})
    after = path.read_text().splitlines()
    assert [new for old, new in zip(before, after, strict=True) if old != new] == ["  epochs: 41"]


def test_changes_are_reported_and_nothing_else(path):
    old = params.load(path)
    values = {
        "train": {"epochs": 7, "batch": old.train.batch},
        "fetch": {"phantom": {"patients": 9}},
    }
    assert params_file.change_params(path, values) == [
        f"train.epochs: {old.train.epochs} -> 7",
        f"fetch.phantom.patients: {old.fetch.phantom.patients} -> 9",
    ]
    assert params.load(path).train.epochs == 7
    assert params.load(path).fetch.phantom.patients == 9


def test_a_changed_list_is_reported_with_both_values(path):
    old = list(params.load(path).train.filters)
    assert params_file.change_params(path, {"train": {"filters": [4, 4, 8, 8, 8]}}) == [
        f"train.filters: {old} -> [4, 4, 8, 8, 8]"
    ]
    assert params.load(path).train.filters == (4, 4, 8, 8, 8)


def test_a_file_with_these_values_is_not_written(path):
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert use_phantom(path) == []
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"epochs": 0}}, r"train.epochs is 0; allowed"),
        ({"train": {"batch": 8, "image_size": 50}}, r"train.image_size is 50; allowed"),
        ({"split": {"validation": 0.6, "test": 0.5}}, r"must stay under 1"),
        ({"fetch": {"source": ""}}, r"fetch.source is ''; allowed"),
    ],
)
def test_an_invalid_value_is_refused_and_the_file_unchanged(path, values, message):
    before = path.read_bytes()
    with pytest.raises(GliaflowError, match=message):
        params_file.change_params(path, values)
    assert path.read_bytes() == before


def test_an_invalid_file_is_refused_and_unchanged(path):
    path.write_text(path.read_text().replace("\n  epochs:", "\n  epoch: 40\n  epochs:"))
    before = path.read_bytes()
    with pytest.raises(GliaflowError, match=r"train.epoch is not known"):
        use_phantom(path)
    assert path.read_bytes() == before


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(GliaflowError, match=r"params.yaml does not exist"):
        use_phantom(tmp_path / "params.yaml")


def test_the_repository_is_set_to_the_phantom(tmp_path):
    if params.load(REPOSITORY / "params.yaml").fetch.source != "phantom":
        pytest.skip("params.yaml was changed to other scans")
    path = tmp_path / "params.yaml"
    path.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    assert params_file.change_params(path, params_file.load_preset("phantom")) == []


def test_both_presets_set_the_same_keys_of_every_section_but_fetch():
    phantom, lgg = params_file.load_preset("phantom"), params_file.load_preset("lgg")
    assert {name: set(keys) for name, keys in lgg.items() if name != "fetch"} == {
        name: set(keys) for name, keys in phantom.items() if name != "fetch"
    }
