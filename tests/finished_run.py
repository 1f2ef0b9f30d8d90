"""Makes by hand what a finished run leaves in a checkout: scans, stage files and a model.

Three patients of three slices, 32 x 32 pixels; one is the test patient. The model marks every
pixel as tumour.
"""

from typing import Any

import numpy as np
import pandas as pd
from making import image, mask

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.model import model_files, predictions
from pipeline.adapters.report import html_page
from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import csv_files, json_files

SIDE = 32
SLICES = 3
PATIENTS = {"TCGA_AX_01": "train", "TCGA_BR_02": "validation", "TCGA_CY_03": "test"}
TEST_TVERSKY = {"mean": 0.8, "low": 0.7, "high": 0.9, "patients": 6, "median": 0.8}


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
    """Write what `ingest`, `validate` and `split` write: three patients of three slices."""
    rows = []
    for patient in PATIENTS:
        images = np.stack([image(patient, number) for number in range(1, SLICES + 1)])
        masks = np.stack([mask(5) // 255] * SLICES)
        arrays.save(project.path("scans"), patient, arrays.Scan(images, masks))
        rows += [
            {"patient": patient, "slice": number, "tumour_pixels": 5, "conflict": None}
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
    scores = {"test": {"tversky": TEST_TVERSKY}, "groups": {"site": {"AX": {"tversky": 0.1}}}}
    json_files.write_json(project.path("scores"), scores)
    patients = pd.DataFrame([{"patient": "TCGA_CY_03", "split": "test", "tversky": 0.8}])
    csv_files.write_table(project.path("patients"), patients)
    masks = {"test/TCGA_CY_03": np.ones((SLICES, SIDE, SIDE), bool)}
    predictions.save_masks(project.path("predicted"), masks)
    page = f"<h1>Model</h1>{html_page.SLOT_START}{html_page.SLOT_END}"
    project.path("page").write_text(page)
