"""Decide and promote with a fake registry, real models and real stage files."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import cast

import finished_run
import numpy as np
import pytest
from fakes import FakeRegistry

from pipeline.adapters.model import model_files, predictions
from pipeline.adapters.storage import csv_files, json_files
from pipeline.adapters.tracking.registry import Registry
from pipeline.app import promotion
from pipeline.app.promotion import Publisher
from pipeline.domain.decisions import DecisionRecord
from pipeline.domain.postprocessing import PostProcessing
from pipeline.errors import GliaflowError

GOOD_FIRST = "TCGA_CY_03"  # the first test patient


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


def train(project, *, seed: int = 2, is_tumour: bool = True) -> None:
    """Replace the model by another one, and evaluate it."""
    model = finished_run.build_model(is_tumour=is_tumour, seed=seed)
    model_files.save_model(model, project.path("model"))
    finished_run.write_evaluation(project)


def failed_rules(decision: DecisionRecord) -> list[str]:
    return [reason.rule for reason in decision.reasons if not reason.passed]


def sentence(decision: DecisionRecord, rule: str) -> str:
    return next(reason.sentence for reason in decision.reasons if reason.rule == rule)


# the gate decides


def test_the_first_version_that_passes_becomes_the_champion(publisher, registry):
    decision = run(publisher)
    assert decision.verdict == "promote"
    assert failed_rules(decision) == []
    assert (decision.champion.before, decision.champion.after) == (None, 1)
    assert registry.champion().version == 1
    assert registry.decisions() == [decision]


def test_the_test_score_is_measured_for_the_decision(publisher):
    score = run(publisher).candidate.tversky
    assert (score.mean, score.patients) == (pytest.approx(finished_run.TEST_MEAN, abs=1e-6), 6)


def test_a_decision_is_written_and_shown_on_the_report(publisher, project):
    decision = run(publisher)
    path = project.path("index").with_name("decision.json")
    stored = DecisionRecord.from_json(json_files.read_json(path))
    assert stored == decision
    assert [score.patient for score in stored.comparison.patients] == list(
        finished_run.TEST_PATIENTS
    )
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
    train(project)
    decision = run(open_publisher(change_params(gate={"min_tversky": 0.99}), registry))
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["test Tversky"]
    assert (decision.champion.before, decision.champion.after) == (1, 1)
    assert registry.champion().version == 1
    assert [record.verdict for record in registry.decisions()] == ["reject", "promote"]


def test_an_interval_below_the_gate_is_rejected(registry, change_params):
    decision = run(open_publisher(change_params(gate={"min_tversky_low": 0.97}), registry))
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["interval"]
    assert registry.champion() is None


def test_too_few_test_patients_are_inconclusive_and_nothing_is_promoted(registry, change_params):
    decision = run(open_publisher(change_params(gate={"min_patients": 7}), registry))
    assert decision.verdict == "inconclusive"
    assert failed_rules(decision) == ["enough patients"]
    assert registry.champion() is None
    assert registry.decisions() == [decision]


def test_a_worse_model_is_rejected_with_its_difference_though_it_passes_the_bar(
    publisher, registry, project, change_params
):
    run(publisher)
    train(project, is_tumour=False)
    decision = run(open_publisher(change_params(gate={"min_tversky": 0.0}), registry))
    assert decision.verdict == "reject"
    assert "not worse" in failed_rules(decision)
    assert decision.comparison.difference.mean == pytest.approx(-finished_run.TEST_MEAN, abs=1e-6)
    assert registry.champion().version == 1


def test_the_report_pictures_the_patients_that_fell_most_with_both_masks(
    publisher, registry, project
):
    run(publisher)
    train(project, is_tumour=False)
    run(publisher)
    page = project.path("index").read_text()
    worst = sorted(finished_run.TEST_PATIENTS)[:3]  # those with most tumour fell most
    assert [f"{patient}, slice" in page for patient in finished_run.TEST_PATIENTS] == [
        patient in worst for patient in finished_run.TEST_PATIENTS
    ]
    assert page.count("<span>Champion</span>") == page.count("<span>Candidate</span>") == 3


def test_an_equal_model_is_promoted(publisher, registry, project):
    run(publisher)
    train(project)
    decision = run(publisher)
    assert decision.verdict == "promote"
    assert decision.comparison.difference.mean == 0
    assert registry.champion().version == 2


def test_patients_that_the_champion_was_trained_on_are_left_out_of_the_comparison(
    publisher, registry, project
):
    run(publisher)
    seen = csv_files.read_table(registry.artifact(registry.version(1), "splits.csv"))
    seen.loc[seen.patient == GOOD_FIRST, "split"] = "train"
    csv_files.write_table(registry.artifact(registry.version(1), "splits.csv"), seen)
    train(project)
    decision = publisher.decide(publisher.register())
    assert decision.comparison.difference.patients == 5
    assert "1 patients the champion was trained on are left out" in sentence(decision, "not worse")
    first = decision.comparison.patients[0]
    assert (first.patient, first.champion) == (GOOD_FIRST, None)


def test_patients_that_the_candidate_was_trained_on_are_not_scored(publisher, registry):
    version = publisher.register()
    splits = csv_files.read_table(registry.artifact(version, "splits.csv"))
    splits["split"] = "train"
    csv_files.write_table(registry.artifact(version, "splits.csv"), splits)
    decision = publisher.decide(version)
    assert decision.verdict == "reject"
    assert decision.comparison.left_out == tuple(finished_run.TEST_PATIENTS)
    assert "enough patients" in failed_rules(decision)


def test_models_judged_on_the_same_test_patients_are_counted(registry, project, change_params):
    publisher = open_publisher(change_params(gate={"test_budget": 2}), registry)
    first = run(publisher)
    train(project, seed=2)
    second = run(publisher)
    assert run(publisher) == second  # the same model again is no other look
    train(project, seed=3)
    third = run(publisher)
    assert [d.test.looks for d in (first, second, third)] == [1, 2, 3]
    assert [d.verdict for d in (first, second, third)] == ["promote", "promote", "inconclusive"]
    assert failed_rules(third) == ["test budget"]


# checks beside the scores


def test_a_model_that_gives_other_masks_is_rejected(publisher, registry, project):
    masks = {
        f"test/{patient}": np.ones(
            (finished_run.SLICES, finished_run.SIDE, finished_run.SIDE), bool
        )
        for patient in finished_run.TEST_PATIENTS
    }
    masks[f"test/{GOOD_FIRST}"][0, 0, 0] = False
    predictions.save_masks(project.path("predicted"), masks)
    decision = run(publisher)
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["loads back"]
    assert "the weights and gives OTHER masks" in sentence(decision, "loads back")
    assert "5 of 6" in sentence(decision, "loads back")
    assert registry.champion() is None


def test_a_model_that_loads_back_with_other_weights_is_rejected(publisher, registry, project):
    version = publisher.register()
    other = finished_run.build_model(is_tumour=True, seed=2)
    registry.replace_model(1, other, PostProcessing.from_params(project.params.evaluate))
    decision = publisher.decide(version)
    assert decision.verdict == "reject"
    assert "OTHER weights and gives the masks" in sentence(decision, "loads back")


def test_a_model_with_other_post_processing_than_evaluated_is_rejected(
    publisher, registry, project
):
    version = publisher.register()
    network = model_files.load_model(project.path("model"))
    post = replace(PostProcessing.from_params(project.params.evaluate), threshold=0.9)
    registry.replace_model(1, network, post)
    decision = publisher.decide(version)
    assert "complete" in failed_rules(decision)
    assert "threshold=0.9" in sentence(decision, "complete")


def test_a_manifest_that_is_not_the_registered_one_is_rejected(publisher, registry):
    version = publisher.register()
    registry.artifact(version, "manifest.csv").write_text("patient\n")
    decision = publisher.decide(version)
    assert failed_rules(decision) == ["lineage"]
    assert "Its manifest.csv" in sentence(decision, "lineage")


def test_a_loss_that_was_not_finite_is_rejected(publisher, project):
    path = project.path("history")
    path.write_text(path.read_text().replace("0.5", ""))
    decision = publisher.decide(publisher.register())
    assert failed_rules(decision) == ["training"]


def test_a_version_keeps_its_post_processing_when_params_change(
    publisher, registry, project, change_params
):
    run(publisher)
    change_params(evaluate={"threshold": 0.9})
    model = promotion.judging.load(registry, registry.champion())
    assert model.post.threshold == project.params.evaluate.threshold == 0.5


# a decision is made once


def test_the_same_decision_is_recorded_once(publisher, registry):
    decision = run(publisher)
    assert run(publisher) == decision
    assert publisher.apply(decision) == decision
    assert registry.decisions() == [decision]


def test_a_repeated_decision_keeps_the_scores_of_patients_on_the_report(publisher, project):
    run(publisher)
    path = project.path("index").with_name("decision.json")
    before = path.read_text()
    path.unlink()
    run(publisher)
    assert path.read_text() == before


def test_a_changed_policy_is_decided_again(publisher, registry, change_params):
    first = run(publisher)
    second = run(open_publisher(change_params(gate={"min_tversky": 0.5}), registry))
    assert second.policy.min_tversky == 0.5
    assert registry.decisions() == [second, first]


def test_other_test_patients_are_decided_again(publisher, registry, project):
    first = run(publisher)
    table = csv_files.read_table(project.path("manifest"))
    table.loc[table.patient == GOOD_FIRST, "tumour_pixels"] += 1
    changed = project.path("manifest").with_name("other.csv")
    csv_files.write_table(changed, table)
    version = registry.version(1)
    changed.replace(project.path("manifest"))
    second = publisher.decide(version)
    assert second.test.digest != first.test.digest


def test_an_earlier_decision_is_not_repeated_for_a_model_whose_files_were_changed(
    publisher, registry
):
    decision = run(publisher)
    registry.changed.add(decision.candidate.version)
    with pytest.raises(GliaflowError, match="the files of version 1 were changed"):
        publisher.decide(publisher.register())
    assert registry.decisions() == [decision]


def test_an_earlier_decision_is_not_repeated_if_the_lineage_no_longer_verifies(publisher, registry):
    run(publisher)
    registry.artifact(registry.version(1), "manifest.csv").write_text("patient\n")
    decision = publisher.decide(publisher.register())
    assert (decision.verdict, failed_rules(decision)) == ("reject", ["lineage"])


def test_a_champion_whose_files_were_changed_stops_the_decision(publisher, registry, project):
    run(publisher)
    train(project)
    registry.changed.add(1)
    with pytest.raises(GliaflowError, match="the files of version 1 were changed"):
        publisher.decide(publisher.register())
    assert registry.champion().version == 1


def test_a_decision_is_not_applied_to_a_champion_it_never_saw(publisher, registry, project):
    first = run(publisher)
    train(project)
    waiting = publisher.decide(publisher.register())
    train(project, seed=3)
    latest = run(publisher)
    with pytest.raises(GliaflowError, match="changed from version 1 to 3"):
        publisher.apply(waiting)
    assert registry.champion().version == 3
    assert registry.decisions() == [latest, first]


# a person decides


@pytest.fixture
def rejected(registry, change_params) -> Publisher:
    """A publisher whose only version was rejected."""
    publisher = open_publisher(change_params(gate={"min_tversky": 0.99}), registry)
    assert run(publisher).verdict == "reject"
    return publisher


@pytest.fixture
def inconclusive(registry, change_params) -> Publisher:
    """A publisher whose only version waits for a person."""
    publisher = open_publisher(change_params(gate={"min_patients": 7}), registry)
    assert run(publisher).verdict == "inconclusive"
    return publisher


def test_an_override_promotes_and_records_reason_and_name(rejected, registry):
    decision = rejected.promote_version(1, override="agreed on 12 May", by="Dr Ada Roe")
    assert (decision.verdict, decision.action) == ("promote", "override")
    assert (decision.why, decision.who) == ("agreed on 12 May", "Dr Ada Roe")
    assert failed_rules(decision) == ["gate"]  # recorded although overridden
    assert sentence(decision, "gate").endswith("was: reject; not passed: test Tversky.")
    assert [reason.rule for reason in decision.reasons] == ["gate", "loads back"]
    assert decision.based_on == 1
    assert registry.champion().version == 1
    assert registry.decisions()[0] == decision


def test_without_an_override_the_gate_decides_and_its_decision_is_recorded(
    rejected, registry, monkeypatch
):
    monkeypatch.setenv("GLIAFLOW_USER", "Bo")
    decision = rejected.promote_version(1)
    assert (decision.verdict, decision.action) == ("reject", "promote")
    assert (decision.why, decision.who) == (None, "Bo")
    assert registry.champion() is None
    assert len(registry.decisions()) == 2


def test_a_name_approves_an_inconclusive_verdict(inconclusive, registry):
    decision = inconclusive.promote_version(1, by="Dr Ada Roe")
    assert (decision.verdict, decision.action, decision.who) == ("promote", "approve", "Dr Ada Roe")
    assert registry.champion().version == 1
    assert run(inconclusive) == decision  # an unchanged retraining repeats it


def test_a_person_may_refuse_an_inconclusive_verdict(inconclusive, registry):
    decision = inconclusive.refuse(1, by="Bo", why="too few patients for us")
    assert (decision.verdict, decision.who) == ("reject", "Bo")
    assert registry.champion() is None
    with pytest.raises(GliaflowError, match="no decision on version 1 waits for a person"):
        inconclusive.approve(1, by="Ada", why="late")


def test_a_rejected_version_cannot_be_approved(rejected, registry):
    with pytest.raises(GliaflowError, match="no decision on version 1 waits"):
        rejected.approve(1, by="Ada", why="I like it")
    assert registry.champion() is None


def test_an_approval_that_nobody_gave_in_time_is_a_rejection(inconclusive, registry, monkeypatch):
    assert inconclusive.expire_approvals() == []
    three_days_later = promotion._now(datetime.timedelta(hours=73))
    monkeypatch.setattr(promotion, "_now", lambda *shift: three_days_later)
    (decision,) = inconclusive.expire_approvals()
    assert (decision.verdict, decision.action) == ("reject", "expire")
    assert "nobody approved it within 72 hours" in decision.reasons[-1].sentence.lower()
    assert inconclusive.expire_approvals() == []
    assert registry.champion() is None


def test_a_policy_of_approval_always_leaves_every_promotion_to_a_person(registry, change_params):
    decision = run(open_publisher(change_params(gate={"approval": "always"}), registry))
    assert (decision.verdict, failed_rules(decision)) == ("inconclusive", ["approval"])


def test_an_unchanged_retraining_does_not_undo_what_a_person_decided(publisher, registry, project):
    run(publisher)
    train(project)
    run(publisher)
    publisher.promote_version(1, override="version 2 misses edges", by="Ada")
    decision = run(publisher)
    assert decision.verdict == "reject"
    assert failed_rules(decision) == ["a person's decision"]
    assert "Ada put version 1 into use" in sentence(decision, "a person's decision")
    assert registry.champion().version == 1
    recorded = len(registry.decisions())
    assert run(publisher) == decision
    assert len(registry.decisions()) == recorded


def test_another_model_is_judged_after_a_person_decided(publisher, registry, project):
    run(publisher)
    train(project)
    run(publisher)
    publisher.promote_version(1, override="version 2 misses edges", by="Ada")
    train(project, seed=3)
    assert run(publisher).verdict == "promote"
    assert registry.champion().version == 3


def test_an_older_version_can_be_promoted_again(publisher, registry, project):
    run(publisher)
    train(project)
    run(publisher)
    decision = publisher.promote_version(1)
    assert (decision.champion.before, decision.champion.after) == (2, 1)
    assert registry.champion().version == 1


def test_a_version_whose_output_is_no_probability_is_not_promoted(rejected, registry, monkeypatch):
    from pipeline.domain import postprocessing

    bad = postprocessing.Segmentation(np.full((1, 32, 32), 1.5), np.ones((1, 32, 32), bool))
    monkeypatch.setattr(postprocessing, "segment_scan", lambda *args, **kwargs: bad)
    with pytest.raises(GliaflowError, match="gives values that are no probabilities"):
        rejected.promote_version(1, override="why not", by="Ada")
    assert registry.champion() is None


def test_an_unknown_version_is_an_error_message(publisher, registry):
    with pytest.raises(GliaflowError, match="no version 7"):
        publisher.promote_version(7)
    assert registry.decisions() == []


# rollback


@pytest.fixture
def three(publisher, registry, project) -> Publisher:
    """A publisher with three versions that were champions one after the other."""
    run(publisher)
    for seed in (2, 3):
        train(project, seed=seed)
        run(publisher)
    assert registry.champion().version == 3
    return publisher


def test_a_rollback_restores_the_champion_before_and_two_go_back_two(three, registry):
    decision = three.rollback(by="Ada", why="misses small tumours")
    assert (decision.action, decision.who, decision.why) == (
        "rollback", "Ada", "misses small tumours",
    )  # fmt: skip
    assert decision.headline == "Rolled back: version 2 is the champion again."
    assert registry.champion().version == 2
    three.rollback()
    assert registry.champion().version == 1


def test_a_version_that_was_rolled_back_is_never_promoted_by_itself(three, registry):
    three.rollback()
    assert registry.version(3).withdrawn is not None
    decision = run(three)  # the model of the work tree is version 3
    assert decision.verdict == "reject"
    assert "not withdrawn" in failed_rules(decision)
    assert three.promote_version(3).verdict == "reject"
    assert registry.champion().version == 2


def test_a_person_may_put_a_withdrawn_version_back(three, registry):
    three.rollback()
    three.promote_version(3, override="it was the scanner", by="Ada")
    assert registry.champion().version == 3
    assert registry.version(3).withdrawn is None


def test_the_first_champion_cannot_be_rolled_back(publisher, registry):
    with pytest.raises(GliaflowError, match="there is no champion to roll back"):
        publisher.rollback()
    run(publisher)
    with pytest.raises(GliaflowError, match="no champion before version 1"):
        publisher.rollback()
    assert registry.champion().version == 1


def test_a_rollback_to_files_that_were_changed_moves_nothing(three, registry):
    registry.changed.add(2)
    with pytest.raises(GliaflowError, match="the files of version 2 were changed"):
        three.rollback()
    assert registry.champion().version == 3


def test_policy_and_post_processing_have_the_values_of_params(project):
    policy = promotion.policy_of(project.params.gate)
    assert (policy.min_tversky, policy.min_tversky_low, policy.min_patients) == (0.6, 0.0, 5)
    post = PostProcessing.from_params(project.params.evaluate)
    assert (post.threshold, post.views, post.keep, post.min_area_px) == (0.5, 1, "all", 0)


def test_ten_promotions_at_once_give_one_order_in_which_each_begins_where_the_last_ended(
    publisher, registry, project
):
    run(publisher)
    train(project)
    run(publisher)
    with ThreadPoolExecutor(10) as pool:
        list(
            pool.map(
                lambda call: publisher.promote_version(1 + call % 2, override="x", by="a"),
                range(10),
            )
        )
    records = registry.decisions()[::-1]
    assert len(records) == 12
    for earlier, later in pairwise(records):
        assert later.champion.before == earlier.champion.after
    assert registry.champion().version == records[-1].champion.after
