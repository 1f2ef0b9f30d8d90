"""What a person types: `gliaflow ...`.

Imports little: each command brings in what it needs. A sentence for a person ends with
exit code 1, wrong usage with 2; a refusal to promote is an answer and ends with 0.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import telemetry
from pipeline.adapters import project
from pipeline.errors import GliaflowError

app = typer.Typer(
    help="From brain-MRI scans to a segmentation model that a team may put into use. "
    "Not for clinical use.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
use = typer.Typer(help="Say which scans to work on; changes params.yaml.", no_args_is_help=True)
app.add_typer(use, name="use")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


@use.command("phantom", epilog="Example: gliaflow use phantom")
def use_phantom() -> None:
    """Drawn scans, small enough for a laptop: as the repository comes."""
    _change({})


@use.command("lgg", epilog="Example: gliaflow use lgg --source ~/lgg-mri-segmentation.zip")
def use_lgg(
    source: Annotated[
        str,
        typer.Option(help="A folder, Kaggle's zip as it comes, s3://bucket/prefix, or kaggle."),
    ],
    endpoint_url: Annotated[
        str | None, typer.Option(help="S3 server other than Amazon's: http://host:port.")
    ] = None,
) -> None:
    """The real scans, with the published network and schedule."""
    from pipeline.adapters import sources

    if "://" not in source and source != "kaggle":
        path = Path(source).expanduser().resolve()
        if not path.exists():
            raise GliaflowError(f"the source {source} is not there; give a folder or a zip")
        source = str(path)
    typer.echo(sources.TERMS)
    _change({"fetch": {"source": source, "endpoint_url": endpoint_url}}, preset="lgg")


def _change(values: dict[str, Any], preset: str = "phantom") -> None:
    from pipeline.adapters import settings

    own = project.find(Path.cwd())
    wanted = settings.preset(preset)
    for section, keys in values.items():
        wanted[section] = wanted.get(section, {}) | keys
    changed = settings.change(own.root / "params.yaml", wanted)
    typer.echo("\n".join(changed) or "params.yaml says so already.")
    typer.echo("Next: `dvc repro` builds, `gliaflow run` builds, judges and promotes.")


@app.command(epilog="Example: gliaflow run")
def run() -> None:
    """Build what changed, then register, decide and promote: the flow, in this process."""
    own = project.find(Path.cwd())
    own.params()
    _quiet_server()
    from flows.retrain import retrain

    state = retrain(str(own.root), return_state=True)
    if not state.is_completed():
        raise GliaflowError(state.message or f"the run ended as {state.name}")
    typer.echo("")
    _print_decision(state.result())
    typer.echo(f"Look at {own.path('index').relative_to(own.root)} in a browser.")


@app.command(epilog="Example: gliaflow registry --json")
def registry(as_json: Json = False) -> None:
    """Versions of the model, which one is in use, and every decision."""
    own = project.find(Path.cwd())
    from flows import publish

    store = publish.open_registry(own)
    versions, decisions = store.versions(), store.decisions()
    if as_json:
        champion = next((one.version for one in versions if "champion" in one.aliases), None)
        rows = [
            {
                "version": one.version,
                "aliases": list(one.aliases),
                "digest": one.digest,
                "tversky": one.test_tversky,
                "tags": dict(one.tags),
            }
            for one in versions
        ]
        found = {"champion": champion, "versions": rows, "decisions": decisions}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not versions:
        typer.echo("No version is registered yet; `gliaflow run` registers the first.")
        return
    _print_registry(versions, decisions)


def _print_registry(versions: list[Any], decisions: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("version", "in use", "digest", "test Tversky (95 %)", "patients")
    for one in versions:
        score = one.test_tversky
        shown = f"{score['mean']:.4f} ({score['low']:.4f} to {score['high']:.4f})" if score else "?"
        mark = ", ".join(one.aliases)
        count = str(score.get("patients", "?"))
        table.add_row(str(one.version), mark, one.digest[:12], shown, count)
    record = Table("when", "version", "verdict", "champion", "who", "why")
    for one in decisions:
        moved = f"{one['champion']['before'] or 'none'} -> {one['champion']['after'] or 'none'}"
        failed = [reason["sentence"] for reason in one["reasons"] if not reason["passed"]]
        why = one.get("override") or " ".join(failed) or "all rules passed"
        record.add_row(
            one["when"][:16], str(one["candidate"]["version"]), one["verdict"], moved,
            one["who"], why,
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(record)


@app.command(epilog='Example: gliaflow promote 3 --override "agreed on 12 May" --by "Dr Ada Roe"')
def promote(
    version: Annotated[int, typer.Argument(help="Number of the version.", min=1)],
    override: Annotated[
        str | None, typer.Option(help="Promote against the gate, for this reason; kept for good.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who answers for the override.")] = None,
) -> None:
    """Put a version into use, as the gate allows."""
    if (override is None) != (by is None):
        raise typer.BadParameter("--override REASON and --by NAME go together")
    own = project.find(Path.cwd())
    from flows import publish

    _print_decision(publish.promote_version(own, version, override=override, by=by))


@app.command(epilog="Example: gliaflow predict ~/new-scans --out predicted")
def predict(
    scans: Annotated[Path, typer.Argument(help="Folder with <patient>/<patient>_<n>.tif.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; must be new or empty.")],
    model: Annotated[
        Path | None, typer.Option(help="A .keras file instead of the champion.")
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Also pictures with the outline drawn in.")] = True,
    exact: Annotated[
        bool, typer.Option("--exact", help="Not a pixel other than Keras's in float32; slower.")
    ] = False,
) -> None:
    """Segment new scans with the champion: masks, tumour pixels, overlays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    from flows import prediction

    typer.echo(prediction.predict(scans, out, model_file=model, overlays=overlays, exact=exact))


