from typing import Any

import pytest

from pipeline.adapters.tracking import mlflow_client
from pipeline.errors import GliaflowError


@pytest.fixture
def run_id(client, section) -> str:
    experiment = mlflow_client.experiment_id(client, section.experiment)
    return client.create_run(experiment).info.run_id


def row(epoch: int, tversky: float, *, network: int = 1) -> dict[str, Any]:
    return {"network": network, "epoch": epoch, "loss": 1.0 / epoch, "val_tversky": tversky}


def curve(client: Any, run_id: str, name: str = "val_tversky") -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]


def test_the_environment_overrides_the_address_in_params_yaml(section, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert mlflow_client.tracking_uri(section, tmp_path) == section.tracking_uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    assert mlflow_client.tracking_uri(section, tmp_path) == "http://mlflow.example"


def test_epochs_are_the_steps_of_a_curve(client, run_id):
    mlflow_client.log_epochs(client, run_id, [row(1, 0.5), row(2, 0.6)])
    assert curve(client, run_id) == [(1, 0.5), (2, 0.6)]
    assert curve(client, run_id, "loss") == [(1, 1.0), (2, 0.5)]
    assert set(client.get_run(run_id).data.metrics) == {"loss", "val_tversky"}


def test_an_epoch_is_logged_once(client, run_id):
    mlflow_client.log_epochs(client, run_id, [row(1, 0.5), row(2, 0.6)])
    mlflow_client.log_epochs(client, run_id, [row(1, 0.5), row(2, 0.6), row(3, 0.7, network=2)])
    assert curve(client, run_id) == [(1, 0.5), (2, 0.6), (3, 0.7)]


def test_more_values_than_mlflow_takes_at_once_are_all_logged(client, run_id):
    mlflow_client.log_epochs(client, run_id, [row(epoch, 0.5) for epoch in range(1, 602)])
    assert [step for step, _ in curve(client, run_id)] == list(range(1, 602))


def test_an_experiment_is_created_once(client, section):
    first = mlflow_client.experiment_id(client, section.experiment)
    assert mlflow_client.experiment_id(client, section.experiment) == first
    assert mlflow_client.experiment_id(client, "another") != first


def test_the_newest_run_with_a_tag_is_found(client, section):
    experiment = mlflow_client.experiment_id(client, section.experiment)
    runs = [
        client.create_run(experiment, tags={"a.tag": value}, start_time=start)
        for start, value in enumerate(("right", "right", "wrong"), start=1)
    ]
    newest = mlflow_client.find_run(client, section.experiment, "a.tag", "right")
    assert newest.info.run_id == runs[1].info.run_id


def test_no_run_with_a_tag_gives_none(client, section):
    assert mlflow_client.find_run(client, section.experiment, "a.tag", "right") is None


def test_a_relative_sqlite_path_means_the_same_file_from_everywhere(section, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    relative = section.model_copy(update={"tracking_uri": "sqlite:///mlflow.db"})
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    uri = mlflow_client.tracking_uri(relative, tmp_path)
    assert uri == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_new_database_is_readable_by_its_owner_alone(tmp_path):
    mlflow_client.prepare(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no database at all, but long enough", "is not a SQLite database"),
        (b"SQLite format 3\0" + b"\xff" * 4096, "is damaged"),
    ],
)
def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path, content, expected):
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(GliaflowError, match=expected):
        mlflow_client.prepare(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_folder_in_place_of_the_database_is_refused(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(GliaflowError, match=r"mlflow\.db is a folder"):
        mlflow_client.prepare(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_a_database_in_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(GliaflowError, match="in a folder that exists"):
        mlflow_client.prepare(f"sqlite:///{tmp_path / 'gone' / 'mlflow.db'}")
