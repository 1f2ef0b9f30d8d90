"""The Typer application that command modules add their commands to.

Command modules import little at the top: each command imports what it needs, so that
`--help` is fast.
"""

from functools import partial
from typing import Annotated

import typer

app = typer.Typer(
    help="From brain-MRI scans to a tumour-segmentation model under a promotion gate. "
    "Not for clinical use.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
say = partial(print, flush=True)
