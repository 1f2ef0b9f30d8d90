"""What `verify` says of files that cannot be compared, with a fake registry."""

from typing import cast

import pandas as pd
import pytest
from fakes import FakeRegistry

from pipeline.adapters.storage import csv_files
from pipeline.adapters.tracking.registry import Registry
from pipeline.app import publish, verification


@pytest.fixture
def registry(project) -> FakeRegistry:
    registry = FakeRegistry()
    publish.register(project, cast(Registry, registry))
    return registry


def parts(project, registry) -> dict[str, verification.Part]:
    found = verification.verify(project, cast(Registry, registry), registry.version(1))
    return {part.name: part for part in found}


def test_a_manifest_without_digests_of_scans_proves_nothing(project, registry):
    scans = parts(project, registry)["scans"]
    assert scans.state == "missing"


def test_a_damaged_dvc_lock_is_said_and_no_traceback(project, registry):
    path = registry.artifact(registry.version(1), "manifest.csv")
    table = csv_files.read_table(path).assign(
        file="a.tif", mask_file="b.tif", sha256="0", mask_sha256="0"
    )
    csv_files.write_table(path, pd.DataFrame(table))
    registry.artifact(registry.version(1), "dvc.lock").write_text("stages: {}\n")
    scans = parts(project, registry)["scans"]
    assert scans.state == "missing"
    assert "does not say which scans the version was built from" in scans.detail


def test_changed_artifacts_are_different_and_others_the_same(project, registry):
    registry.artifact(registry.version(1), "splits.csv").write_text("patient,split\n")
    found = {name: part.state for name, part in parts(project, registry).items()}
    assert found["split"] == "different"
    assert found["weights"] == found["manifest"] == found["params"] == found["code"] == "same"
