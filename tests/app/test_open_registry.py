"""The registry of a project: the real one on an empty database, and its report as JSON."""

import inspect
import json
from typing import cast

import pytest
from fakes import FakeRegistry

from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import TVERSKY_TAG, Version
from pipeline.app import registry_report
from pipeline.app.open_registry import open_registry
from pipeline.app.promotion import Publisher

FOR_TESTS = {"replace_model", "move_alias"}


def public_methods(kind: type) -> dict[str, list[str]]:
    """Map each public method to the names of its parameters."""
    return {
        name: list(inspect.signature(method).parameters)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in FOR_TESTS
    }


def test_the_fake_has_the_methods_and_parameters_of_the_registry():
    assert public_methods(FakeRegistry) == public_methods(Registry)


def test_a_new_database_has_no_versions_no_champion_and_no_decisions(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root / 'mlflow.db'}")
    registry = open_registry(project)
    assert registry.versions() == []
    assert registry.champion() is None
    assert registry.decisions() == []


@pytest.fixture
def registry(project) -> FakeRegistry:
    """Two versions of one model; the first is the champion against the gate."""
    registry = FakeRegistry()
    publisher = Publisher(project, cast(Registry, registry))
    publisher.apply(publisher.decide(publisher.register()))
    publisher.promote_version(1, override="agreed", by="Ada Roe")
    return registry


def test_the_report_has_stable_fields(registry):
    report = registry_report.as_json(registry.versions(), registry.decisions())
    assert list(report) == ["champion", "versions", "decisions"]
    assert report["champion"] == 1
    (version,) = report["versions"]
    assert list(version) == ["version", "aliases", "digest", "tversky", "withdrawn", "tags"]
    assert (version["version"], version["aliases"]) == (1, ["champion"])
    assert version["digest"] == version["tags"]["gliaflow.digest"]
    assert {"mean", "low", "high", "patients"} <= set(version["tversky"])
    last, first = report["decisions"]
    assert set(first) == {
        "verdict", "reasons", "candidate", "champion", "policy", "when", "who",
        "action", "based_on", "why", "number", "test", "comparison",
    }  # fmt: skip
    assert set(last) == set(first)
    assert (last["why"], last["who"]) == ("agreed", "Ada Roe")
    assert last["candidate"]["digest"] == version["digest"]


def test_the_report_is_valid_json(registry):
    report = registry_report.as_json(registry.versions(), registry.decisions())
    assert json.loads(json.dumps(report)) == report


def test_an_empty_registry_has_an_empty_report():
    assert registry_report.as_json([], []) == {"champion": None, "versions": [], "decisions": []}


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"mean": 0.5}', '{"mean": "high"}'])
def test_a_score_that_cannot_be_read_is_reported_as_none(text):
    tags = {TVERSKY_TAG: text}
    (version,) = registry_report.as_json([Version(1, (), tags, "run")], [])["versions"]
    assert version["tversky"] == {}
    assert version["tags"] == tags
