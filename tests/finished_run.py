"""Makes by hand what a finished run leaves in a checkout: scans, stage files and a model.

Eight patients of three slices, 32 x 32 pixels; six are test patients of two sites. The model
marks every pixel as tumour, and most pixels are.
"""

from typing import Any

import numpy as np
import pandas as pd
from making import image, mask

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import model_files
from pipeline.adapters.report import html_page
from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import csv_files
from pipeline.domain import recall
from pipeline.stages import evaluate

SIDE = 32
SLICES = 3
TEST_PATIENTS = {
    "TCGA_CY_03": 1000, "TCGA_CY_04": 980, "TCGA_CY_05": 960,
    "TCGA_DA_06": 940, "TCGA_DA_07": 920, "TCGA_DA_08": 900,
}  # fmt: skip  # to the tumour pixels of each slice, of 1024
TUMOUR_PIXELS = {"TCGA_AX_01": 1000, "TCGA_BR_02": 900} | TEST_PATIENTS
PATIENTS = {"TCGA_AX_01": "train", "TCGA_BR_02": "validation"} | dict.fromkeys(
    TEST_PATIENTS, "test"
)
# Tversky of a patient if every pixel is predicted: TP / (TP + 0.3 FP); their mean, by hand.
TEST_MEAN = 0.976892


def build_model(*, is_tumour: bool, seed: int = 1) -> Any:
    """Build a tiny ResUNet with random weights that marks every pixel as tumour, or none.

    Its last layer ignores its input: the probability is sigmoid(10) or sigmoid(-10).
    """
    import keras

    from pipeline.network import resunet

    keras.utils.set_random_seed(seed)
    model = resunet.build(image_size=SIDE, filters=(4, 4, 8, 8, 8), height=SIDE, width=SIDE)
    output = model.get_layer("probability")
    kernel, bias = output.get_weights()
    output.set_weights([np.zeros_like(kernel), np.full_like(bias, 10 if is_tumour else -10)])
    return model


def write_scans(project: Project) -> None:
    """Write what `ingest`, `validate` and `split` write."""
    rows = []
    for patient, pixels in TUMOUR_PIXELS.items():
        images = np.stack([image(patient, number) for number in range(1, SLICES + 1)])
        masks = np.stack([mask(pixels) // 255] * SLICES)
        arrays.save(project.path("scans"), patient, arrays.Scan(images, masks))
        rows += [
            {
                "patient": patient,
                "site": patient.split("_")[1],
                "slice": number,
                "tumour_pixels": pixels,
                "missing": None,
                "conflict": None,
            }
            for number in range(1, SLICES + 1)
        ]
    csv_files.write_table(project.path("manifest"), pd.DataFrame(rows))
    quarantine = pd.DataFrame(columns=["patient", "rule", "file"])
    csv_files.write_table(project.path("quarantine"), quarantine)
    splits = pd.DataFrame(PATIENTS.items(), columns=["patient", "split"])
    csv_files.write_table(project.path("splits"), splits)


def write_results(project: Project) -> None:
    """Write what `train`, `evaluate` and `report` write."""
    model_files.save_model(build_model(is_tumour=True), project.path("model"))
    history = pd.DataFrame([{"network": 1, "epoch": 1, "loss": 0.5, "val_tversky": 0.8}])
    csv_files.write_table(project.path("history"), history)
    write_evaluation(project)
    page = f"<h1>Model</h1>{html_page.SLOT_START}{html_page.SLOT_END}"
    project.path("page").write_text(page)
    (project.root / "dvc.lock").write_text("a lock")
    csv_files.write_table(project.path("recalled"), pd.DataFrame(columns=recall.COLUMNS))


def write_evaluation(project: Project) -> None:
    """Evaluate the model of the checkout, as the stage does."""
    names = (
        "scans", "manifest", "quarantine", "splits", "model", "scores", "patients", "predicted",
    )  # fmt: skip
    evaluate.run(project.params, **{name: project.path(name) for name in names})