@app.command(epilog="Example: gliaflow cross-validate --set train.image_size=128 --first 2")
def cross_validate(
    folds: Annotated[int, typer.Option(help="How many folds are dealt.", min=2, max=50)] = 5,
    first: Annotated[
        int | None, typer.Option(help="Run only so many of them; others can follow.", min=1)
    ] = None,
    unit: Annotated[
        str, typer.Option(help="patient, or slice: the published protocol, which leaks patients.")
    ] = "patient",
    values: Annotated[
        list[str] | None, typer.Option("--set", help="Another value than in params.yaml.")
    ] = None,
) -> None:
    """Score every patient once, by a network that never saw it; goes on where it was ended."""
    if unit not in ("patient", "slice"):
        raise typer.BadParameter("--unit is patient or slice")
    own = project.find(Path.cwd())
    from flows import folds as crossing
    from flows import folds_page

    params = crossing.change(own.params(), values or [])
    plan = crossing.Plan(unit, folds, min(first or folds, folds))  # type: ignore[arg-type]
    say = partial(print, flush=True)
    crossing.prepare(own, say=say)
    outcome = crossing.run(own, params, plan, say=say)
    page = folds_page.write(own, params, plan, outcome, own.root / "reports/cross-validation")
    _print_folds(outcome)
    typer.echo(f"Look at {page.relative_to(own.root)} in a browser.")


@app.command(epilog="Example: gliaflow leakage --first 1")
def leakage(
    folds: Annotated[int, typer.Option(help="How many folds are dealt.", min=2, max=50)] = 5,
    first: Annotated[
        int | None, typer.Option(help="Run only so many of them, each way.", min=1)
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", help="Another value than in params.yaml.")
    ] = None,
) -> None:
    """What the score would gain by splitting slices instead of patients: the same recipe both ways."""
    own = project.find(Path.cwd())
    from flows import folds as crossing
    from flows import leakage as leaking

    params = crossing.change(own.params(), values or [])
    say = partial(print, flush=True)
    crossing.prepare(own, say=say)
    found = leaking.measure(own, params, count=folds, first=min(first or folds, folds), say=say)
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "by patient", "by slice", "flattered by")
    for key in ("dice", "tversky", "seed_tversky"):
        means = [f"{found[unit][key]['mean']:.4f}" for unit in ("patient", "slice")]
        table.add_row(key.replace("_", " "), *means, f"{found['flattered'][key]:+.4f}")
    Console().print(table)
    typer.echo("Written: reports/leakage.json; the page shows it beside the decision.")


def _print_folds(outcome: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("fold", "patients", "slices", "Dice", "Tversky", "seed Tversky", "epochs")
    for row in outcome.folds.to_dict("records"):
        scores = [f"{row[key]:.4f}" for key in ("dice", "tversky", "seed_tversky")]
        counts = [str(row[key]) for key in ("fold", "patients", "slices")]
        table.add_row(*counts, *scores, str(row["epochs"]))
    Console().print(table)
    for name, label in (("dice", "Dice"), ("tversky", "Tversky")):
        found = outcome.metrics["test"][name]
        typer.echo(
            f"{label}: mean {found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f}), "
            f"median {found['median']:.4f}, {found['patients']} patients"
        )
    alarms = outcome.metrics["test"].get("false_alarms")
    if alarms:
        typer.echo(f"False alarms: {alarms['mean']:.1%} of {alarms['slices']} tumour-free slices")


@app.command(epilog="Example: gliaflow inbox --json")
def inbox(as_json: Json = False) -> None:
    """The batches that were dropped into the inbox, and what became of them."""
    own = project.find(Path.cwd())
    from flows import batch_report

    rows = batch_report.rows(own)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        source = own.params().watch.source
        typer.echo(f"No batch was seen yet; drop one into {source}/<batch>/<patient>/*.tif.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("batch", "state", "when", "what", "kept out")
    for row in rows:
        table.add_row(row["batch"], row["state"], row["when"][:16], row["note"], row["kept_out"])
    Console().print(table)


@app.command(epilog="Example: gliaflow doctor")
def doctor() -> None:
    """What is missing or wrong on this machine, one line each."""
    from flows import doctor as own

    findings = own.examine(Path.cwd())
    for finding in findings:
        typer.echo(f"{'ok     ' if finding.fine else 'WRONG  '}{finding.sentence}")
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


def _print_decision(decision: dict[str, Any]) -> None:
    from flows.wording import headline

    typer.echo(headline(decision))
    for reason in decision["reasons"]:
        typer.echo(f"  {'passed' if reason['passed'] else 'FAILED'}  {reason['sentence']}")


def _quiet_server() -> None:
    """Prefect's own server for one run: no page, and as little said as possible."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def main() -> None:
    telemetry.turn_off()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()
    except GliaflowError as error:
        print(f"gliaflow: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
