"""From a folder of scans to masks, with a model whose output is known: every pixel is tumour."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

import cv2
import finished_run
import keras
import numpy as np
import pandas as pd
import pytest
from fakes import FakeRegistry
from making import another_user, image, mask, write_patient, write_tif

from pipeline.adapters.scans import regular_files
from pipeline.adapters.scans.image_files import decode_image
from pipeline.adapters.tracking.versions import Version
from pipeline.app import model_in_use, prediction
from pipeline.domain.postprocessing import PostProcessing
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
    assert "0.0000% of pixels differ from the judged masks" in summary
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


def test_exact_masks_are_those_of_the_runtime_that_models_are_judged_with(predict, tmp_path):
    assert "0.0000% of pixels differ from the judged masks" in predict(exact=True)
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
    assert refused.to_dict("records") == [
        {
            "patient": "TCGA_BR_02",
            "file": "more/TCGA_BR_02/TCGA_BR_02_1.tif",
            "found": "other content than TCGA_BR_02/TCGA_BR_02_1.tif",
            "expected": "equal copies of a slice: remove one of them",
        }
    ]


def test_a_slice_number_that_is_written_in_two_ways_is_a_fault(predict, scans, tmp_path):
    write_tif(scans / "TCGA_BR_02" / "TCGA_BR_02_01.tif", image("another", 1))
    predict()
    assert list(read(tmp_path / "out/patients.csv").patient) == ["TCGA_AX_01"]
    refused = read(tmp_path / "out/refused.csv")
    assert list(refused.found) == ["slice 1 twice"]


def test_copies_that_cannot_be_compared_are_refused_and_the_rest_is_predicted(
    predict, scans, tmp_path, monkeypatch
):
    shutil.copytree(scans / "TCGA_BR_02", scans / "copies" / "TCGA_BR_02")
    original = regular_files.open_regular

    def open_regular(path: Path) -> BinaryIO:
        if "copies" in path.parts:
            raise OSError(5, "Input/output error")
        return original(path)

    monkeypatch.setattr(regular_files, "open_regular", open_regular)
    assert "1 patients could not be read" in predict()
    refused = read(tmp_path / "out/refused.csv")
    assert list(refused.patient) == ["TCGA_BR_02"]
    assert "Input/output error" in refused.found[0]


def test_equal_copies_of_a_slice_count_once(predict, scans):
    shutil.copytree(scans / "TCGA_BR_02", scans / "copies" / "TCGA_BR_02")
    assert predict().startswith("2 patients, 6 slices")


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
    monkeypatch.setattr(model_in_use, "open_registry", lambda project: FakeRegistry())
    with pytest.raises(GliaflowError, match=r"no champion yet.*gliaflow run.*--model"):
        predict(model_file=None)
    assert not (tmp_path / "out").exists()


class OneVersion(FakeRegistry):
    """A registry whose champion is version 4, with other post-processing than params.yaml."""

    def champion(self) -> Version:
        return Version(4, ("champion",), {"gliaflow.digest": "ab" * 32}, "run")


@pytest.fixture
def champion(monkeypatch) -> OneVersion:
    registry = OneVersion()
    post = PostProcessing(threshold=0.5, views=1, keep="all", min_area_px=0)
    registry.replace_model(4, finished_run.build_model(is_tumour=False), post)
    monkeypatch.setattr(model_in_use, "open_registry", lambda project: registry)
    return registry


def test_without_a_file_the_champion_predicts(predict, champion, project, tmp_path):
    summary = predict(model_file=None)
    assert "0 with tumour predicted by version 4" in summary
    assert set(read(tmp_path / "out/slices.csv").tumour_pixels) == {0}
    assert (project.local.runtimes / ("ab" * 8)).is_dir()


def test_the_champion_predicts_with_its_own_post_processing(predict, champion, tmp_path):
    low = PostProcessing(threshold=1e-6, views=1, keep="all", min_area_px=0)  # it gives 4.5e-5
    champion.replace_model(4, finished_run.build_model(is_tumour=False), low)
    predict(model_file=None)
    assert set(read(tmp_path / "out/slices.csv").tumour_pixels) == {PIXELS}


def test_a_champion_whose_files_were_changed_does_not_predict_though_its_runtime_is_cached(
    predict, champion, tmp_path
):
    predict(model_file=None)
    champion.changed.add(4)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(GliaflowError, match="the files of version 4 were changed"):
        predict(model_file=None)


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


# What is no regular file


def make_special(kind: str, path: Path) -> Path:
    """Make a pipe or a folder, or return the path of a device."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    return Path("/dev/zero") if kind == "device" else path


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_model_that_is_no_regular_file_is_refused_at_once(predict, tmp_path, kind):
    path = make_special(kind, tmp_path / "model.keras")
    with pytest.raises(GliaflowError, match=f"{path} is a {kind}; expected a .keras file"):
        predict(model_file=path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_scans_that_are_no_folder_are_refused_at_once(predict, tmp_path, kind):
    path = make_special(kind, tmp_path / "x")
    with pytest.raises(GliaflowError, match=f"{path} is a {kind}, not a folder"):
        predict(path)


@pytest.mark.parametrize("name", ["loop", "x" * 300, "file/scans"])
def test_scans_at_a_path_that_leads_nowhere_are_an_error_message(predict, tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(GliaflowError, match="cannot be read"):
        predict(tmp_path / name)


def test_a_slice_that_is_no_regular_file_is_refused_and_the_rest_is_predicted(
    predict, scans, tmp_path
):
    os.mkfifo(scans / "TCGA_AX_01" / "TCGA_AX_01_4.tif")
    (scans / "TCGA_AX_01" / "TCGA_AX_01_5.tif").symlink_to(tmp_path / "nowhere")
    summary = predict()
    assert summary.startswith("2 patients, 6 slices")
    assert f"some files were not read: {tmp_path / 'out/refused.csv'}" in summary
    refused = read(tmp_path / "out/refused.csv")
    assert list(zip(refused.patient, refused.file, refused.found, strict=True)) == [
        ("TCGA_AX_01", f"TCGA_AX_01/TCGA_AX_01_{number}.tif", "not a regular file")
        for number in (4, 5)
    ]


# What is skipped, and limits


def test_folders_without_scans_and_names_that_cannot_be_used_are_refused(predict, scans, tmp_path):
    (scans / "TCGA_EM_03").mkdir()
    (scans / os.fsdecode(b"TCGA_\xff")).mkdir()
    (scans / "TCGA_AX_01" / "TCGA_AX_01\n_4.tif").write_bytes(b"a slice")
    assert "2 patients could not be read" in predict()
    refused = read(tmp_path / "out/refused.csv")
    assert list(zip(refused.file, refused.found, strict=True)) == [
        ("'TCGA_AX_01/TCGA_AX_01\\n_4.tif'", "its name holds control characters"),
        ("'TCGA_\\udcff'", "its name is not valid UTF-8"),
        ("TCGA_EM_03", "no tif"),
    ]


def test_a_patient_folder_whose_name_is_not_valid_utf8_is_an_error_message(predict, scans):
    folder = scans / os.fsdecode(b"TCGA_\xff")
    (scans / "TCGA_AX_01").rename(folder)
    with pytest.raises(GliaflowError, match="cannot be used as a path") as raised:
        predict(folder)
    assert str(raised.value).isascii()


def test_a_folder_with_nothing_but_empty_patients_is_an_error_that_points_to_refused_csv(
    predict, tmp_path
):
    (tmp_path / "empty" / "TCGA_EM_03").mkdir(parents=True)
    with pytest.raises(GliaflowError, match=r"no patient of .*refused\.csv"):
        predict(tmp_path / "empty")
    assert list(read(tmp_path / "out/refused.csv").file) == ["TCGA_EM_03"]


@pytest.mark.parametrize(
    ("key", "limit", "file", "found"),
    [
        ("max_file_mib", 1, "TCGA_BR_02/TCGA_BR_02_1.tif", "has 2.0 MiB"),
        ("max_patient_files", 6, "", "has 7 files"),
    ],
)
def test_a_patient_over_a_limit_is_refused_and_the_others_are_predicted(
    scans, change_params, tmp_path, key, limit, file, found
):
    for number in range(4, 8):
        write_tif(scans / "TCGA_BR_02" / f"TCGA_BR_02_{number}.tif", image("another", number))
    with (scans / "TCGA_BR_02" / "TCGA_BR_02_1.tif").open("r+b") as stream:
        stream.truncate(2**21)
    project = change_params(fetch={key: limit})
    prediction.predict_folder(
        project, scans, tmp_path / "out", model_file=project.path("model"), overlays=False
    )
    assert list(read(tmp_path / "out/patients.csv").patient) == ["TCGA_AX_01"]
    (row,) = pd.read_csv(tmp_path / "out/refused.csv", keep_default_na=False).to_dict("records")
    assert row == {
        "patient": "TCGA_BR_02",
        "file": file,
        "found": found,
        "expected": f"at most {limit} (fetch.{key} in params.yaml)",
    }


def test_more_patients_than_allowed_are_an_error(scans, change_params, tmp_path):
    project = change_params(fetch={"max_batch_patients": 1})
    with pytest.raises(GliaflowError, match=r"holds 2 patients; allowed: 1 \(fetch\.max_batch_"):
        prediction.predict_folder(
            project, scans, tmp_path / "out", model_file=project.path("model"), overlays=False
        )
    assert not (tmp_path / "out").exists()


# Masks


def faults_of(predict, tmp_path) -> set[tuple[str, str]]:
    """Predict; return file and fault of every row of refused.csv."""
    predict()
    refused = read(tmp_path / "out/refused.csv")
    return set(zip(refused.file, refused.found, strict=True))


def test_a_mask_that_does_not_decode_is_named_and_not_its_image(predict, scans, tmp_path):
    (scans / "TCGA_AX_01/TCGA_AX_01_2_mask.tif").write_bytes(b"")
    assert faults_of(predict, tmp_path) == {
        ("TCGA_AX_01/TCGA_AX_01_2_mask.tif", "mask: the file is empty")
    }


def test_a_mask_of_another_size_than_its_image_is_named(predict, scans, tmp_path):
    write_tif(scans / "TCGA_AX_01/TCGA_AX_01_2_mask.tif", mask(5, size_px=16))
    assert faults_of(predict, tmp_path) == {("TCGA_AX_01/TCGA_AX_01_2_mask.tif", "16x16x1")}
    assert list(read(tmp_path / "out/refused.csv").expected) == ["32x32x1, the size of its image"]


def test_image_and_mask_are_both_named_if_both_are_bad(predict, scans, tmp_path):
    (scans / "TCGA_AX_01/TCGA_AX_01_2.tif").write_bytes(b"")
    (scans / "TCGA_AX_01/TCGA_AX_01_2_mask.tif").write_bytes(b"no tif")
    (scans / "TCGA_AX_01/TCGA_AX_01_3.tif").write_bytes(b"")
    write_tif(scans / "TCGA_AX_01/TCGA_AX_01_3_mask.tif", mask(5, size_px=16))
    assert faults_of(predict, tmp_path) == {
        ("TCGA_AX_01/TCGA_AX_01_2.tif", "image: the file is empty"),
        (
            "TCGA_AX_01/TCGA_AX_01_2_mask.tif",
            "mask: it is no TIFF file (it begins with b'no t')",
        ),
        ("TCGA_AX_01/TCGA_AX_01_3.tif", "image: the file is empty"),
        ("TCGA_AX_01/TCGA_AX_01_3_mask.tif", "16x16x1"),
    }


# The output


@pytest.mark.parametrize("kind", ["below a file", "link to nothing", "link to itself", "pipe"])
def test_an_output_that_cannot_be_written_is_an_error_in_one_sentence(
    project, scans, tmp_path, kind
):
    out = tmp_path / "out"
    if kind == "below a file":
        out.write_text("in the way")
        out = out / "deep" / "out"
    elif kind == "pipe":
        os.mkfifo(out)
    else:
        out.symlink_to("out" if kind == "link to itself" else "nowhere")
    with pytest.raises(GliaflowError, match=r"give .* with --out$") as raised:
        prediction.predict_folder(
            project, scans, out, model_file=project.path("model"), overlays=False
        )
    assert str(raised.value).startswith(f"{out} ")
    assert "\n" not in str(raised.value)


@pytest.fixture
def shared():
    """A folder that other users can reach, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("out", ["closed", "closed/out"])
def test_an_output_in_a_folder_that_may_not_be_written_is_an_error_in_one_sentence(
    project, shared, out
):
    write_patient(shared / "scans" / "TCGA_AX_01")
    (shared / "closed").mkdir()
    (shared / "closed").chmod(0o555)
    with another_user(), pytest.raises(GliaflowError, match=r"cannot be written .*Permission"):
        prediction.predict_folder(
            project, shared / "scans", shared / out, model_file=None, overlays=False
        )
