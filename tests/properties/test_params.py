"""A changed params.yaml gives parameters, or an error that names the file and what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example
from hypothesis import strategies as st
from making import REPOSITORY

from pipeline import params
from pipeline.errors import GliaflowError
from properties import kept, mutations
from properties.search import bounded, search

TEXT = (REPOSITORY / "params.yaml").read_bytes()
VALUES = yaml.safe_load(TEXT)
# What YAML can say beyond sections of keys: each line belongs at the end of a section.
YAML_LINES = (
    "? [a, b]\n: 1", "? {a: b}\n: 1", "<<: 1", "<<: {a: 1}", "a: &a [*a]", "a: *nowhere",
    "a: 2001-13-99", "a: 1:99:99", "a: !!int x", "a: !!float x", "a: !!timestamp x",
    "a: !!binary 'é'", "a: !!set {b}", "a: !!python/object:os.system {}", "1: 2", "~: 1",
    "2001-01-01: 1", "a: 0x", "a: 0b", "a: .", "a: '\\udc80'", "--- 1", "a: \t1", "%YAML 9.9",
)  # fmt: skip


@st.composite
def changed_texts(draw: st.DrawFn) -> bytes:
    match draw(st.sampled_from(["bytes", "line", "values"])):
        case "bytes":
            return draw(mutations.mutated(TEXT))
        case "line":
            lines = TEXT.decode().splitlines()
            at = draw(st.integers(0, len(lines)))
            indent = draw(st.sampled_from(["", "  ", "    "]))
            added = [indent + part for part in draw(st.sampled_from(YAML_LINES)).splitlines()]
            return "\n".join([*lines[:at], *added, *lines[at:]]).encode()
        case _:
            return as_yaml(draw(mutations.mutated_value(VALUES)))


def as_yaml(values: Any) -> bytes:
    return yaml.safe_dump(values, allow_unicode=True).encode(errors="surrogatepass")


def nested(depth: int) -> bytes:
    return b"fetch: " + b"[" * depth


def aliases(levels: int) -> bytes:
    """Return lists of nine aliases to a list of nine aliases, and so on."""
    lines = ["l0: &l0 [0]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def check_is_loaded_or_named(content: bytes, folder: Path) -> None:
    """Check that a text loads as parameters, or is refused in one line that names the file."""
    path = folder / "params.yaml"
    path.write_bytes(content)
    with bounded(cpu_seconds=10, mib=200):
        try:
            loaded = params.load(path)
        except GliaflowError as error:
            message = str(error)
        else:
            assert params.parse(loaded.model_dump(mode="json", by_alias=True)) == loaded
            return
    assert "params.yaml" in message
    assert message.isprintable() and len(message) < 2000, message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("params")


@search("params", changed_texts())
@example(content=nested(100_000))
@example(content=aliases(9))
def test_changed_parameters_are_loaded_or_refused(content, folder):
    with kept.failing("params", content):
        check_is_loaded_or_named(content, folder)


@kept.replay("params")
def test_kept_parameters(content, folder):
    check_is_loaded_or_named(content, folder)


def test_the_parameters_of_the_repository_are_loaded(folder):
    check_is_loaded_or_named(TEXT, folder)
    check_is_loaded_or_named(json.dumps(VALUES).encode(), folder)
