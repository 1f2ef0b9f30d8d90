"""`gliaflow use`: choose the scans to work on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gliaflow.app import app
from pipeline.errors import GliaflowError

use = typer.Typer(
    help="Choose the scans to work on; changes params.yaml.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(use, name="use")


@use.command("phantom", epilog="Example: gliaflow use phantom")
def use_phantom() -> None:
    """Synthetic scans, small enough for a laptop: the default."""
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
    """Real scans, with the published network and the training that cross-validation chose."""
    from pipeline.adapters.scans import kaggle

    if "://" not in source and source != "kaggle":
        path = Path(source).expanduser().resolve()
        if not path.exists():
            raise GliaflowError(f"the source {source} does not exist; give a folder or a zip")
        source = str(path)
    typer.echo(kaggle.TERMS)
    _change({"fetch": {"source": source, "endpoint_url": endpoint_url}}, preset="lgg")


def _change(values: dict[str, Any], preset: str = "phantom") -> None:
    from pipeline.adapters.checkout import params_file
    from pipeline.adapters.checkout.project import find_root

    changes = params_file.load_preset(preset)
    for section, keys in values.items():
        changes[section] = changes.get(section, {}) | keys
    changed = params_file.change_params(find_root(Path.cwd()) / "params.yaml", changes)
    typer.echo("\n".join(changed) or "params.yaml has these values already.")
    typer.echo("Next: `gliaflow run` builds, judges and promotes; `dvc repro` only builds.")
