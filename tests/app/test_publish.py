"""Register the model of the stages, with a fake registry."""

import json
from typing import cast

import finished_run
import pytest
from fakes import FakeRegistry

from pipeline.adapters.checkout import provenance
from pipeline.adapters.model import model_files
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import TVERSKY_TAG
from pipeline.app import publish
from pipeline.errors import GliaflowError


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


def register(project, registry):
    return publish.register(project, cast(Registry, registry))


def test_a_version_carries_its_test_score_and_lineage(project, registry):
    version = register(project, registry)
    assert version.version == 1
    assert version.test_tversky.mean == pytest.approx(finished_run.TEST_MEAN, abs=1e-6)
    assert {"gliaflow.code", "gliaflow.data", "gliaflow.weights"} <= set(version.tags)


def test_the_same_model_is_registered_once(project, registry):
    assert register(project, registry) == register(project, registry)
    assert len(registry.versions()) == 1


def test_another_model_is_another_version(project, registry):
    register(project, registry)
    model_files.save_model(finished_run.build_model(is_tumour=True, seed=2), project.path("model"))
    assert register(project, registry).version == 2
    digests = {version.digest for version in registry.versions()}
    assert len(digests) == 2


def test_params_that_were_edited_during_the_run_are_refused_before_anything_is_registered(
    project, registry, change_params
):
    change_params(train={"epochs": 99})
    with pytest.raises(GliaflowError, match=r"params\.yaml was edited .*train\.epochs: 40 -> 99"):
        register(project, registry)
    assert registry.versions() == []


def test_a_missing_stage_file_is_an_error_message(project, registry):
    project.path("scores").unlink()
    with pytest.raises(GliaflowError, match=r"metrics\.json .*dvc repro"):
        register(project, registry)
    assert registry.versions() == []


@pytest.fixture
def contents(project):
    return publish.contents(project, provenance.project_lineage(project))


def test_contents_hold_flat_numbers_without_those_of_groups(contents, project):
    assert contents.metrics["test.tversky.mean"] == pytest.approx(finished_run.TEST_MEAN, abs=1e-6)
    assert not any(name.startswith("groups.") for name in contents.metrics)
    assert contents.params["train.augment.flip"] == project.params.train.augment.flip
    assert json.loads(contents.tags[TVERSKY_TAG])["patients"] == 6
    assert set(contents.manifest.split) == {"train", "validation", "test"}


def test_the_address_of_mlflow_is_no_parameter_of_the_run(contents):
    assert "register.experiment" in contents.params
    assert not any("tracking_uri" in name for name in contents.params)


def test_contents_carry_the_post_processing_and_a_model_card(contents, project):
    assert contents.post.threshold == project.params.evaluate.threshold
    assert "models:/phantom-resunet@champion" in contents.card
    assert "| test | 6 | 18 | 18 |" in contents.card
    assert "| site | CY | " in contents.card
    assert "Not a medical device" in contents.card
