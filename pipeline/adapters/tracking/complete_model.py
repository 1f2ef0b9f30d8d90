"""Save a complete model in MLflow's format: the Keras flavour, and pyfunc for whole scans.

`save_model` is what `mlflow.models.Model.log` asks of a flavour. The folder then holds the
network, the settings that it was judged with, the code that applies them, and a model card.
"""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.adapters.model import code_copy, scan_model
from pipeline.domain.postprocessing import PostProcessing

if TYPE_CHECKING:
    import keras

CARD_FILE = "README.md"
CODE_FOLDER = "code"
LOADER = "pipeline.adapters.model.scan_model"
# What the copied code imports. MLflow adds itself.
REQUIREMENTS = ("keras", "numpy", "opencv-python-headless", "openvino", "scipy", "tensorflow")


def save_model(
    path: str,
    mlflow_model: Any,
    *,
    network: "keras.Model",
    post: PostProcessing,
    card: str,
) -> None:
    """Write the folder of a complete model.

    Args:
        path: folder, created here.
        mlflow_model: MLflow's description of the model; both flavours are added to it.
        post: the post-processing that the model was judged with.
        card: model card, Markdown.
    """
    import mlflow

    folder = Path(path)
    # Without a signature: MLflow would refuse lists of scans and tables. The code checks input.
    mlflow.keras.save_model(
        network, path, mlflow_model=mlflow_model, pip_requirements=requirements()
    )
    scan_model.write_settings(folder, network, post)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    environment = mlflow_model.flavors["python_function"]["env"]
    mlflow.pyfunc.add_to_model(
        mlflow_model,
        loader_module=code_copy.copy_with_imports(LOADER, folder / CODE_FOLDER),
        code=CODE_FOLDER,
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
    )
    mlflow_model.save(str(folder / "MLmodel"))


def requirements() -> list[str]:
    """Return what the code of a version needs, with the versions of this environment."""
    return [f"{name}=={version(name)}" for name in REQUIREMENTS]
