"""From a folder of scans to masks, with a model whose output is known: every pixel is tumour."""

import cv2
import finished_run
import keras
import numpy as np
import pandas as pd
import pytest
from fakes import FakeRegistry
from making import image, mask, write_patient, write_tif

from pipeline.adapters.scans.image_files import decode_image
from pipeline.adapters.tracking.registry import Version
from pipeline.app import prediction
from pipeline.errors import GliaflowError

PIXELS = finished_run.SIDE**2


@pytest.fixture
def scans(tmp_path):
    """Two patients of three slices: one with masks (5 tumour pixels in two slices), one without."""
    folder = tmp_path / "scans"
    write_patient(folder / "TCGA_AX_01", tumour_pixels=5)
    without_masks = write_patient(folder / "TCGA_BR_02")
    for path in without_masks.glob("*_mask.tif"):
        path.unlink()
    return folder


@pytest.fixture
def predict(project, scans, tmp_path):
    """A function that predicts the scans with the model of the checkout into `out`."""
    model = project.path("model")

    def call(folder=scans, *, model_file=model, overlays=False, exact=False) -> str:
        return prediction.predict_folder(
            project, folder, tmp_path / "out",
            model_file=model_file, overlays=overlays, exact=exact,
        )  # fmt: skip

    return call


def read(path) -> pd.DataFrame:
    return pd.read_csv(path)


def test_every_slice_gets_a_mask_of_its_size_with_values_0_and_255(predict, tmp_path):
    predict()
    for patient in ("TCGA_AX_01", "TCGA_BR_02"):
        names = sorted(path.name for path in (tmp_path / "out" / patient).iterdir())
        assert names == [f"{patient}_{number}_mask.tif" for number in (1, 2, 3)]
        for name in names:
            pixels = decode_image((tmp_path / "out" / patient / name).read_bytes())
            assert pixels.shape == (finished_run.SIDE, finished_run.SIDE)
            assert (pixels == 255).all()


def test_slices_csv_counts_tumour_pixels_and_names_the_files(predict, tmp_path):
    predict()
    slices = read(tmp_path / "out/slices.csv")
    assert list(slices.columns) == ["patient", "slice", "file", "tumour_pixels", "true_pixels"]
    assert len(slices) == 6
    assert set(slices.tumour_pixels) == {PIXELS}
    first = slices[slices.patient == "TCGA_AX_01"]
    assert list(first.true_pixels) == [0, 5, 5]
    assert list(first.file) == [f"TCGA_AX_01/TCGA_AX_01_{number}.tif" for number in (1, 2, 3)]
    assert slices[slices.patient == "TCGA_BR_02"].true_pixels.isna().all()


def test_patients_csv_has_scores_only_for_patients_with_masks(predict, tmp_path):
    predict()
    with_masks, without = read(tmp_path / "out/patients.csv").to_dict("records")
    assert (with_masks["slices"], with_masks["tumour_slices"]) == (3, 3)
    assert with_masks["tumour_pixels"] == without["tumour_pixels"] == 3 * PIXELS
    assert with_masks["true_pixels"] == 10
    # TP = 10, FN = 0, FP = 3 * 1024 - 10 = 3062
    assert with_masks["dice"] == pytest.approx(20 / (20 + 3062), abs=1e-6)
    assert with_masks["tversky"] == pytest.approx(10 / (10 + 0.3 * 3062), abs=1e-6)
    assert np.isnan(without["dice"]) and np.isnan(without["tversky"])


def test_the_summary_counts_patients_and_slices_and_names_the_model(predict, project):
    summary = predict()
    assert summary.startswith("2 patients, 6 slices, 6 with tumour")
    assert f"predicted by {project.path('model')}" in summary
    assert "0.0000% of pixels differ from Keras" in summary
    assert "Not for clinical use." in summary
    assert "could not be read" not in summary


def test_the_folder_may_be_of_one_patient(predict, scans, tmp_path):
    predict(scans / "TCGA_BR_02")
    assert list(read(tmp_path / "out/patients.csv").patient) == ["TCGA_BR_02"]


