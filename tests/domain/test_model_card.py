import pytest

from pipeline.domain import model_card

SCORE = {"mean": 0.8, "low": 0.7, "high": 0.9, "patients": 17, "median": 0.8}
SETTINGS = {
    "unit": "patient", "image size": "64 px", "epochs": "40", "loss": "focal Tversky",
    "networks": "one", "threshold": "0.5", "regions kept": "all",
}  # fmt: skip


def card(**changes) -> str:
    counts = {"train": 60, "validation": 10, "test": 17}
    values = {
        "name": "lgg-resunet",
        "source": "lgg.zip",
        "metrics": {"test": {"tversky": SCORE}, "groups": {"site": {"CS": {"tversky": SCORE}}}},
        "counts": {"patients": counts, "slices": counts, "tumour_slices": counts},
        "settings": SETTINGS,
        "height_px": 256,
        "width_px": 256,
        "digest": "ab" * 32,
    }
    return model_card.render(**values | changes)


def test_a_card_has_data_scores_groups_limits_licence_and_how_to_load():
    text = card()
    assert "| test | 17 | 17 | 17 |" in text
    assert "| Tversky | 0.8000 | 0.7000 to 0.9000 | 17 |" in text
    assert "| site | CS | 0.800, 17 |" in text
    assert "not for clinical use" in text
    assert "CC BY-NC-SA 4.0" in text
    assert 'mlflow.pyfunc.load_model("models:/lgg-resunet@champion")' in text
    assert "(slices, 256, 256, 3) uint8" in text


def test_synthetic_scans_have_no_licence_of_others():
    text = card(source="phantom")
    assert "Synthetic scans." in text
    assert "CC BY-NC-SA" not in text


def test_scores_of_a_split_by_slice_are_said_to_be_too_high():
    assert "the scores are too high" in card(settings=SETTINGS | {"unit": "slice"})


@pytest.mark.parametrize("groups", [3, 500])
def test_a_card_fits_into_a_description_of_mlflow(groups):
    many = {"site": {f"S{number}": {"tversky": SCORE} for number in range(groups)}}
    assert len(card(metrics={"test": {"tversky": SCORE}, "groups": many})) <= 5000
