"""Register, decide and promote with a fake registry, a real model and real stage files."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import cast

import finished_run
import numpy as np
import pytest
from fakes import FakeRegistry

from pipeline.adapters.model import model_files, predictions
from pipeline.adapters.storage import json_files
from pipeline.adapters.tracking.registry import TVERSKY_TAG, Registry
from pipeline.app import publish
from pipeline.app.publish import Publisher
from pipeline.domain.decisions import DecisionRecord, Score
from pipeline.domain.postprocessing import PostProcessing
from pipeline.errors import GliaflowError


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def publisher(project, registry) -> Publisher:
    return open_publisher(project, registry)


def open_publisher(project, registry) -> Publisher:
    return Publisher(project, cast(Registry, registry))


def run(publisher: Publisher) -> DecisionRecord:
    """Publish as the flow does: register, decide, apply."""
    return publisher.apply(publisher.decide(publisher.register()))


def train_another_model(project) -> None:
    """Replace the model file by one of other weights and the same masks."""
    train_another_model_with(project, seed=2)


def train_another_model_with(project, *, seed: int) -> None:
    model = finished_run.build_model(is_tumour=True, seed=seed)
    model_files.save_model(model, project.path("model"))


def failed_rules(decision: DecisionRecord) -> list[str]:
    return [reason.rule for reason in decision.reasons if not reason.passed]


# register


def test_a_version_carries_its_test_score_and_lineage(publisher):
    version = publisher.register()
    assert version.version == 1
    assert version.test_tversky == Score(0.8, 0.7, 0.9, 6)
    assert {"gliaflow.code", "gliaflow.data", "gliaflow.weights"} <= set(version.tags)


def test_the_same_model_is_registered_once(publisher, registry):
    assert publisher.register() == publisher.register()
    assert len(registry.versions()) == 1


def test_another_model_is_another_version(publisher, registry, project):
    publisher.register()
    train_another_model(project)
    assert publisher.register().version == 2
    digests = {version.digest for version in registry.versions()}
    assert len(digests) == 2


def test_params_that_were_edited_during_the_run_are_refused_before_anything_is_registered(
    publisher, registry, change_params
):
    change_params(train={"epochs": 99})
    with pytest.raises(GliaflowError, match=r"params\.yaml was edited .*train\.epochs: 40 -> 99"):
        publisher.register()
    assert registry.versions() == []


def test_a_missing_stage_file_is_an_error_message(publisher, registry, project):
    project.path("scores").unlink()
    with pytest.raises(GliaflowError, match=r"metrics\.json .*dvc repro"):
        publisher.register()
    assert registry.versions() == []


def test_contents_hold_flat_numbers_without_those_of_groups(publisher, registry, monkeypatch):
    registered = []
    monkeypatch.setattr(
        registry, "register", lambda digest, contents, load_model: registered.append(contents())
    )
    publisher.register()
    (contents,) = registered
    assert contents.metrics["test.tversky.mean"] == 0.8
    assert not any(name.startswith("groups.") for name in contents.metrics)
    assert contents.params["train.augment.flip"] == publisher.project.params.train.augment.flip
    assert json.loads(contents.tags[TVERSKY_TAG])["patients"] == 6
    assert set(contents.manifest.split) == {"train", "validation", "test"}


# decide and apply


def test_the_first_version_that_passes_becomes_the_champion(publisher, registry, project):
    decision = run(publisher)
    assert decision.verdict == "promote"
    assert failed_rules(decision) == []
    assert (decision.champion.before, decision.champion.after) == (None, 1)
    assert registry.champion().version == 1
    assert registry.decisions() == [decision]


def test_a_decision_is_written_and_shown_on_the_report(publisher, project):
    decision = run(publisher)
    path = project.path("index").with_name("decision.json")
    assert DecisionRecord.from_json(json_files.read_json(path)) == decision
    assert decision.reasons[0].sentence in project.path("index").read_text()
    assert decision.reasons[0].sentence not in project.path("page").read_text()


def test_deciding_alone_changes_nothing(publisher, registry):
    decision = publisher.decide(publisher.register())
    assert decision.verdict == "promote"
    assert registry.champion() is None
    assert registry.decisions() == []


def test_a_score_below_the_gate_is_rejected_and_the_champion_stays(
    publisher, registry, project, change_params
):
    run(publisher)
    train_another_model(project)
    decision = run(open_publisher(change_params(gate={"min_tversky": 0.81}), registry))
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["test Tversky"]
    assert (decision.champion.before, decision.champion.after) == (1, 1)
    assert registry.champion().version == 1
    assert [record.verdict for record in registry.decisions()] == ["reject", "promote"]


def test_an_interval_below_the_gate_is_rejected(registry, change_params):
    decision = run(open_publisher(change_params(gate={"min_tversky_low": 0.71}), registry))
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["interval"]
    assert registry.champion() is None


def test_too_few_test_patients_are_inconclusive_and_nothing_is_promoted(registry, change_params):
    decision = run(open_publisher(change_params(gate={"min_patients": 7}), registry))
    assert decision.verdict == "inconclusive"
    assert failed_rules(decision) == ["enough patients"]
    assert registry.champion() is None
    assert registry.decisions() == [decision]


def test_a_model_that_gives_other_masks_is_rejected(publisher, registry, project):
    masks = np.ones((finished_run.SLICES, finished_run.SIDE, finished_run.SIDE), bool)
    masks[0, 0, 0] = False
    predictions.save_masks(project.path("predicted"), {"test/TCGA_CY_03": masks})
    decision = run(publisher)
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["loads back"]
    assert "OTHER masks" in decision.reasons[2].sentence
    assert "the weights" in decision.reasons[2].sentence
    assert registry.champion() is None


def test_a_model_that_loads_back_with_other_weights_is_rejected(publisher, registry):
    version = publisher.register()
    registry.models[version.version] = finished_run.build_model(is_tumour=True, seed=2)
    decision = publisher.decide(version)
    assert decision.verdict == "reject"
    assert "OTHER weights and gives the masks" in decision.reasons[2].sentence


def test_the_same_decision_is_recorded_once(publisher, registry):
    decision = run(publisher)
    assert run(publisher) == decision
    assert publisher.apply(decision) == decision
    assert registry.decisions() == [decision]


def test_a_changed_policy_is_decided_again(publisher, registry, change_params):
    first = run(publisher)
    second = run(open_publisher(change_params(gate={"min_tversky": 0.5}), registry))
    assert second.policy.min_tversky == 0.5
    assert registry.decisions() == [second, first]


def test_a_changed_champion_is_decided_again(publisher, registry, project):
    first = run(publisher)
    original = project.path("model").read_bytes()
    train_another_model(project)
    run(publisher)
    assert registry.champion().version == 2
    project.path("model").write_bytes(original)
    third = run(publisher)
    assert third != first
    assert (third.candidate.version, third.champion.before, third.champion.after) == (1, 2, 1)
    assert registry.champion().version == 1
    assert len(registry.decisions()) == 3


# promote_version


@pytest.fixture
def rejected(registry, change_params) -> Publisher:
    """A publisher whose only version was rejected."""
    publisher = open_publisher(change_params(gate={"min_tversky": 0.9}), registry)
    assert run(publisher).verdict == "reject"
    return publisher


def test_an_override_promotes_and_records_reason_and_name(rejected, registry):
    decision = rejected.promote_version(1, override="agreed on 12 May", by="Dr Ada Roe")
    assert decision.verdict == "promote"
    assert (decision.override, decision.who) == ("agreed on 12 May", "Dr Ada Roe")
    assert failed_rules(decision) == ["test Tversky"]  # recorded although overridden
    assert registry.champion().version == 1
    assert registry.decisions()[0] == decision


def test_without_an_override_the_gate_decides_and_its_decision_is_recorded(
    rejected, registry, monkeypatch
):
    monkeypatch.setenv("GLIAFLOW_USER", "Bo")
    decision = rejected.promote_version(1)
    assert decision.verdict == "reject"
    assert (decision.override, decision.who) == (None, "Bo")
    assert registry.champion() is None
    assert len(registry.decisions()) == 2


def test_an_older_version_can_be_promoted_again(publisher, registry, project):
    run(publisher)
    train_another_model(project)
    run(publisher)
    decision = publisher.promote_version(1)
    assert (decision.champion.before, decision.champion.after) == (2, 1)
    assert registry.champion().version == 1


def test_a_version_whose_output_is_not_a_probability_is_rejected(publisher, registry, monkeypatch):
    from pipeline.network import inference

    run(publisher)
    monkeypatch.setattr(
        inference, "probabilities", lambda model, images, batch: np.full((1, 32, 32), 1.5)
    )
    decision = publisher.promote_version(1)
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["loads back"]


def test_an_unknown_version_is_an_error_message(publisher, registry):
    with pytest.raises(GliaflowError, match="no version 7"):
        publisher.promote_version(7)
    assert registry.decisions() == []


def test_policy_and_post_processing_have_the_values_of_params(project):
    policy = publish.policy_of(project.params.gate)
    assert (policy.min_tversky, policy.min_tversky_low, policy.min_patients) == (0.6, 0.0, 5)
    post = PostProcessing.from_params(project.params.evaluate)
    assert (post.threshold, post.views, post.keep, post.min_area_px) == (0.5, 1, "all", 0)


# nothing is claimed that was not checked


def test_an_earlier_decision_is_not_repeated_for_a_model_whose_files_were_changed(
    publisher, registry
):
    decision = run(publisher)
    registry.changed.add(decision.candidate.version)
    with pytest.raises(GliaflowError, match="the files of version 1 were changed"):
        publisher.decide(publisher.register())
    assert registry.decisions() == [decision]


def test_a_decision_is_not_applied_to_a_champion_it_never_saw(publisher, registry, project):
    first = run(publisher)
    train_another_model(project)
    waiting = publisher.decide(publisher.register())
    train_another_model_with(project, seed=3)
    latest = run(publisher)
    with pytest.raises(GliaflowError, match="changed from version 1 to 3"):
        publisher.apply(waiting)
    assert registry.champion().version == 3
    assert registry.decisions() == [latest, first]


def test_ten_promotions_at_once_give_one_order_in_which_each_begins_where_the_last_ended(
    publisher, registry, project
):
    run(publisher)
    train_another_model(project)
    run(publisher)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda call: publisher.promote_version(1 + call % 2), range(10)))
    records = registry.decisions()[::-1]
    assert len(records) == 12
    for earlier, later in pairwise(records):
        assert later.champion.before == earlier.champion.after
    assert registry.champion().version == records[-1].champion.after


def test_the_address_of_mlflow_is_no_parameter_of_the_run(publisher, monkeypatch):
    contents = publisher._contents()
    assert "register.experiment" in contents.params
    assert not any("tracking_uri" in name for name in contents.params)
