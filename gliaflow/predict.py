"""`gliaflow predict`: segment new scans."""

from pathlib import Path
from typing import Annotated

import typer

from gliaflow.app import app


@app.command(epilog="Example: gliaflow predict ~/new-scans --out predicted")
def predict(
    scans: Annotated[Path, typer.Argument(help="Folder with <patient>/<patient>_<n>.tif.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; must be new or empty.")],
    model: Annotated[
        Path | None, typer.Option(help="A .keras file instead of the champion.")
    ] = None,
    overlays: Annotated[
        bool, typer.Option(help="Also write images with the predicted outline.")
    ] = True,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Use the fastest runtime; up to 1 of 10,000 pixels may differ from the judged masks.",
        ),
    ] = False,
) -> None:
    """Segment new scans with the champion: masks, tumour pixels, overlays."""
    from pipeline.adapters.checkout.project import find_project
    from pipeline.adapters.storage import system_errors
    from pipeline.app import prediction

    project = find_project(Path.cwd())
    with system_errors.explained(out):
        sentence = prediction.predict_folder(
            project, scans, out, model_file=model, overlays=overlays, exact=not fast
        )
    typer.echo(sentence)
