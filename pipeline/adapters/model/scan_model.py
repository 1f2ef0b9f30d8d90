"""A model complete with what it was judged with: scans in, masks and probabilities out.

The folder of a registered version holds the network, `scan_model.json` and a copy of this code.
`_load_pyfunc` is MLflow's entry point. S slices of H x W pixels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.adapters.model import model_files, predictors
from pipeline.adapters.scans import image_files
from pipeline.domain import postprocessing
from pipeline.domain.postprocessing import PostProcessing, Segmentation
from pipeline.domain.test_time_augmentation import Predictor
from pipeline.errors import GliaflowError

if TYPE_CHECKING:
    import keras
    import pandas as pd

SETTINGS_FILE = "scan_model.json"
NETWORK_FILE = Path("data/model.keras")  # where MLflow's Keras flavour keeps it
FORMAT = 1
# What a network cannot say of itself; written beside its settings for people and programs.
DESCRIPTION = {
    "channels": ["pre-contrast", "FLAIR", "post-contrast"],
    "input": "uint8 in [0, 255], (slices, height, width, 3), all slices of a scan in order",
    "mask": "uint8 (slices, height, width): 0 background, 1 tumour; areas in pixels",
    "probability": "float32 (slices, height, width) in [0, 1], before post-processing",
}


@dataclass(frozen=True)
class ScanModel:
    """A network with the post-processing that it was judged with.

    network: the Keras model; its name determines the scale of intensities.
    predict_slices: predicts with it as `evaluate` does.
    """

    network: Any
    predict_slices: Predictor
    post: PostProcessing

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of a slice."""
        height, width, channels = self.network.inputs[0].shape[1:]
        return int(height), int(width), int(channels)

    def segment(self, images: np.ndarray, positions: np.ndarray | None = None) -> Segmentation:
        """Segment a scan.

        Args:
            images: (S, H, W, 3) uint8, all slices of the scan in order.
            positions: indices of the slices to segment; None: all.
        """
        return postprocessing.segment_scan(
            self.predict_slices,
            images,
            self.post,
            model_name=self.network.name,
            positions=positions,
        )

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Segment what MLflow passes on.

        Args:
            model_input: a scan, (S, H, W, 3) with integers from 0 to 255; a list of scans; or a
                table with a column `file`, the slices of each scan in order, and a column
                `patient` if there are several.
            params: none are known.

        Returns:
            `{"mask": (S, H, W) uint8, "probability": (S, H, W) float32}`, or a list of these;
            for a table they also have `patient`.

        Raises:
            GliaflowError: the input is none of these, or a file does not decode.
        """
        if hasattr(model_input, "columns"):
            return [self._answer(scan) | {"patient": p} for p, scan in _read_table(model_input)]
        if isinstance(model_input, (list, tuple)) or np.ndim(model_input) == 5:
            return [self._answer(scan) for scan in model_input]
        return self._answer(model_input)

    def _answer(self, scan: Any) -> dict[str, Any]:
        segmented = self.segment(self._checked(np.asarray(scan)))
        return {
            "mask": segmented.mask.astype(np.uint8),
            "probability": segmented.probability.astype(np.float32),
        }

    def _checked(self, scan: np.ndarray) -> np.ndarray:
        """Return a scan as uint8; refuse other shapes and values."""
        if scan.ndim != 4 or scan.shape[1:] != self.shape or not len(scan):
            raise GliaflowError(
                f"the input has shape {scan.shape}; expected a scan (slices, "
                f"{', '.join(map(str, self.shape))}), a list of scans, or a table with a column "
                "`file`"
            )
        if scan.dtype == np.uint8:
            return scan
        if not np.issubdtype(scan.dtype, np.integer) or scan.min() < 0 or scan.max() > 255:
            raise GliaflowError(
                f"the scan holds {scan.dtype} from {scan.min()} to {scan.max()}; expected integers "
                "from 0 to 255, as decoded from the images"
            )
        return scan.astype(np.uint8)


def load(folder: Path) -> ScanModel:
    """Load a complete model from the folder of a registered version.

    Raises:
        GliaflowError: the settings are missing or damaged, or the network does not load.
    """
    post = read_settings(folder)
    network = model_files.load_model(folder / NETWORK_FILE)
    return ScanModel(network, predictors.reference_predictor(network), post)


def read_settings(folder: Path) -> PostProcessing:
    """Read the post-processing that a version was judged with.

    Raises:
        GliaflowError: the file is missing or damaged.
    """
    path = folder / SETTINGS_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        return PostProcessing(**values["post_processing"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GliaflowError(
            f"{path} does not say how the model was judged ({error}); expected a version that this "
            "release registered: register the model again with `gliaflow run`"
        ) from error


def write_settings(folder: Path, network: "keras.Model", post: PostProcessing) -> None:
    """Write `scan_model.json`."""
    height, width, _ = network.inputs[0].shape[1:]
    values = {
        "format": FORMAT,
        "network": network.name,
        "height_px": height,
        "width_px": width,
        "post_processing": asdict(post),
        **DESCRIPTION,
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _read_table(table: "pd.DataFrame") -> list[tuple[str, np.ndarray]]:
    """Read the scans of a table of file names: patient and (S, H, W, 3) of each."""
    if "file" not in table.columns:
        raise GliaflowError(
            f"the table has the columns {', '.join(map(str, table.columns))}; expected `file`, and "
            "`patient` if it lists several scans"
        )
    patients = table["patient"] if "patient" in table.columns else [""] * len(table)
    files_of: dict[str, list[str]] = {}
    for patient, file in zip(patients, table["file"], strict=True):
        files_of.setdefault(str(patient), []).append(str(file))
    return [(patient, _read_scan(names)) for patient, names in files_of.items()]


def _read_scan(names: Sequence[str]) -> np.ndarray:
    slices = [_read_slice(Path(name)) for name in names]
    shapes = {image.shape for image in slices}
    if len(shapes) > 1:
        raise GliaflowError(f"{names[0]} and others have the sizes {sorted(shapes)}; expected one")
    return np.stack(slices)


def _read_slice(path: Path) -> np.ndarray:
    try:
        return image_files.decode_image(path.read_bytes())
    except (OSError, ValueError) as error:
        raise GliaflowError(f"{path} cannot be read as a slice: {error}") from error


def _load_pyfunc(path: str) -> "_Served":
    """Load a version for MLflow, from its folder."""
    return _Served(load(Path(path)))


class _Served:
    """A complete model as MLflow calls it: errors of the input are MLflow's bad requests."""

    def __init__(self, model: ScanModel):
        self._model = model

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """See `ScanModel.predict`."""
        from mlflow.exceptions import MlflowException

        try:
            return self._model.predict(model_input, params)
        except GliaflowError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
