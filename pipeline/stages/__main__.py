"""Runs one stage, as dvc.yaml calls it: `python -m pipeline.stages NAME --key path ...`.

The keys are the stage's own path arguments; `--params` names another file than params.yaml. What a user can mend ends as one sentence and
exit code 1; anything else is a bug, and shows its traceback.
"""

import importlib
import os
import sys
from pathlib import Path

ENVIRONMENT = (
    "this Python lacks gliaflow's packages ({0}); run `make env`, then `source .venv/bin/activate`"
)


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: python -m pipeline.stages NAME --key path ...", file=sys.stderr)
        return 2
    name, *rest = arguments
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        from pipeline import params, telemetry
        from pipeline.adapters import lifetime, quiet

        telemetry.turn_off()
        lifetime.end_with_flow()
        with quiet.loading():
            stage = importlib.import_module(f"pipeline.stages.{name}")
    except ModuleNotFoundError as error:
        print(f"gliaflow: {name}: {ENVIRONMENT.format(error.name)}", file=sys.stderr)
        return 1
    return run(stage, name, params, dict(zip(rest[::2], rest[1::2], strict=True)))


def run(stage, name, params, paths) -> int:
    from pipeline.errors import GliaflowError

    named = {key.removeprefix("--").replace("-", "_"): Path(path) for key, path in paths.items()}
    try:
        stage.run(params.load(named.pop("params", Path("params.yaml"))), **named)
    except GliaflowError as error:
        print(f"gliaflow: {name}: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
