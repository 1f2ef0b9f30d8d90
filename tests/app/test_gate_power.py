"""The error rates of the gate, from two tables of scores."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.adapters.checkout.project import Project
from pipeline.app import gate_power
from pipeline.app.gate_power import GatePower
from pipeline.domain.comparison import PatientScore
from pipeline.domain.gate import Policy
from pipeline.domain.gate_power import CANDIDATES, DELTAS
from pipeline.errors import GliaflowError


def scores(**changes: object) -> pd.DataFrame:
    """Return ten patients of two sites."""
    return pd.DataFrame(
        {
            "patient": [f"P{i}" for i in range(10)],
            "split": "test",
            "tversky": [0.8, 0.75, 0.9, 0.6, 0.85, 0.7, 0.95, 0.8, 0.5, 0.65],
            "site": ["CS", "DU"] * 5,
            "size_group": "small",
            "missing": "none",
        }
    ).assign(**changes)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, pd.DataFrame], Path]:
    """A function that writes a table and returns its path."""

    def write(name: str, table: pd.DataFrame) -> Path:
        table.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


@pytest.fixture
def tables(write: Callable[[str, pd.DataFrame], Path]) -> tuple[Path, Path]:
    noise = np.random.default_rng(1).normal(0, 0.03, size=10).round(6)
    return write("a.csv", scores()), write("b.csv", scores(tversky=scores().tversky + noise))


@pytest.fixture(scope="module")
def measured() -> GatePower:
    noise = np.random.default_rng(1).normal(0, 0.03, size=10)
    pairs = [PatientScore(f"P{i}", 0.5 + float(noise[i]), 0.5, {"site": "CS"}) for i in range(10)]
    policy = Policy(
        min_tversky=0.6, min_tversky_low=0.0, min_patients=5, margin=0.03, group_margin=0.1,
        min_group=5, test_budget=20, approval="inconclusive",
    )  # fmt: skip
    return gate_power.measure(pairs, policy, patients=[6, 4], simulations=1, seed=1)


# --- reading --------------------------------------------------------------------------------


def test_scores_are_paired_by_patient_whatever_the_order(write):
    first = write("a.csv", scores())
    second = write("b.csv", scores(tversky=np.linspace(0, 0.9, 10)).iloc[::-1])
    pair = gate_power.read_pairs(first, second)[3]
    assert (pair.patient, pair.champion, pair.candidate) == ("P3", 0.6, pytest.approx(0.3))
    assert pair.groups == {"site": "DU", "tumour size": "small", "missing sequence": "none"}


def test_tables_need_no_groups_and_no_split(write):
    table = scores()[["patient", "tversky"]]
    pairs = gate_power.read_pairs(write("a.csv", table), write("b.csv", table.assign(tversky=0.5)))
    assert [pair.groups for pair in pairs] == [{}] * 10


def test_patients_that_chose_the_epoch_are_not_used(write):
    table = scores(split=["validation"] * 2 + ["test"] * 8)
    pairs = gate_power.read_pairs(write("a.csv", table), write("b.csv", table.assign(tversky=0.5)))
    assert [pair.patient for pair in pairs] == [f"P{i}" for i in range(2, 10)]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (scores(), "hold the same scores; expected two trainings"),
        (scores().drop(columns="tversky"), "b.csv has no column tversky"),
        (scores().drop(columns="patient"), "b.csv has no column patient"),
        (scores().iloc[:9], "1 patients are in only one of .*, such as P9"),
        (scores().iloc[:4], "b.csv: 4 test patients are too few"),
        (scores(patient="P1"), "b.csv: P1 is listed twice"),
        (scores(tversky=1.5), r"the Tversky of P0 is 1.5; expected a number in \[0, 1\]"),
        (scores(tversky="?"), r"the Tversky of P0 is \?; expected a number"),
        (scores(tversky=None), "the Tversky of P0 is nan; expected a number"),
    ],
)
def test_unfit_tables_are_refused_in_one_sentence(write, second, message):
    with pytest.raises(GliaflowError, match=message):
        gate_power.read_pairs(write("a.csv", scores()), write("b.csv", second))


@pytest.mark.parametrize("content", ["", '"a\n1,2', "\x00"])
def test_files_that_are_no_tables_are_refused(write, tmp_path, content):
    (tmp_path / "b.csv").write_text(content)
    with pytest.raises(GliaflowError, match=r"b\.csv"):
        gate_power.read_pairs(write("a.csv", scores()), tmp_path / "b.csv")


def test_a_missing_file_and_a_folder_are_refused(write, tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(GliaflowError, match=r"does not exist; expected a patients\.csv"):
            gate_power.read_pairs(write("a.csv", scores()), path)


# --- measuring ------------------------------------------------------------------------------


def test_every_size_is_simulated_for_every_difference_and_twice_the_margin(measured):
    expected = sorted({*DELTAS, 0.06})
    assert [(row.patients, row.delta) for row in measured.rows] == [
        (size, delta) for size in (4, 6) for delta in expected
    ]
    assert {row.simulations for row in measured.rows} == {100}
    assert (measured.replicates, measured.policy.margin) == (10, 0.03)


def test_rows_in_which_a_verdict_is_an_error_are_told_apart(measured):
    assert {row.delta for row in measured.worse} == {0.05, 0.06, 0.1}
    assert {row.delta for row in measured.better} == {-0.02, 0.0}


def test_repeated_looks_use_the_size_nearest_to_the_real_test_split(measured):
    assert [(row.patients, row.candidates) for row in measured.repeated] == [
        (6, k) for k in CANDIDATES
    ]


def test_results_are_written_as_tables_and_as_a_plot(measured, tmp_path):
    table, repeated, plot = gate_power.write(measured, tmp_path / "reports")
    rows = pd.read_csv(table)
    assert list(rows.columns) == [
        "patients", "delta", "promote", "promote_error", "reject", "reject_error", "inconclusive",
        "inconclusive_error", "simulations",
    ]  # fmt: skip
    assert np.allclose(rows[["promote", "reject", "inconclusive"]].sum(axis=1), 1)
    assert list(pd.read_csv(repeated).candidates) == list(CANDIDATES)
    svg = plot.read_text()
    assert "4 patients" in svg and "6 patients" in svg
    assert svg == gate_power.power_svg(measured)  # no clock and no random ids


def test_results_can_be_written_as_json(measured):
    written = json.loads(json.dumps(measured.as_json()))
    assert (written["margin"], written["replicates"]) == (0.03, 10)
    assert [len(written["rows"]), len(written["repeated"])] == [14, 5]


# --- the command ----------------------------------------------------------------------------


def call(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    from gliaflow import gate_power, main

    assert gate_power.app is main.app
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(main.app, ["gate-power", *arguments])
    assert result.exception is None, result.exception
    return result.stdout


def test_the_command_prints_the_rates_and_names_what_it_wrote(project, tables, monkeypatch):
    files = [str(path) for path in tables]
    output = call(project, monkeypatch, *files, "--patients", "5", "--simulations", "1")
    assert "10 patients" in output
    assert "5 patients: a worse candidate is promoted in up to" in output
    assert "reports/gate-power.csv" in output
    assert (project.root / "reports/gate-power.svg").exists()


def test_the_command_prints_json_alone(project, tables, monkeypatch):
    files = [str(path) for path in tables]
    output = call(project, monkeypatch, *files, "--patients", "5", "--simulations", "1", "--json")
    assert json.loads(output)["rows"][0]["patients"] == 5
