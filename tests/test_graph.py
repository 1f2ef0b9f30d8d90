"""dvc.yaml, the code, the import contracts and the documents agree with each other."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import graph
import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PACKAGES = ("bench", "flows", "gliaflow", "pipeline")
# Not in DVC's graph: checkpoints and caches must outlive a stage, a lock holds no data, and the
# decision is added to the index page later.
UNTRACKED_PATHS = {
    ".local/checkpoints",
    ".local/compiled",
    ".local/ingest",
    ".local/training.lock",
    "reports/index.html",
}


@pytest.fixture(scope="module")
def imports():
    return graph.build()


@pytest.mark.parametrize("stage", STAGES)
def test_deps_list_every_module_that_a_stage_imports(stage, imports):
    listed = {path for path in STAGES[stage]["deps"] if path.endswith(".py")}
    assert listed == set(graph.modules_of(stage, imports))


def test_stages_have_the_names_of_their_modules_and_params_sections():
    modules = {path.stem for path in (ROOT / "pipeline/stages").glob("[a-z]*.py")}
    assert set(STAGES) == modules
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(STAGES) <= set(sections)


def test_every_path_of_a_stage_is_in_its_deps_or_outs():
    for name, stage in STAGES.items():
        paths = set(re.findall(r"--[a-z-]+ (\S+)", stage["cmd"]))
        listed = {
            path if isinstance(path, str) else next(iter(path))
            for kind in ("deps", "outs", "metrics", "plots")
            for path in stage.get(kind, [])
        }
        assert paths - listed <= UNTRACKED_PATHS, name


def test_readme_names_every_stage_and_command():
    readme = (ROOT / "README.md").read_text()
    from gliaflow.main import app

    commands = [
        command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback is not None
    ]
    assert {"run", "predict", "up", "down"} <= set(commands)
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


def test_usage_reports_are_off_in_every_process_of_the_environment():
    from pipeline.telemetry import SILENT

    code = f"import os; print(all(name in os.environ for name in {list(SILENT)}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True"


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A copy of the packages and their contracts, to break."""
    root = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_the_import_contracts_hold(packages):
    done = lint_imports(packages)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("pipeline/domain/gate.py", "import pipeline.app.publish", "Layers"),
        ("pipeline/adapters/storage/files.py", "import pipeline.stages.fetch", "Layers"),
        ("pipeline/app/doctor.py", "import flows.retrain", "Layers"),
        ("pipeline/adapters/storage/files.py", "import pipeline.adapters.model.predictions", "Adapters"),
        ("gliaflow/app.py", "import prefect", "Prefect"),
        ("pipeline/domain/gate.py", "import cv2", "The domain"),
        ("pipeline/network/losses.py", "import pandas", "The network"),
    ],
)  # fmt: skip
def test_a_forbidden_import_breaks_its_contract(packages, module, statement, contract):
    path = packages / module
    code = path.read_text()
    path.write_text(f"{code}\n{statement}\n")
    done = lint_imports(packages)
    path.write_text(code)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), done.stdout
