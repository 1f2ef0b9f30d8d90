"""Changes values in params.yaml and leaves its comments and layout as they are."""

import io
from pathlib import Path
from typing import Any

import yaml

from pipeline import params
from pipeline.adapters import files

COMMENT_COLUMN = 27
PRESETS = Path(__file__).parent.parent / "presets"


def preset(name: str) -> dict[str, Any]:
    """The values that a named preset sets, by section."""
    return yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))


def change(path: Path, values: dict[str, Any]) -> list[str]:
    """Set values in params.yaml.

    Args:
        values: sections of keys; nested as in the file.

    Returns:
        A line for every value that changed: `train.epochs: 40 -> 200`.

    Raises:
        GliaflowError: the file is not there or not right, or the outcome is out of range;
            it is then left as it was.
    """
    from ruamel.yaml import YAML

    params.load(path)
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 1000
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(
        type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    editor.representer.add_representer(
        float, lambda own, value: own.represent_scalar("tag:yaml.org,2002:float", _decimal(value))
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
    """Bring the comment behind a value back to the column of its neighbours, if it had to move."""
    comment = document.ca.items.get(key, [None] * 3)[2]
    if comment is not None:
        comment.column = COMMENT_COLUMN


def _decimal(value: float) -> str:
    """0.00001 and not 1e-05, which YAML 1.1 takes for a word."""
    return f"{value:.12f}".rstrip("0") if "e-" in repr(value) else repr(value)


def _set(document: Any, values: dict[str, Any], above: str) -> list[str]:
    from ruamel.yaml.scalarstring import PlainScalarString

    changed = []
    for key, value in values.items():
        name = f"{above}{key}"
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
