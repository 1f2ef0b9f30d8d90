"""Withdraw a patient, with a fake registry and real stage files."""

from typing import cast

import finished_run
import pytest
from fakes import FakeRegistry

from pipeline.adapters.storage import recall_list
from pipeline.adapters.tracking.registry import Registry
from pipeline.app import recall
from pipeline.app.promotion import Publisher
from pipeline.errors import GliaflowError

TRAINED, TESTED = "TCGA_AX_01", "TCGA_CY_03"


@pytest.fixture
def registry(project) -> FakeRegistry:
    """A registry whose only version is the champion."""
    registry = FakeRegistry()
    publisher = Publisher(project, cast(Registry, registry))
    publisher.apply(publisher.decide(publisher.register()))
    return registry


def call(project, registry, patient: str) -> recall.Trace:
    return recall.recall(
        project, cast(Registry, registry), patient, by="Ada", why="consent withdrawn"
    )


def faults(project, registry) -> list[str]:
    return recall.faults(project, cast(Registry, registry))


def test_a_recalled_training_patient_withdraws_every_version_that_was_trained_on_it(
    project, registry
):
    found = call(project, registry, TRAINED)
    assert found.split == "train"
    assert [str(version) for version in found.versions] == ["version 1 (the champion): train"]
    assert found.decisions == (1,)
    assert "trained on TCGA_AX_01" in registry.version(1).withdrawn


def test_a_recalled_test_patient_marks_versions_but_withdraws_none(project, registry):
    found = call(project, registry, TESTED)
    assert found.versions[0].splits == ("test",)
    assert found.decisions == (1,)
    assert registry.version(1).withdrawn is None
    assert registry.version(1).tags["gliaflow.recalled"] == TESTED


def test_the_list_says_who_when_and_why_and_holds_a_patient_once(project, registry):
    call(project, registry, TRAINED)
    call(project, registry, TRAINED)
    table = recall_list.read(project.path("recalled"))
    assert list(table.patient) == [TRAINED]
    assert (table.who[0], table.why[0]) == ("Ada", "consent withdrawn")


def test_the_check_fails_while_the_champion_was_trained_on_a_recalled_patient(project, registry):
    assert faults(project, registry) == []
    call(project, registry, TESTED)
    assert faults(project, registry) == []
    call(project, registry, TRAINED)
    (fault,) = faults(project, registry)
    assert "version 1, was trained on TCGA_AX_01 (train), who is recalled" in fault


def test_folders_with_the_patients_files_are_listed(project, registry):
    (project.path("incoming") / "june" / TRAINED).mkdir(parents=True)
    assert call(project, registry, TRAINED).folders == (f"data/incoming/june/{TRAINED}",)


def test_a_patient_nobody_knows_is_an_error_and_nothing_changes(project, registry):
    before = project.path("recalled").read_text()
    with pytest.raises(GliaflowError, match="TCGA_XX_99 is in no batch, split or version"):
        call(project, registry, "TCGA_XX_99")
    assert project.path("recalled").read_text() == before


def test_showing_what_a_patient_touched_changes_nothing(project, registry):
    recall.trace(project, cast(Registry, registry), TRAINED)
    assert registry.version(1).withdrawn is None
    assert recall_list.read(project.path("recalled")).empty


def test_a_list_with_other_columns_is_an_error(project, registry):
    project.path("recalled").write_text("name\n")
    with pytest.raises(GliaflowError, match="has the columns name; expected patient, when"):
        faults(project, registry)


def test_every_patient_of_the_finished_run_has_a_split():
    assert {TRAINED, TESTED} <= set(finished_run.PATIENTS)
