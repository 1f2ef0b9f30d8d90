"""The `gliaflow` command: help, exit codes and printed tables, without running a pipeline."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import typer
from fakes import FakeRegistry
from making import POLICY, REPOSITORY
from typer.testing import CliRunner

from gliaflow import main as entry_point
from gliaflow.app import app
from pipeline.adapters.tracking.versions import DIGEST_TAG, TVERSKY_TAG, Version
from pipeline.app import inbox_status, open_registry, promotion
from pipeline.app.cross_validation import CrossValidation
from pipeline.domain.decisions import Candidate, ChampionChange, DecisionRecord, Score
from pipeline.domain.gate import Reason
from pipeline.errors import GliaflowError

SCORE = {"mean": 0.8, "low": 0.7, "high": 0.9, "patients": 17}
DECISION = DecisionRecord(
    verdict="reject",
    reasons=(
        Reason("test Tversky", "failed", "The test Tversky is too low."),
        Reason("loads back", "passed", "The model loads back."),
    ),
    candidate=Candidate(2, "cd" * 32, Score(0.5, 0.4, 0.6, 17)),
    champion=ChampionChange(before=1, after=1),
    policy=POLICY,
    when="2026-05-12T10:00:00+00:00",
    who="Ada Roe",
)
# Packages that take seconds to import: `--help` must not wait for them.
HEAVY = ["cv2", "dvc", "great_expectations", "keras", "mlflow", "pandas", "prefect", "tensorflow"]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("PREFECT_PORT", "MLFLOW_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def outside(tmp_path, monkeypatch) -> None:
    """Work in a folder that is not in a checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def in_checkout(monkeypatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def registry(in_checkout, monkeypatch) -> FakeRegistry:
    """The registry that commands open: empty at first."""
    registry = FakeRegistry()
    monkeypatch.setattr(open_registry, "open_registry", lambda project: registry)
    return registry


def call(*arguments: str) -> tuple[int, str]:
    """Run a command; return its exit code and all output."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, GliaflowError):
        raise result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def command_names() -> list[list[str]]:
    """Return the words of every command, as ["use", "lgg"]."""
    root = typer.main.get_command(app)
    names = []
    for name, command in root.commands.items():  # type: ignore[attr-defined]  # it is a group
        children = getattr(command, "commands", {})
        names += [[name, child] for child in children] if children else [[name]]
    return names


# help


@pytest.mark.parametrize("command", command_names(), ids=" ".join)
def test_the_help_of_every_command_has_an_example_of_it(command):
    code, output = call(*command, "--help")
    assert code == 0
    assert f"Example: gliaflow {' '.join(command)}" in output


def test_the_help_lists_every_command():
    code, output = call("--help")
    assert code == 0
    for name, *_ in command_names():
        assert f"  {name} " in output
    assert "Not for clinical use." in output


def test_without_arguments_the_help_is_shown():
    assert "Usage: " in call()[1]
    assert "phantom" in call("use")[1]


def test_an_unknown_command_is_wrong_usage():
    code, output = call("retrain")
    assert code == 2
    assert "No such command" in output


def test_the_help_imports_no_heavy_package():
    code = (
        "import gliaflow.main, json, sys;"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


# exit codes


@pytest.mark.parametrize("command", ["up", "down"])
@pytest.mark.parametrize("port", ["abc", "0", "65536"])
def test_a_port_that_is_not_one_is_wrong_usage(command, port, monkeypatch, outside):
    monkeypatch.setenv("PREFECT_PORT", port)
    code, output = call(command)
    assert code == 2
    assert "Invalid value for '--prefect-port' (env var: 'PREFECT_PORT')" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ["promote", "3", "--override", "agreed"],
        ["promote", "3", "--check", "--by", "Ada Roe"],
        ["promote", "three"],
        ["promote", "0"],
        ["predict", "scans"],
        ["cross-validate", "--unit", "pixel"],
        ["cross-validate", "--folds", "1"],
        ["use", "lgg"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments, outside):
    assert call(*arguments)[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["registry"],
        ["promote", "1"],
        ["predict", ".", "--out", "x"],
        ["cross-validate"],
        ["leakage"],
        ["inbox"],
        ["up"],
        ["down"],
        ["use", "phantom"],
    ],
    ids=" ".join,
)
def test_outside_a_checkout_main_prints_one_line_and_exits_with_1(
    arguments, outside, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["gliaflow", *arguments])
    with pytest.raises(SystemExit) as ended:
        entry_point.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gliaflow: ")
    assert "is not inside a gliaflow checkout" in line


def test_main_exits_with_0_after_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gliaflow", "--help"])
    with pytest.raises(SystemExit) as ended:
        entry_point.main()
    assert ended.value.code == 0


def test_doctor_exits_with_1_if_a_check_fails(outside):
    code, output = call("doctor")
    assert code == 1
    assert "ok     Python 3" in output
    assert "WRONG  " in output


# registry, promote


def test_an_empty_registry_says_how_to_fill_it(registry):
    code, output = call("registry")
    assert code == 0
    assert output == "No version is registered yet; `gliaflow run` registers the first.\n"


def fill(registry: FakeRegistry, monkeypatch) -> None:
    """Two versions, of which something else registered the second, and a rejection."""
    tags = {DIGEST_TAG: "ab" * 32, TVERSKY_TAG: json.dumps(SCORE)}
    versions = [
        Version(2, (), {DIGEST_TAG: "cd" * 32}, "run 2"),
        Version(1, ("champion",), tags, "run 1"),
    ]
    monkeypatch.setattr(registry, "versions", lambda: versions)
    registry.carry_out(lambda: DECISION)


def test_the_registry_is_printed_as_tables_of_versions_and_decisions(registry, monkeypatch):
    fill(registry, monkeypatch)
    code, output = call("registry")
    assert code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    assert ["1", "champion", "abababababab", "0.8000 (0.7000 to 0.9000)", "17"] in cells
    assert ["2", "", "cdcdcdcdcdcd", "?", "?"] in cells
    assert [
        "1", "2026-05-12T10:00", "2", "judge", "reject", "1 -> 1", "Ada Roe",
        "not passed: test Tversky",
    ] in cells  # fmt: skip


def test_the_registry_is_printed_as_json(registry, monkeypatch):
    fill(registry, monkeypatch)
    code, output = call("registry", "--json")
    assert code == 0
    report = json.loads(output)
    assert report["champion"] == 1
    assert [version["version"] for version in report["versions"]] == [2, 1]
    assert report["decisions"] == [DECISION.to_json() | {"number": 1}]


def test_promote_prints_headline_and_reasons_and_a_rejection_exits_with_0(in_checkout, monkeypatch):
    class FakePublisher:
        def promote_version(self, number, *, override, by) -> DecisionRecord:
            assert (number, override, by) == (2, None, None)
            return DECISION

    monkeypatch.setattr(promotion, "open_publisher", lambda project: FakePublisher())
    code, output = call("promote", "2")
    assert code == 0
    assert output.splitlines() == [
        DECISION.headline,
        "  FAILED  The test Tversky is too low.",
        "  passed  The model loads back.",
    ]


def test_promote_hands_on_override_and_name(in_checkout, monkeypatch):
    overrides = []

    class FakePublisher:
        def promote_version(self, number, *, override, by) -> DecisionRecord:
            overrides.append((number, override, by))
            return DECISION

    monkeypatch.setattr(promotion, "open_publisher", lambda project: FakePublisher())
    assert call("promote", "3", "--override", "agreed", "--by", "Ada Roe")[0] == 0
    assert overrides == [(3, "agreed", "Ada Roe")]


# inbox


ROW = {
    "batch": "june", "state": "taken", "when": "2026-06-01T10:00:00+00:00",
    "note": "3 patients, 36 files, as june", "kept_out": "NEW_CY_0003: unreadable",
}  # fmt: skip


def test_the_inbox_is_printed_as_a_table(in_checkout, monkeypatch):
    monkeypatch.setattr(inbox_status, "batch_rows", lambda project: [ROW])
    code, output = call("inbox")
    assert code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    assert [
        "june", "taken", "2026-06-01T10:00", ROW["note"], "NEW_CY_0003: unreadable",
    ] in cells  # fmt: skip


def test_the_inbox_is_printed_as_json(in_checkout, monkeypatch):
    monkeypatch.setattr(inbox_status, "batch_rows", lambda project: [ROW])
    assert json.loads(call("inbox", "--json")[1]) == [ROW]


def test_an_empty_inbox_says_where_to_drop_scans(in_checkout, monkeypatch):
    monkeypatch.setattr(inbox_status, "batch_rows", lambda project: [])
    assert "inbox/<batch>/<patient>/*.tif" in call("inbox")[1]


# cross-validate, leakage


def test_folds_are_printed_with_scores_over_all_patients(capsys):
    from gliaflow import printing

    test = {"tversky": SCORE | {"median": 0.82}, "dice": SCORE | {"median": 0.83},
            "false_alarms": {"mean": 0.0144, "slices": 412}}  # fmt: skip
    fold = {"fold": 1, "patients": 17, "slices": 204, "dice": 0.8, "tversky": 0.79,
            "seed_tversky": 0.86, "epochs": 40}  # fmt: skip
    result = CrossValidation(pd.DataFrame(), {"test": test}, pd.DataFrame([fold]))
    printing.print_folds(result)
    output = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    assert ["1", "17", "204", "0.8000", "0.7900", "0.8600", "40"] in cells
    assert "Dice: mean 0.8000 (0.7000 to 0.9000), median 0.8300, 17 patients" in output
    assert "False positives on 1.4% of 412 tumour-free slices" in output


def test_leakage_is_printed_with_its_sign(capsys):
    from gliaflow import printing

    scores = ("dice", "tversky", "seed_tversky")
    printing.print_leakage(
        {
            "patient": {name: {"mean": 0.7} for name in scores},
            "slice": {name: {"mean": 0.85} for name in scores},
            "flattered": dict.fromkeys(scores, 0.15),
        }
    )
    output = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    assert ["seed tversky", "0.7000", "0.8500", "+0.1500"] in cells
