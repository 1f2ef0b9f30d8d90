"""What each stage imports of the project, straight from the code: deps of dvc.yaml must say the same."""

import sys
from pathlib import Path

import grimp

# Known to every stage and harmless to results: how a stage is run, what it says while it
# runs, where curves are mirrored to, and the parameters' types (their values are tracked).
NOT_TRACKED = {
    "pipeline",
    "pipeline.adapters",
    "pipeline.adapters.curves",
    "pipeline.adapters.lifetime",
    "pipeline.adapters.locks",
    "pipeline.adapters.progress",
    "pipeline.domain",
    "pipeline.errors",
    "pipeline.network",
    "pipeline.params",
    "pipeline.stages",
}


def modules_of(stage: str, graph: grimp.ImportGraph | None = None) -> list[str]:
    """Files of the modules that a stage depends on, sorted."""
    graph = graph or build()
    name = f"pipeline.stages.{stage}"
    found = {name, *graph.find_upstream_modules(name)} - NOT_TRACKED
    return sorted(f"{module.replace('.', '/')}.py" for module in found)


def build() -> grimp.ImportGraph:
    return grimp.build_graph("pipeline", cache_dir=None)


if __name__ == "__main__":
    for stage in sys.argv[1:] or sorted(p.stem for p in Path("pipeline/stages").glob("[a-z]*.py")):
        print(stage, *modules_of(stage), sep="\n      - ")
