import json
import pkgutil
import subprocess
import sys

import pipeline.domain

HEAVY = ["cv2", "dvc", "great_expectations", "keras", "mlflow", "pandas", "prefect", "tensorflow"]


def test_importing_the_domain_loads_no_heavy_package():
    modules = pkgutil.iter_modules(pipeline.domain.__path__)
    names = ["pipeline.params", *(f"pipeline.domain.{module.name}" for module in modules)]
    assert "pipeline.domain.metrics" in names
    code = (
        "import importlib, json, sys;"
        f"[importlib.import_module(name) for name in {names}];"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout) == []
