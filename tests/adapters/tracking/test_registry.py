"""The model registry against MLflow itself, on SQLite."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest

from pipeline.adapters.model import scan_model
from pipeline.adapters.tracking import decision_log, mlflow_client, registry, training_log, versions
from pipeline.adapters.tracking.registration import VersionContents
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import Version
from pipeline.domain.decisions import Candidate, ChampionChange, DecisionRecord, Score
from pipeline.domain.gate import Policy, Reason
from pipeline.domain.lineage import Lineage
from pipeline.domain.postprocessing import PostProcessing
from pipeline.errors import GliaflowError
from pipeline.network import resunet

SCORE = Score(0.8, 0.7, 0.9, 12)
TRAINING = "c" * 64
POST = PostProcessing(threshold=0.4, views=2, keep="largest", min_area_px=3)
POLICY = Policy(0.9, 0.0, 5, 0.03, 0.1, 5, 20, "inconclusive")


def lineage(weights: str = "5" * 64) -> Lineage:
    return Lineage("1" * 64, "2" * 64, "3" * 64, "4" * 64, weights)


def contents(folder: Path, made: Lineage | None = None) -> VersionContents:
    (folder / "dvc.lock").write_text("a lock")
    return VersionContents(
        lineage=made or lineage(),
        training=TRAINING,
        params={"train.epochs": 2},
        metrics={"test.tversky.mean": 0.8},
        history=pd.DataFrame(
            {"network": [1, 1], "epoch": [1, 2], "loss": [1.0, 0.5], "val_tversky": [0.1, 0.2]}
        ),
        manifest=pd.DataFrame(
            {"patient": ["A", "A", "B"], "slice": [1, 2, 1], "split": ["train", "train", "test"]}
        ),
        artifacts=(folder / "dvc.lock",),
        tags={versions.TVERSKY_TAG: json.dumps(vars(SCORE)), "gliaflow.commit": "abc"},
        network=model(),
        post=POST,
        card="# A model card",
    )


def never() -> Any:
    raise AssertionError("called for a version that is registered")


def record(version: int, **changes: Any) -> DecisionRecord:
    values = {
        "verdict": "reject",
        "reasons": (Reason("test Tversky", "failed", "It is 0.8."),),
        "candidate": Candidate(version, "5fd1a2", SCORE),
        "champion": ChampionChange(None, None),
        "policy": POLICY,
        "when": "2025-01-01T00:00:00+00:00",
        "who": "ci",
    }
    return DecisionRecord(**values | changes)


def decide(opened: Registry, decision: DecisionRecord) -> DecisionRecord:
    """Record a decision as it is."""
    return opened.carry_out(lambda: decision)


def model() -> keras.Model:
    keras.utils.set_random_seed(3)
    return resunet.build(image_size=16, filters=(2, 2, 2, 2, 2), height=16, width=16)


@dataclass(frozen=True)
class Published:
    """A registry with one version, and a client of its database."""

    registry: Registry
    version: Version
    client: mlflow.MlflowClient


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory, mlflow_in: Any) -> Iterator[Any]:
    """The section `register` and a version whose curve the training logged; saving is slow."""
    folder = tmp_path_factory.mktemp("published")
    with mlflow_in(folder) as section:
        with training_log.open_log(section, digest=TRAINING) as log:
            log.rows([{"network": 1, "epoch": 1, "loss": 1.0, "val_tversky": 0.1}])
        opened = Registry(section, folder, lock=folder / "registry.lock")
        yield section, opened.register(lineage().digest, lambda: contents(folder))


@pytest.fixture
def published(first_version: Any, tmp_path: Path, monkeypatch: Any) -> Published:
    section, version = first_version
    monkeypatch.setenv("MLFLOW_TRACKING_URI", section.tracking_uri)
    opened = Registry(section, tmp_path, lock=tmp_path / "registry.lock")
    return Published(opened, version, mlflow.MlflowClient(section.tracking_uri))


@pytest.fixture
def opened(section, tmp_path) -> Registry:
    """An empty registry."""
    return Registry(section, tmp_path, lock=tmp_path / "registry.lock")


# register


def test_a_registered_version_carries_its_lineage_and_its_score(published):
    version = published.version
    assert (version.version, version.aliases) == (1, ())
    assert version.digest == lineage().digest
    assert version.test_tversky == SCORE
    assert {version.tags[f"gliaflow.{name}"] for name in ("code", "weights")} == {
        "1" * 64, "5" * 64,
    }  # fmt: skip
    assert version.tags["gliaflow.commit"] == "abc"


def test_registering_again_gives_the_same_version_and_reads_nothing(published):
    again = published.registry.register(lineage().digest, never)
    assert again.version == published.version.version
    assert again.tags == published.version.tags
    assert len(published.registry.versions()) == 1


def test_the_model_loads_back_with_its_weights_and_post_processing(published):
    complete = scan_model.load(published.registry.verify(published.version))
    assert complete.post == POST
    loaded, expected = complete.network, model()
    pairs = zip(loaded.get_weights(), expected.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    black = np.zeros((1, 16, 16, 3), np.uint8)
    assert np.array_equal(loaded.predict(black, verbose=0), expected.predict(black, verbose=0))


def test_the_run_of_the_training_gets_everything_else(published):
    client, version = published.client, published.version
    run = client.get_run(version.run_id)
    assert len(client.search_runs([run.info.experiment_id])) == 1
    assert run.data.tags[mlflow_client.TRAINING_TAG] == TRAINING
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.epochs": "2"}
    assert run.data.metrics["test.tversky.mean"] == 0.8
    curve = client.get_metric_history(version.run_id, "val_tversky")
    assert [(metric.step, metric.value) for metric in curve] == [(1, 0.1), (2, 0.2)]
    assert [item.path for item in client.list_artifacts(version.run_id)] == ["dvc.lock"]
    assert {data.dataset.name for data in run.inputs.dataset_inputs} == {"train", "test"}


def test_the_champion_is_the_version_with_the_alias(published):
    assert published.registry.champion() is None
    decide(
        published.registry,
        record(1, verdict="promote", champion=ChampionChange(None, 1), action="override"),
    )
    champion = published.registry.champion()
    assert champion is not None
    assert (champion.version, champion.aliases) == (1, ("champion",))


def test_an_unknown_version_is_an_error_that_names_the_known_ones(published):
    assert published.registry.version(1).digest == published.version.digest
    with pytest.raises(GliaflowError, match=r"has no version 7; there are: 1$"):
        published.registry.version(7)


def test_an_empty_registry_has_no_versions(opened):
    assert opened.versions() == []
    assert opened.champion() is None
    with pytest.raises(GliaflowError, match=r"has no version 1; there are: none$"):
        opened.version(1)


def test_nothing_is_registered_if_the_contents_cannot_be_read(opened):
    def missing() -> VersionContents:
        raise GliaflowError("metrics.json does not exist")

    with pytest.raises(GliaflowError, match=r"metrics.json does not exist"):
        opened.register("a digest", missing)
    assert opened.versions() == []


# test Tversky


def version_with(tags: dict[str, str]) -> Version:
    return Version(4, (), tags, "run")


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {versions.TVERSKY_TAG: "{}"},
        {versions.TVERSKY_TAG: "no JSON"},
        {versions.TVERSKY_TAG: "[]"},
        {versions.TVERSKY_TAG: '{"mean": null, "low": 0.1, "high": 0.2, "patients": 3}'},
    ],
    ids=["none", "empty", "no JSON", "a list", "null"],
)
def test_a_version_without_a_readable_test_tversky_is_an_error(tags):
    version = version_with(tags)
    assert version.optional_tversky is None
    with pytest.raises(GliaflowError, match=r"version 4 carries no test Tversky"):
        _ = version.test_tversky


def test_a_version_of_something_else_has_no_digest():
    assert version_with({}).digest == ""


# decisions


def test_decisions_round_trip_newest_first(opened):
    first = record(1)
    second = record(2, why="a reviewer agreed", action="override")
    for decision in (first, second):
        decide(opened, decision)
    assert opened.decisions() == [second, first]


def test_no_decisions_yet_give_an_empty_list_and_create_nothing(opened, client):
    before = len(client.search_experiments())
    assert opened.decisions() == []
    assert len(client.search_experiments()) == before


@pytest.mark.parametrize("value", ["no JSON", "{}", "[]", None])
def test_a_damaged_record_is_an_error_that_names_its_run(opened, client, value):
    decide(opened, record(1))
    (experiment,) = [e for e in client.search_experiments() if e.name.endswith("-decisions")]
    (run,) = client.search_runs([experiment.experiment_id])
    if value is None:
        client.delete_tag(run.info.run_id, decision_log.DECISION_TAG)
    else:
        client.set_tag(run.info.run_id, decision_log.DECISION_TAG, value)
    with pytest.raises(GliaflowError, match=rf"MLflow run {run.info.run_id} cannot be read"):
        opened.decisions()


# errors and users


@pytest.mark.parametrize(
    "action",
    [Registry.versions, Registry.decisions, lambda opened: decide(opened, record(1))],
    ids=["versions", "decisions", "record_decision"],
)
def test_an_unreachable_server_is_an_error_without_its_password(
    unreachable: Callable[..., Any], tmp_path, action
):
    section = unreachable("somebody:secret@")
    opened = Registry(section, tmp_path, lock=tmp_path / "lock")
    with pytest.raises(
        GliaflowError, match=r"^MLflow at http://\*\*\*@127.0.0.1:\d+ refused"
    ) as refused:
        action(opened)
    assert "register.tracking_uri in params.yaml" in str(refused.value)


def test_the_user_is_the_one_in_the_environment_or_the_account(monkeypatch):
    monkeypatch.setenv("GLIAFLOW_USER", "a reviewer")
    assert registry.current_user() == "a reviewer"
    monkeypatch.delenv("GLIAFLOW_USER")
    monkeypatch.setenv("LOGNAME", "account")
    assert registry.current_user() == "account"


# verify


@pytest.fixture
def weights_file(published) -> Iterator[Path]:
    """The file with the weights of the registered model; put back afterwards."""
    (path,) = published.registry.verify(published.version).rglob("*.keras")
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def test_one_flipped_byte_of_the_registered_model_is_noticed_before_it_loads(
    published, weights_file
):
    content = bytearray(weights_file.read_bytes())
    content[len(content) // 2] ^= 1
    weights_file.write_bytes(content)
    with pytest.raises(GliaflowError, match=r"version 1 in .* are not those that were registered"):
        published.registry.verify(published.version)


def test_another_valid_model_in_its_place_is_noticed(published, weights_file):
    keras.utils.set_random_seed(4)
    resunet.build(image_size=16, filters=(2, 2, 2, 2, 2), height=16, width=16).save(weights_file)
    with pytest.raises(GliaflowError, match="are not those that were registered"):
        published.registry.verify(published.version)


def test_a_model_whose_file_is_gone_is_not_loaded(published, weights_file):
    weights_file.unlink()
    with pytest.raises(GliaflowError, match="are not those that were registered"):
        published.registry.verify(published.version)


def test_a_version_without_a_digest_of_its_files_is_not_loaded(published):
    tags = {k: v for k, v in published.version.tags.items() if k != versions.FILES_TAG}
    bare = Version(1, (), tags, published.version.run_id)
    with pytest.raises(GliaflowError, match="version 1 carries no digest of its files"):
        published.registry.verify(bare)


# the database


def test_a_database_that_came_with_a_copied_checkout_is_refused(section, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first, second = tmp_path / "first", tmp_path / "second"
    (first / ".local").mkdir(parents=True)
    section = section.model_copy(update={"tracking_uri": "sqlite:///mlflow.db"})
    Registry(section, first, lock=first / ".local" / "registry.lock")
    shutil.copytree(first, second)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow set it
    with pytest.raises(GliaflowError) as refused:
        Registry(section, second, lock=second / ".local" / "registry.lock")
    assert f"this checkout was copied or moved from {first}, where" in str(refused.value)
    assert "delete mlflow.db and .local/registry.path to start" in str(refused.value)
    (second / ".local" / "registry.path").unlink()
    (second / "mlflow.db").unlink()
    assert Registry(section, second, lock=second / ".local" / "registry.lock").versions() == []


def test_a_database_that_went_missing_is_not_replaced_by_an_empty_one(
    section, tmp_path, monkeypatch
):
    database = tmp_path / "went" / "mlflow.db"
    database.parent.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    Registry(section, tmp_path, lock=tmp_path / "went.lock")
    database.unlink()
    with pytest.raises(GliaflowError, match="was there before and is gone"):
        Registry(section, tmp_path, lock=tmp_path / "went.lock")
    assert not database.exists()
    (tmp_path / "registry.path").unlink()
    assert Registry(section, tmp_path, lock=tmp_path / "went.lock").versions() == []


def test_no_more_than_a_page_of_decisions_is_no_limit(opened, monkeypatch):
    monkeypatch.setattr(mlflow_client, "RUNS_PER_PAGE", 2)
    for version in range(1, 6):
        decide(opened, record(version))
    assert [one.candidate.version for one in opened.decisions()] == [5, 4, 3, 2, 1]
