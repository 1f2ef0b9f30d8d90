"""`gliaflow gate-power`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliaflow import printing
from gliaflow.app import Json, app

if TYPE_CHECKING:
    from pipeline.app.gate_power import GatePower

Sizes = Annotated[
    list[int] | None,
    typer.Option(
        "--patients", help="Test patients; repeat it for several sizes. [default: 5 to 100]", min=2
    ),
]


@app.command(
    "gate-power", epilog="Example: gliaflow gate-power seed-1.csv seed-2.csv --patients 17"
)
def gate_power(
    first: Annotated[Path, typer.Argument(help="patients.csv of a model.", metavar="TABLE_A")],
    second: Annotated[
        Path,
        typer.Argument(
            help="patients.csv of a model trained alike with another seed, same patients.",
            metavar="TABLE_B",
        ),
    ],
    patients: Sizes = None,
    simulations: Annotated[
        int, typer.Option(help="Simulated test sets of each size.", min=1)
    ] = 1000,
    as_json: Json = False,
) -> None:
    """Simulate how often the gate promotes a worse model or rejects an equal one."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.app import gate_power as measurement
    from pipeline.app.promotion import policy_of
    from pipeline.domain.gate_power import PATIENTS

    project = find_project(Path.cwd())
    result = measurement.measure(
        measurement.read_pairs(first, second),
        policy_of(project.params.gate),
        patients=patients or PATIENTS,
        simulations=simulations,
        seed=project.params.evaluate.seed,
    )
    written = measurement.write(result, project.path("index").parent)
    if as_json:
        typer.echo(json.dumps(result.as_json(), indent=2))
        return
    _print(result)
    typer.echo(f"Written: {', '.join(str(path.relative_to(project.root)) for path in written)}.")


def _print(result: "GatePower") -> None:
    """Print a table of verdicts, a table of repeated looks, and the two kinds of error."""
    typer.echo(
        f"{result.replicates} patients, whose scores differ by {result.spread:.4f} (standard "
        f"deviation) between two trainings. gate.margin is {result.policy.margin}."
    )
    printing.print_table(
        ("patients", "true fall", "promoted", "rejected", "inconclusive"),
        [
            (
                str(row.patients),
                f"{row.delta:+.3f}",
                *map(str, (row.promote, row.reject, row.inconclusive)),
            )
            for row in result.rows
        ],
    )
    printing.print_table(
        ("patients", "candidates just beyond the margin", "at least one promoted"),
        [
            (str(row.patients), str(row.candidates), str(row.any_promoted))
            for row in result.repeated
        ],
    )
    for size in sorted({row.patients for row in result.rows}):
        wrong = max(row.promote.share for row in result.worse if row.patients == size)
        refused = max(row.reject.share for row in result.better if row.patients == size)
        typer.echo(
            f"{size} patients: a worse candidate is promoted in up to {wrong:.1%}, an equal or "
            f"better one rejected in up to {refused:.1%}."
        )
