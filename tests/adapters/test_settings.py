from pathlib import Path
from typing import Any

import pytest
from making import REPOSITORY

from pipeline import params
from pipeline.adapters import settings
from pipeline.errors import GliaflowError


@pytest.fixture
def path(tmp_path) -> Path:
    """params.yaml as committed: set to the phantom."""
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    settings.change(tmp_path / "params.yaml", settings.preset("phantom"))
    return tmp_path / "params.yaml"


def use_lgg(path: Path, **fetch: Any) -> list[str]:
    wanted = settings.preset("lgg")
    return settings.change(path, wanted | {"fetch": wanted.get("fetch", {}) | fetch})


def use_phantom(path: Path) -> list[str]:
    return settings.change(path, settings.preset("phantom"))


def comments(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[line.index("#") :] for line in lines if "#" in line]


def test_lgg_sets_the_published_network_and_the_recipe_that_was_chosen(path):
    use_lgg(path, source="/scans")
    found = params.load(path)
    assert found.fetch.source == "/scans"
    assert found.train.filters == (16, 32, 64, 128, 256)
    assert found.train.intensity == "scan"
    assert found.train.augment.missing == 0.2
    assert found.train.loss_by_slice == 0.5
    assert found.evaluate.keep == "largest"
    assert found.evaluate.views == 4
    assert found.gate.min_tversky == 0.8


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


def test_lines_that_were_not_changed_stay_as_they_are(path):
    before = path.read_text().splitlines()
    settings.change(path, {"train": {"epochs": 41}})
    after = path.read_text().splitlines()
    assert [new for old, new in zip(before, after, strict=True) if old != new] == ["  epochs: 41"]


def test_what_changed_is_told_and_nothing_else(path):
    old = params.load(path)
    values = {
        "train": {"epochs": 7, "batch": old.train.batch},
        "fetch": {"phantom": {"patients": 9}},
    }
    assert settings.change(path, values) == [
        f"train.epochs: {old.train.epochs} -> 7",
        f"fetch.phantom.patients: {old.fetch.phantom.patients} -> 9",
    ]
    assert params.load(path).train.epochs == 7
    assert params.load(path).fetch.phantom.patients == 9


def test_a_list_is_told_before_and_after(path):
    old = list(params.load(path).train.filters)
    assert settings.change(path, {"train": {"filters": [4, 4, 8, 8, 8]}}) == [
        f"train.filters: {old} -> [4, 4, 8, 8, 8]"
    ]
    assert params.load(path).train.filters == (4, 4, 8, 8, 8)


def test_what_says_so_already_is_left_untouched(path):
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert use_phantom(path) == []
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"train": {"epochs": 0}}, r"train.epochs is 0; allowed"),
        ({"train": {"batch": 8, "image_size": 50}}, r"train.image_size is 50; allowed"),
        ({"split": {"validation": 0.6, "test": 0.5}}, r"must stay under 1"),
        ({"fetch": {"source": ""}}, r"fetch.source is ''; allowed"),
    ],
)
def test_a_value_out_of_range_is_refused_and_the_file_left(path, values, sentence):
    before = path.read_bytes()
    with pytest.raises(GliaflowError, match=sentence):
        settings.change(path, values)
    assert path.read_bytes() == before


def test_a_file_that_was_wrong_before_is_refused_and_left(path):
    path.write_text(path.read_text().replace("\n  epochs:", "\n  epoch: 40\n  epochs:"))
    before = path.read_bytes()
    with pytest.raises(GliaflowError, match=r"train.epoch is not known"):
        use_phantom(path)
    assert path.read_bytes() == before


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(GliaflowError, match=r"params.yaml is not there"):
        use_phantom(tmp_path / "params.yaml")


def test_the_repository_as_it_comes_is_set_to_the_phantom(tmp_path):
    if params.load(REPOSITORY / "params.yaml").fetch.source != "phantom":
        pytest.skip("params.yaml was set to other scans here")
    path = tmp_path / "params.yaml"
    path.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    assert settings.change(path, settings.preset("phantom")) == []


def test_both_presets_set_the_same_keys_of_every_section_but_fetch():
    phantom, lgg = settings.preset("phantom"), settings.preset("lgg")
    assert {name: set(keys) for name, keys in lgg.items() if name != "fetch"} == {
        name: set(keys) for name, keys in phantom.items() if name != "fetch"
    }
