"""Register a model in MLflow: its run, its complete model, and the version with all its tags."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.adapters.storage import files
from pipeline.adapters.tracking import complete_model, mlflow_client
from pipeline.adapters.tracking.versions import DIGEST_TAG, FILES_TAG
from pipeline.domain import lineage
from pipeline.domain.lineage import Lineage
from pipeline.domain.postprocessing import PostProcessing

if TYPE_CHECKING:
    import keras

WRITTEN_BY_DOWNLOADS = "registered_model_meta"  # MLflow adds it to a folder it hands out
CODE_CACHE = "__pycache__"  # Python adds it to the code of a model that was loaded


@dataclass(frozen=True)
class VersionContents:
    """Everything that a version is registered with.

    training: digest of the training, which names its MLflow run.
    params, metrics: flat, by dotted name.
    history, manifest: tables as the stages wrote them; manifest with a column `split`.
    artifacts: files to store. tags: of the version, beside its lineage.
    network: the Keras model. post: the post-processing that it was judged with. card: its model
    card, Markdown.
    """

    lineage: Lineage
    training: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: pd.DataFrame
    manifest: pd.DataFrame
    artifacts: tuple[Path, ...]
    tags: Mapping[str, str]
    network: "keras.Model"
    post: PostProcessing
    card: str


def log_version(client: Any, contents: VersionContents, *, model: str, experiment: str) -> None:
    """Log the run of a training and its model, and register the model as a new version.

    Args:
        model: name of the registered model.
    """
    import mlflow
    from mlflow.models import Model

    run_id = _log_run(client, experiment, contents)
    with mlflow.start_run(run_id=run_id):
        logged = Model.log(
            artifact_path=None,
            name=model,
            flavor=complete_model,
            network=contents.network,
            post=contents.post,
            card=contents.card,
        )
    if not client.search_registered_models(f"name='{model}'"):
        client.create_registered_model(model)
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=logged.model_uri))
    # Last: a version then appears with its model and all its tags, or not at all.
    client.create_model_version(
        model,
        source=logged.model_uri,
        run_id=run_id,
        model_id=logged.model_id,
        description=contents.card,
        tags={
            DIGEST_TAG: contents.lineage.digest,
            FILES_TAG: files_digest(folder),
            **{f"gliaflow.{k}": v for k, v in asdict(contents.lineage).items()},
            **contents.tags,
        },
    )


def _log_run(client: Any, experiment: str, contents: VersionContents) -> str:
    """Log everything but the model to the MLflow run of the training; return the run's id.

    A new run is created if the training logged none, or its run belongs to another version.
    """
    digest = contents.lineage.digest
    run = mlflow_client.find_run(client, experiment, mlflow_client.TRAINING_TAG, contents.training)
    if run is None or run.data.tags.get(DIGEST_TAG, digest) != digest:
        run = client.create_run(
            mlflow_client.experiment_id(client, experiment),
            tags={mlflow_client.TRAINING_TAG: contents.training},
        )
    run_id: str = run.info.run_id
    client.set_tag(run_id, DIGEST_TAG, digest)
    client.update_run(run_id, name=f"model {digest[:8]}")
    for name, value in contents.params.items():
        client.log_param(run_id, name, value)
    for name, value in contents.metrics.items():
        client.log_metric(run_id, name, value)
    mlflow_client.log_epochs(client, run_id, contents.history.to_dict("records"))
    for path in contents.artifacts:
        client.log_artifact(run_id, str(path))
    _log_inputs(client, run_id, contents)
    return run_id


def _log_inputs(client: Any, run_id: str, contents: VersionContents) -> None:
    """Log the slices of each split as an input data set of a run."""
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import DatasetInput, InputTag

    inputs = []
    for split, rows in contents.manifest.groupby("split"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about integer columns
            data = from_pandas(
                rows.drop(columns="split"),
                source="data/manifest.csv",
                name=str(split),
                digest=contents.lineage.data[:16],
            )
            entity = data._to_mlflow_entity()
        inputs.append(DatasetInput(entity, [InputTag("mlflow.data.context", str(split))]))
    client.log_inputs(run_id, inputs)


def files_digest(folder: Path) -> str:
    """Digest of the names and contents of all files of a registered model."""
    names = {
        path.relative_to(folder).as_posix(): files.sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != WRITTEN_BY_DOWNLOADS and CODE_CACHE not in path.parts
    }
    return lineage.digest_of_mapping(names)
