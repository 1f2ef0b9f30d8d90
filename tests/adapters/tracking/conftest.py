import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import mlflow
import pytest
from making import parameters

from pipeline.params import Register

MlflowIn = Callable[[Path], AbstractContextManager[Register]]


@pytest.fixture(scope="session")
def mlflow_in(tmp_path_factory: pytest.TempPathFactory) -> MlflowIn:
    """Return a context manager that puts a new MLflow database and its artifacts into a folder.

    It yields the section `register` for the database.
    """
    template = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    # Creating the tables takes seconds: it is done once.
    mlflow.MlflowClient(f"sqlite:///{template}").search_registered_models()
    return partial(_copy_of, template)


@contextmanager
def _copy_of(template: Path, folder: Path) -> Iterator[Register]:
    shutil.copy(template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow puts artifacts into ./mlruns
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it: restored at the end
        section = parameters().register_
        yield section.model_copy(update={"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"})
        mlflow.set_tracking_uri(None)


@pytest.fixture
def section(tmp_path, mlflow_in) -> Iterator[Register]:
    """The section `register` for a new MLflow database."""
    with mlflow_in(tmp_path) as register:
        yield register


@pytest.fixture
def client(section) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(section.tracking_uri)


@pytest.fixture
def unreachable(section, monkeypatch) -> Callable[..., Register]:
    """Return the section `register` for a port of this machine that nothing listens on."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # by default it retries for minutes

    def at(user: str = "") -> Register:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        return section.model_copy(update={"tracking_uri": f"http://{user}127.0.0.1:{port}"})

    return at