def test_overlays_are_images_of_every_slice(predict, tmp_path):
    predict(overlays=True)
    paths = sorted((tmp_path / "out/overlays/TCGA_AX_01").iterdir())
    assert [path.name for path in paths] == [f"TCGA_AX_01_{number}.png" for number in (1, 2, 3)]
    assert cv2.imread(str(paths[0])) is not None


def test_without_overlays_no_folder_is_made_for_them(predict, tmp_path):
    predict(overlays=False)
    assert not (tmp_path / "out/overlays").exists()


def test_exact_masks_do_not_differ_from_keras_in_any_pixel(predict, tmp_path):
    assert "0.0000% of pixels differ from Keras" in predict(exact=True)
    assert set(read(tmp_path / "out/slices.csv").tumour_pixels) == {PIXELS}


def test_a_second_call_uses_the_cached_runtime_and_gives_the_same_masks(
    predict, scans, project, tmp_path
):
    predict()
    masks = {path.name: path.read_bytes() for path in tmp_path.glob("out/TCGA*/*.tif")}
    (tmp_path / "out").rename(tmp_path / "first")
    assert len(list(project.local.runtimes.iterdir())) == 1
    predict()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("out/TCGA*/*.tif")} == masks


# what is refused


def write_broken_patients(scans) -> None:
    """One patient per fault."""
    corrupt = write_patient(scans / "TCGA_CO_03")
    (corrupt / "TCGA_CO_03_2.tif").write_bytes(b"not a tif")
    small = write_patient(scans / "TCGA_SM_04", size_px=16)
    assert len(list(small.iterdir())) == 6
    misnamed = write_patient(scans / "TCGA_MI_05")
    (misnamed / "TCGA_MI_05_1.tif").rename(misnamed / "TCGA_AX_01_9.tif")
    orphan = write_patient(scans / "TCGA_OR_06")
    (orphan / "TCGA_OR_06_3.tif").unlink()


def test_a_patient_that_cannot_be_read_is_named_with_file_and_fault(predict, scans, tmp_path):
    write_broken_patients(scans)
    summary = predict()
    assert "4 patients could not be read" in summary
    assert set(read(tmp_path / "out/patients.csv").patient) == {"TCGA_AX_01", "TCGA_BR_02"}
    refused = read(tmp_path / "out/refused.csv")
    assert list(refused.columns) == ["patient", "file", "found", "expected"]
    assert set(refused.expected) == {"32x32x3 uint8, one image per slice number"}
    faults = {(row.file, row.found) for row in refused.itertuples()}
    assert {
        ("TCGA_CO_03/TCGA_CO_03_2.tif", "image: it is no TIFF file (it begins with b'not ')"),
        *((f"TCGA_SM_04/TCGA_SM_04_{number}.tif", "16x16x3 uint8") for number in (1, 2, 3)),
        ("TCGA_MI_05/TCGA_AX_01_9.tif", "the name does not match its folder"),
        ("TCGA_OR_06/TCGA_OR_06_3_mask.tif", "a mask without an image"),
    } <= faults


def test_a_second_image_of_a_slice_number_is_a_fault(predict, scans, tmp_path):
    folder = scans / "more" / "TCGA_BR_02"
    folder.mkdir(parents=True)
    write_tif(folder / "TCGA_BR_02_1.tif", image("another", 1))
    predict()
    assert list(read(tmp_path / "out/patients.csv").patient) == ["TCGA_AX_01"]
    refused = read(tmp_path / "out/refused.csv")
    assert set(refused.patient) == {"TCGA_BR_02"}
    assert refused.found.str.contains("twice").any()


def test_masks_may_be_missing_for_some_slices_only(predict, scans, tmp_path):
    write_tif(scans / "TCGA_BR_02/TCGA_BR_02_2_mask.tif", mask(7))
    predict()
    slices = read(tmp_path / "out/slices.csv")
    partial = slices[slices.patient == "TCGA_BR_02"]
    assert partial.true_pixels.isna().sum() == 2
    assert np.isnan(read(tmp_path / "out/patients.csv").dice[1])


