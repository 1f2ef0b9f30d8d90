"""Complete models: what they take, what they give, and that they need nothing of this project."""

import json
import subprocess
import sys

import finished_run
import numpy as np
import pandas as pd
import pytest
from making import image, write_tif

from pipeline.adapters.model import code_copy, model_files, scan_model
from pipeline.domain.postprocessing import PostProcessing
from pipeline.errors import GliaflowError

SIDE = finished_run.SIDE
POST = PostProcessing(threshold=0.5, views=1, keep="all", min_area_px=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version")
    (folder / "data").mkdir()
    network = finished_run.build_model(is_tumour=True)
    model_files.save_model(network, folder / scan_model.NETWORK_FILE)
    scan_model.write_settings(folder, network, POST)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return scan_model.load(folder)


def scan(patient: str, slices: int = 3) -> np.ndarray:
    return np.stack([image(patient, number) for number in range(slices)])


def test_a_scan_gives_a_mask_and_probabilities(model):
    answer = model.predict(scan("A"))
    assert answer["mask"].shape == answer["probability"].shape == (3, SIDE, SIDE)
    assert (answer["mask"].dtype, answer["probability"].dtype) == (np.uint8, np.float32)
    assert answer["mask"].all() and (answer["probability"] > 0.99).all()


def test_integers_of_another_type_are_the_same_scan(model):
    wide = scan("A").astype(np.int64)
    assert np.array_equal(
        model.predict(wide)["probability"], model.predict(scan("A"))["probability"]
    )


def test_lists_of_scans_and_one_more_dimension_give_lists(model):
    assert [len(a["mask"]) for a in model.predict([scan("A", 2), scan("B", 3)])] == [2, 3]
    assert len(model.predict(np.stack([scan("A"), scan("B")]))) == 2


def test_a_table_of_files_gives_an_answer_per_patient(model, tmp_path):
    rows = []
    for patient in ("A", "B"):
        for number in range(2):
            path = tmp_path / f"{patient}_{number}.tif"
            write_tif(path, image(patient, number))
            rows.append({"patient": patient, "file": str(path)})
    answers = model.predict(pd.DataFrame(rows))
    assert [answer["patient"] for answer in answers] == ["A", "B"]
    expected = model.predict(scan("B", 2))["probability"]
    assert np.array_equal(answers[1]["probability"], expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((SIDE, SIDE, 3), np.uint8), r"has shape \(32, 32, 3\); expected a scan"),
        (np.zeros((0, SIDE, SIDE, 3), np.uint8), r"has shape \(0, 32, 32, 3\)"),
        (np.full((1, SIDE, SIDE, 3), 300), "int64 from 300 to 300; expected integers from 0"),
        (np.zeros((1, SIDE, SIDE, 3)), "float64 from 0.0 to 0.0; expected integers"),
        (pd.DataFrame({"path": ["a"]}), "the columns path; expected `file`"),
        (pd.DataFrame({"file": ["missing.tif"]}), "missing.tif cannot be read as a slice"),
    ],
)
def test_other_input_is_an_error_that_says_what_is_expected(model, given, message):
    with pytest.raises(GliaflowError, match=message):
        model.predict(given)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', '{"format": 1}'])
def test_settings_that_cannot_be_read_are_an_error(folder, tmp_path, content):
    (tmp_path / scan_model.SETTINGS_FILE).write_text(content)
    with pytest.raises(GliaflowError, match="does not say how the model was judged"):
        scan_model.read_settings(tmp_path)


def test_the_settings_describe_input_and_output_for_people_and_programs(folder):
    values = json.loads((folder / scan_model.SETTINGS_FILE).read_text())
    assert (values["height_px"], values["width_px"], values["network"]) == (32, 32, "resunet")
    assert values["post_processing"]["threshold"] == 0.5
    assert values["channels"] == ["pre-contrast", "FLAIR", "post-contrast"]


# the code that goes with a version


def test_the_copied_code_predicts_the_same_without_this_project(folder, model, tmp_path):
    module = code_copy.copy_with_imports(scan_model.__name__, tmp_path / "code")
    np.save(tmp_path / "scan.npy", scan("A"))
    program = f"""
import sys
import numpy as np
sys.path.insert(0, {str(tmp_path / "code")!r})
sys.modules.update(dict.fromkeys(["pipeline", "gliaflow", "flows", "prefect", "dvc"]))
import {module} as copied
answer = copied._load_pyfunc({str(folder)!r}).predict(np.load("scan.npy"))
np.save("answer.npy", answer["probability"])
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    expected = model.predict(scan("A"))["probability"]
    assert np.array_equal(np.load(tmp_path / "answer.npy"), expected)


def test_the_package_is_named_after_its_code(tmp_path):
    first = code_copy.copy_with_imports(scan_model.__name__, tmp_path / "a")
    assert first == code_copy.copy_with_imports(scan_model.__name__, tmp_path / "b")
    assert first.startswith("gliaflow_") and first.endswith(".adapters.model.scan_model")


def test_what_the_copied_code_imports_is_in_the_requirements_of_a_version():
    from pipeline.adapters.tracking import complete_model

    known = {"cv2": "opencv-python-headless", "mlflow": "mlflow"}
    imported = set()
    for name in code_copy.import_closure(scan_model.__name__):
        imported |= code_copy.third_party_imports(name)
    names = {known.get(name, name) for name in imported}
    assert names - {"mlflow", "jax"} <= set(complete_model.REQUIREMENTS)
