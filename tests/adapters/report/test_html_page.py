import re

import numpy as np
import pandas as pd
import pytest

from pipeline.adapters.report.curve_plots import curves_png
from pipeline.adapters.report.html_page import PatientFigure, render, with_decision
from pipeline.adapters.report.slice_images import SliceFigure
from pipeline.errors import GliaflowError

NAN = float("nan")
SCORE = {"mean": 0.8, "low": 0.7, "high": 0.9, "patients": 3}
SCORES = {
    "tversky": SCORE,
    "dice": SCORE,
    "sensitivity": SCORE,
    "precision": SCORE,
    "false_alarms": {"mean": 0.05, "low": 0.01, "high": 0.12, "slices": 40},
}
PATIENT = {
    "patient": "TCGA_DU_1_2", "split": "test", "site": "DU", "tversky": 0.8, "dice": 0.7,
    "sensitivity": 0.9, "precision": 0.6, "slices": 20, "tumour_slices": 7,
    "tumour_pixels": 3000, "predicted_pixels": 2500, "false_alarm_slices": 1, "missing": "",
    "size_group": "small",
}  # fmt: skip
QUARANTINED = {"patient": "p", "rule": "mask size", "file": "f", "found": "64", "expected": "256"}
REASON = {"rule": "test Tversky", "passed": True, "sentence": "It is 0.8."}
DECISION = {
    "verdict": "promote",
    "reasons": [REASON],
    "candidate": {"version": 2, "digest": "abc", "tversky": SCORE},
    "champion": {"before": 1, "after": 2},
    "policy": {"min_tversky": 0.6},
    "when": "2025-01-01T00:00:00+00:00",
    "who": "ci",
}


def patient_figure(patient="TCGA_DU_1_2", tversky=0.8):
    """One slice of 16 x 16: 8 true positive, 4 false negative and 2 false positive pixels."""
    image = np.full((16, 16, 3), 90, np.uint8)
    truth, predicted = np.zeros((2, 16, 16), bool)
    truth[:3, :4] = True
    predicted[1:3, :5] = True
    return PatientFigure(patient, "worst", 0.7, tversky, [SliceFigure(7, image, truth, predicted)])


def curves(epochs=3):
    numbers = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "network": 1,
            "epoch": numbers,
            "loss": 1 / numbers,
            "val_loss": 2 / numbers,
            "val_tversky": 1 - 1 / numbers,
            "learning_rate": 0.01 / numbers,
        }
    )


def page(**changes):
    values = {
        "metrics": {
            "test": SCORES,
            "validation": SCORES,
            "seed_tversky": {"mean": 0.87, "batches": 4},
            "groups": {"site": {"DU": {"tversky": SCORE, "dice": SCORE}}},
        },
        "patients": pd.DataFrame([PATIENT]),
        "history": curves(0),  # plots take longest
        "quarantine": pd.DataFrame([QUARANTINED]),
        "figures": [patient_figure()],
        "counts": {
            part: {"train": 8, "validation": 3, "test": 3}
            for part in ("patients", "slices", "tumour_slices")
        },
        "settings": {"source": "lgg", "unit": "patient", "filters": [8, 16]},
    }
    return render(**values | changes)


def words(html):
    """The text that a reader sees, in one line."""
    html = re.sub(r"(?s)<(style|script)>.*?</\1>|<!--.*?-->", "", html)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_the_same_input_gives_the_same_bytes():
    assert page(history=curves()) == page(history=curves())
    assert with_decision(page(), DECISION) == with_decision(page(), DECISION)


def test_curves_give_the_same_bytes_twice():
    assert curves_png(curves()) == curves_png(curves())
    assert curves_png(curves()).startswith(b"\x89PNG")


@pytest.mark.parametrize("epochs", [0, 1])
def test_curves_of_at_most_one_epoch_are_plotted(epochs):
    assert curves_png(curves()[:epochs]).startswith(b"\x89PNG")


def test_the_page_tells_whether_training_used_the_validation_patients():
    used = words(page(settings={"weights kept": "best epoch by validation Tversky"}))
    unused = words(page(settings={"weights kept": "mean of the last 10 epochs"}))
    assert "the validation column is optimistic" in used
    assert "the validation column is optimistic" not in unused
    assert "No choice during training used the validation patients." in unused
    assert "It did not use the test patients." in used and "It did not use the test" in unused


def test_curves_of_several_networks_are_separate():
    """No line from the last epoch of a network to the first of the next, and a single legend."""
    both = curves(6).assign(network=[1, 1, 1, 1, 2, 2])
    html, single = page(history=both), page(history=curves(6))
    lines = [len(re.findall(r'<path d="M[^"]*"[^>]*stroke: var', text)) for text in (html, single)]
    assert lines[0] == lines[1] + 4 + 3  # four more curves, three dotted lines
    assert html.count(">validation</text>") == single.count(">validation</text>") == 1
    assert "2 networks were trained in sequence" in words(html)
    assert "in sequence" not in words(single)


