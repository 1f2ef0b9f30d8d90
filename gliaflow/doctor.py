"""`gliaflow doctor`: check this machine and this checkout."""

from pathlib import Path

import typer

from gliaflow.app import app


@app.command(epilog="Example: gliaflow doctor")
def doctor() -> None:
    """Check this machine and this checkout; print one line per check."""
    from pipeline.app import doctor as checks

    findings = checks.examine(Path.cwd())
    for finding in findings:
        typer.echo(f"{'ok     ' if finding.fine else 'WRONG  '}{finding.sentence}")
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)
