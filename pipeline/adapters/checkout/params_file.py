"""Change values in params.yaml without touching its comments and layout."""

import io
from pathlib import Path
from typing import Any

import yaml

import pipeline
from pipeline import params
from pipeline.adapters.storage import files

COMMENT_COLUMN = 27
PRESETS = Path(pipeline.__file__).parent / "presets"


def load_preset(name: str) -> dict[str, Any]:
    """Return the values that a named preset sets, by section."""
    values: dict[str, Any] = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def change_params(path: Path, values: dict[str, Any]) -> list[str]:
    """Set values in params.yaml.

    Args:
        values: nested as in the file, by section.

    Returns:
        A line for each value that changed: `train.epochs: 40 -> 200`.

    Raises:
        GliaflowError: the file is missing or invalid, or would be invalid with the new values;
            it is not changed then.
    """
    from ruamel.yaml import YAML

    params.load(path)
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 1000
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(
        type(None),
        lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"),
    )
    editor.representer.add_representer(
        float,
        lambda representer, value: representer.represent_scalar(
            "tag:yaml.org,2002:float", _decimal(value)
        ),
    )
    document = editor.load(path.read_text(encoding="utf-8"))
    changed = _set(document, values, "")
    text = io.StringIO()
    editor.dump(document, text)
    params.parse(yaml.safe_load(text.getvalue()), name=path.name)
    if changed:
        files.write_text(path, text.getvalue())
    return changed


def _align(document: Any, key: str) -> None:
    """Put the comment behind a value in the column of the other comments, if there is room."""
    comment = document.ca.items.get(key, [None] * 3)[2]
    if comment is not None:
        comment.column = COMMENT_COLUMN


def _decimal(value: float) -> str:
    """Format a float without an exponent: YAML 1.1 reads 1e-05 as a string."""
    return f"{value:.12f}".rstrip("0") if "e-" in repr(value) else repr(value)


def _set(document: Any, values: dict[str, Any], prefix: str) -> list[str]:
    """Set values in a section; return a line for each that changed."""
    from ruamel.yaml.scalarstring import PlainScalarString

    changed = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            changed += _set(document[key], value, f"{name}.")
            continue
        before = document[key]
        if before == value:
            continue
        if isinstance(value, list):
            before = list(before)
            document[key][:] = value
        else:
            document[key] = PlainScalarString(value) if isinstance(value, str) else value
            _align(document, key)
        changed.append(f"{name}: {before} -> {value}")
    return changed