def test_the_page_loads_nothing_from_the_network():
    html = with_decision(page(history=curves()), DECISION)
    html = re.sub(r";base64,[\w+/=]+", "", html)
    assert "default-src 'none'" in html
    targets = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]*)""", html)
    targets += re.findall(r"url\(\s*[\"']?([^)\"']*)", html)
    assert targets
    assert [target for target in targets if not target.startswith(("data:", "#"))] == []
    assert not re.search(r"@import|//[a-z]|fetch\(|XMLHttpRequest", html)


def test_a_page_without_a_decision_tells_how_to_get_one():
    assert "No decision yet: gliaflow run makes one." in words(page())


def test_a_decision_fills_the_slot_and_replaces_an_earlier_decision():
    promoted = with_decision(page(), DECISION)
    assert "No decision yet" not in promoted
    assert "Decision: Promote" in words(promoted)
    assert "Version 2 is now in use, in place of version 1." in words(promoted)
    failed = {"rule": "interval", "passed": False, "sentence": "It is too wide."}
    rejected = {"verdict": "reject", "reasons": [REASON, failed]}
    again = with_decision(promoted, rejected)
    assert again == with_decision(page(), rejected)
    assert "Decision: Reject" in words(again)
    assert "Passed Test Tversky. It is 0.8. Failed Interval. It is too wide." in words(again)


def test_a_first_champion_and_a_missing_one_are_described():
    first = DECISION | {"champion": {"before": None, "after": 1}}
    assert "Version 1 is now in use; none was before." in words(with_decision(page(), first))
    none = {"verdict": "inconclusive", "champion": {"before": None, "after": None}}
    assert "A person must decide. No version is in use." in words(with_decision(page(), none))


def test_text_of_a_decision_cannot_close_its_slot():
    sentence = r"<!-- decision: end --> \1 <script>alert(1)</script>"
    tricky = DECISION | {"reasons": [REASON | {"sentence": sentence}]}
    html = with_decision(page(), tricky)
    assert "<script>alert" not in html
    assert with_decision(html, DECISION) == with_decision(page(), DECISION)


def test_a_page_without_a_slot_is_an_error():
    with pytest.raises(GliaflowError, match=r"no slot for a decision.*dvc repro report"):
        with_decision("<html></html>", DECISION)


def test_names_are_escaped_everywhere():
    evil = "<b>x</b>"
    html = page(
        patients=pd.DataFrame([PATIENT | {"patient": evil, "split": evil, "site": evil}]),
        figures=[patient_figure(evil)],
        quarantine=pd.DataFrame([dict.fromkeys(QUARANTINED, evil)]),
        settings={evil: evil},
        metrics={"groups": {evil: {evil: {"tversky": SCORE}}}},
    )
    html = with_decision(html, {"verdict": evil, "who": evil, "reasons": [REASON | {"rule": evil}]})
    assert "<b>" not in re.sub(r"<b style=", "", html)
    assert "&lt;b&gt;x&lt;/b&gt;" in html


def test_a_page_without_measurements_says_so():
    no_patients = pd.DataFrame(columns=list(PATIENT))
    html = page(
        metrics={"test": SCORES, "validation": None, "seed_tversky": None},
        patients=no_patients,
        history=curves(0),
        quarantine=pd.DataFrame(columns=list(QUARANTINED)),
        figures=[],
        counts={},
        settings={},
    )
    assert "not measured" in words(html)
    assert "No patient is in quarantine." in words(html)
    assert "No epoch was recorded." in words(html)
    assert "not measured" in words(page(metrics={}))


def test_nan_is_shown_as_a_dash_and_sorted_last():
    unknown = PATIENT | {"patient": "unknown", "tversky": NAN, "dice": NAN, "missing": NAN}
    nan_score = dict.fromkeys(SCORE, NAN)
    html = page(
        patients=pd.DataFrame([unknown, PATIENT]),
        metrics={"test": {"tversky": nan_score}, "validation": {"tversky": SCORE | {"low": None}}},
        figures=[patient_figure(tversky=NAN), patient_figure(tversky=0.1)],
        history=curves().assign(val_tversky=NAN),
    )
    assert "nan" not in words(html).lower().replace("unknown", "")
    assert html.index("DU_<wbr>1_<wbr>2") < html.index(">unknown<")
    assert html.index("Tversky 0.100") < html.index("Whole scan: Tversky –")
    assert "No validation Tversky was measured" in html


def test_one_patient_has_no_interval():
    single = SCORE | {"patients": 1}
    html = page(metrics={"groups": {"site": {"HT": {"tversky": single, "dice": single}}}})
    assert "0.800 one patient, no interval" in words(html)


def test_a_split_by_slice_puts_a_warning_on_the_page():
    warning = "train and test share patients"
    assert warning in words(page(settings={"unit": "slice"}))
    assert warning not in words(page())
    unproven = "It did not use the test patients"
    assert unproven in words(page())
    assert unproven not in words(page(settings={"unit": "slice"}))


def test_a_phantom_puts_a_warning_on_the_page():
    warning = "These scans are synthetic."
    assert warning in words(page(settings={"source": "phantom"}))
    assert warning not in words(page())


def test_the_seed_tversky_is_apart_from_the_scores_of_the_gate():
    aside = words(re.search(r"(?s)<aside.*?</aside>", page())[0])
    assert "0.870 4 batches" in aside
    assert "Not comparable" in aside
    assert "not used by the gate" in aside


def test_every_image_has_a_text_alternative():
    alts = re.findall(r'alt="([^"]+)"', page())
    assert len(alts) == 4
    # 2 * 8 / (2 * 8 + 4 + 2)
    assert all("TCGA_DU_1_2, slice 7; Dice of this slice 0.727" in alt for alt in alts)


def test_a_slice_shows_its_dice_and_its_pixel_counts():
    shown = words(page())
    assert "Slice 7, Dice 0.727." in shown
    assert "8 true positive, 4 false negative, 2 false positive pixels" in shown


def test_an_empty_slice_has_no_dice():
    image, mask = np.full((16, 16, 3), 90, np.uint8), np.zeros((16, 16), bool)
    empty = PatientFigure("A", "best", 1.0, 1.0, [SliceFigure(1, image, mask, mask)])
    assert "Slice 1, no tumour and none predicted." in words(page(figures=[empty]))


def test_the_figure_with_the_lowest_tversky_comes_first():
    html = words(page(figures=[patient_figure("B", 0.9), patient_figure("A", 0.2)]))
    assert html.index("Worst: A") < html.index("Worst: B")


def test_ids_are_unique():
    html = with_decision(page(history=curves(), figures=[patient_figure()] * 2), DECISION)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert sorted(ids) == sorted(set(ids))


LEAKAGE = {
    "patient": {"dice": SCORE, "tversky": SCORE, "seed_tversky": {"mean": 0.7, "batches": 4}},
    "slice": {
        "dice": SCORE | {"mean": 0.91}, "tversky": SCORE, "seed_tversky": {"mean": 0.9, "batches": 4},
    },
    "flattered": {"dice": 0.123, "tversky": 0.0, "seed_tversky": 0.2},
    "folds": {"dealt": 5, "run": 2},
}  # fmt: skip


def test_leakage_is_shown_below_the_decision():
    shown = words(with_decision(page(), DECISION, leakage=LEAKAGE))
    assert "2 of 5 folds each" in shown
    assert "Dice" in shown and "0.910" in shown and "0.123" in shown
    assert "Leakage" not in words(with_decision(page(), DECISION))


def test_the_page_of_a_cross_validation_shows_its_folds():
    fold = {
        "fold": 2, "patients": 17, "slices": 620, "dice": 0.81, "tversky": 0.82,
        "seed_tversky": 0.83, "epochs": 30,
    }  # fmt: skip
    html = page(
        folds=[fold], settings={"unit": "patient", "folds": "5"},
        patients=pd.DataFrame([PATIENT | {"split": "fold 2"}]),
        metrics={"test": SCORES, "groups": {}},
    )  # fmt: skip
    shown = words(html)
    assert "1 of 5 folds, dealt by patient." in shown
    assert "2 17 620 0.810 0.820 0.830 30" in shown
    assert 'data-split="fold 2"' in html
    assert "Decision" not in shown and "Quarantine" not in shown and "Validation" not in shown


# candidate and champion


COMPARISON = {
    "difference": {"mean": -0.1, "low": -0.3, "high": 0.1, "patients": 2},
    "groups": [
        {
            "grouping": "site", "group": "CS", "fell": True,
            "difference": {"mean": -0.3, "low": -0.4, "high": -0.2, "patients": 5},
        }
    ],
    "left_out": [],
    "patients": [
        {"patient": "TCGA_A", "candidate": 0.9, "champion": 0.8, "groups": {"site": "DU"}},
        {"patient": "TCGA_B", "candidate": 0.4, "champion": 0.7, "groups": {"site": "CS"}},
        {"patient": "TCGA_C", "candidate": 0.4, "champion": None, "groups": {"site": "CS"}},
    ],
}  # fmt: skip


def test_a_comparison_shows_every_common_patient_with_the_largest_fall_first():
    html = with_decision(page(), DECISION | {"comparison": COMPARISON})
    shown = words(html)
    assert "TCGA_B 0.700 0.400 -0.300 site CS TCGA_A 0.800 0.900 +0.100 site DU" in shown
    assert "site CS 5 -0.300 -0.400 to -0.200 fell" in shown
    assert html.count("<circle") - page().count("<circle") == 4
    assert "Candidate and champion" not in words(with_decision(page(), DECISION))


def test_an_answer_that_cannot_tell_is_neither_passed_nor_failed():
    unsure = {"rule": "not worse", "passed": False, "answer": "cannot tell", "sentence": "Hm."}
    assert "Unsure Not worse. Hm." in words(with_decision(page(), DECISION | {"reasons": [unsure]}))


def test_the_history_of_champions_names_who_and_why():
    move = {
        "when": "2026-05-12T10:00:00+00:00", "champion": {"before": 2, "after": 1},
        "action": "rollback", "who": "Ada Roe", "why": "misses edges",
    }  # fmt: skip
    shown = words(with_decision(page(), DECISION, champions=[move]))
    assert "2026-05-12T10:00:00+00:00 1 2 rollback Ada Roe misses edges" in shown