def test_no_readable_patient_is_an_error_that_points_to_refused_csv(predict, tmp_path):
    folder = tmp_path / "broken"
    write_patient(folder / "TCGA_SM_04", size_px=16)
    with pytest.raises(GliaflowError, match=r"no patient of .*refused\.csv"):
        predict(folder)
    assert len(read(tmp_path / "out/refused.csv")) == 3
    assert not (tmp_path / "out/patients.csv").exists()


def test_out_must_be_new_or_empty(predict, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("keep")
    with pytest.raises(GliaflowError, match="not empty"):
        predict()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_out_may_be_an_empty_folder(predict, tmp_path):
    (tmp_path / "out").mkdir()
    predict()
    assert (tmp_path / "out/patients.csv").exists()


def test_out_must_not_be_a_file(predict, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(GliaflowError, match="--out"):
        predict()


def test_a_folder_without_tif_is_an_error_message(predict, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(GliaflowError, match="no tif"):
        predict(tmp_path / "empty")


def test_a_missing_folder_is_an_error_message(predict, tmp_path):
    with pytest.raises(GliaflowError, match="not a folder"):
        predict(tmp_path / "missing")


def test_a_missing_model_file_is_an_error_message(predict, tmp_path):
    with pytest.raises(GliaflowError, match=r"missing\.keras"):
        predict(model_file=tmp_path / "missing.keras")


# the champion


def test_without_a_champion_the_message_says_how_to_get_one(predict, monkeypatch, tmp_path):
    monkeypatch.setattr(prediction, "open_registry", lambda project: FakeRegistry())
    with pytest.raises(GliaflowError, match=r"no champion yet.*gliaflow run.*--model"):
        predict(model_file=None)
    assert not (tmp_path / "out").exists()


def test_without_a_file_the_champion_predicts(predict, monkeypatch, project, tmp_path):
    class OneVersion(FakeRegistry):
        def champion(self) -> Version:
            return Version(4, ("champion",), {"gliaflow.digest": "ab" * 32}, "run")

        def load(self, version: Version) -> object:
            assert version.version == 4
            return finished_run.build_model(is_tumour=False)

    monkeypatch.setattr(prediction, "open_registry", lambda project: OneVersion())
    summary = predict(model_file=None)
    assert "0 with tumour predicted by version 4" in summary
    assert set(read(tmp_path / "out/slices.csv").tumour_pixels) == {0}
    assert (project.local.runtimes / ("ab" * 8)).is_dir()


@pytest.mark.parametrize("name", ["slices.csv", "patients.csv", "refused.csv", "overlays"])
def test_a_patient_called_like_a_file_of_the_output_is_refused_before_anything_is_written(
    predict, scans, tmp_path, name
):
    write_patient(scans / name)
    with pytest.raises(GliaflowError, match=f"called {name}, as a file or folder of the output"):
        predict()
    assert not (tmp_path / "out").exists()


def test_files_that_macos_adds_beside_slices_are_left_out(predict, scans):
    (scans / "TCGA_AX_01" / "._TCGA_AX_01_1.tif").write_bytes(b"macOS")
    assert predict().startswith("2 patients, 6 slices")


def test_a_folder_below_a_file_is_no_place_for_the_output(project, scans, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GliaflowError, match="cannot be written"):
        prediction.predict_folder(
            project, scans, tmp_path / "file" / "out",
            model_file=project.path("model"), overlays=False,
        )  # fmt: skip


def test_a_model_of_other_shapes_is_refused(predict, tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(GliaflowError, match=r"takes \[\(None, 4\)\] and gives \[\(None, 2\)\]"):
        predict(model_file=path)


def test_values_that_are_no_probabilities_are_refused(predict, project, tmp_path):
    model = finished_run.build_model(is_tumour=True, seed=1)
    last = model.get_layer("probability")
    last.set_weights([np.full_like(weights, np.nan) for weights in last.get_weights()])
    model.save(tmp_path / "nan.keras")
    with pytest.raises(GliaflowError, match="gives values that are no probabilities"):
        predict(model_file=tmp_path / "nan.keras")
