"""dvc.yaml, the code and the documents must say the same."""

import re
import subprocess
import sys
from pathlib import Path

import graph
import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def imports():
    return graph.build()


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_every_module_that_a_stage_imports(stage, imports):
    named = {path for path in STAGES[stage]["deps"] if path.endswith(".py")}
    assert named == set(graph.modules_of(stage, imports))


def test_stages_are_called_like_their_modules_and_params():
    modules = {path.stem for path in (ROOT / "pipeline/stages").glob("[a-z]*.py")}
    assert set(STAGES) == modules
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(STAGES) <= set(sections)


def test_a_stage_reads_only_files_that_its_deps_or_outs_name():
    for name, stage in STAGES.items():
        paths = set(re.findall(r"--[a-z-]+ (\S+)", stage["cmd"]))
        named = {
            path if isinstance(path, str) else next(iter(path))
            for kind in ("deps", "outs", "metrics", "plots")
            for path in stage.get(kind, [])
        }
        # Not in the graph: checkpoints and what was read must outlive a stage; the index gets the decision later.
        assert paths - named <= {".local/checkpoints", ".local/ingest", "reports/index.html"}, name


def test_readme_names_every_stage_and_command():
    readme = (ROOT / "README.md").read_text()
    from flows.cli import app

    commands = [one.callback.__name__.replace("_", "-") for one in app.registered_commands]
    for name in [*STAGES, *commands, "use"]:
        assert f"`{name}`" in readme or f"gliaflow {name}" in readme, name


def test_train_and_evaluate_need_neither_dvc_nor_prefect_nor_mlflow():
    code = """
import sys
for name in ("boto3", "dvc", "great_expectations", "mlflow", "prefect", "typer"):
    sys.modules[name] = None  # an import of it fails
import pipeline.stages.evaluate, pipeline.stages.train
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reporting_of_tools_is_off_in_every_process_of_the_environment():
    from pipeline.telemetry import SILENT

    code = f"import os; print(all(name in os.environ for name in {list(SILENT)}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True"
