"""Find the modules that each stage imports; `deps` in dvc.yaml must list the same."""

import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent

# Modules that shape no result: how a stage runs and reports, where training curves are sent,
# and the types of the parameters (DVC tracks their values).
NOT_TRACKED = {
    "pipeline.adapters.process",
    "pipeline.adapters.tracking",
    "pipeline.errors",
    "pipeline.params",
}


def modules_of(stage: str, graph: grimp.ImportGraph | None = None) -> list[str]:
    """Return the files of the modules that a stage imports, directly or not, sorted."""
    graph = graph or build()
    name = f"pipeline.stages.{stage}"
    modules = {name, *graph.find_upstream_modules(name)}
    return sorted(_file(module) for module in modules if not _is_exempt(module))


def _is_exempt(module: str) -> bool:
    is_package = (ROOT / module.replace(".", "/")).is_dir()  # an empty __init__.py
    return is_package or module.startswith(tuple(NOT_TRACKED))


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def build() -> grimp.ImportGraph:
    return grimp.build_graph("pipeline", cache_dir=None)


if __name__ == "__main__":
    for stage in sys.argv[1:] or sorted(p.stem for p in Path("pipeline/stages").glob("[a-z]*.py")):
        print(stage, *modules_of(stage), sep="\n      - ")
