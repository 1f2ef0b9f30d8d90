"""docs/configuration.md and docs/commands.md say what the code says."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
import typer
from pydantic import Field

from pipeline.params import Params, Section, Share

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_up_to_date():
    command = [sys.executable, "docs/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_key_has_a_description(reference):
    for name, section in reference._sections(Params):
        assert section.__doc__, name
        for key, field in section.model_fields.items():
            assert field.description or reference._is_section(field), f"{name}.{key}"


def test_every_key_and_every_command_is_on_its_page(reference):
    configuration, commands = reference.configuration(), reference.commands()
    for name, section in reference._sections(Params):
        assert f"\n## {name}\n" in f"\n{configuration}"
        for key, field in section.model_fields.items():
            assert f"| `{key}` |" in configuration or reference._is_section(field)
    for name, _ in reference._commands(reference.app, "gliaflow"):
        assert f"\n## {name}\n" in commands


class Example(Section):
    closed: Annotated[int, Field(ge=16, le=64, multiple_of=16)]
    half_open: Annotated[float, Field(gt=0, lt=1)]
    below: Annotated[int, Field(ge=0, lt=8)]
    share: Share = Field(description="A share.")
    word: Literal["all", "largest"]
    words: Annotated[tuple[Literal["a", "b"], ...], Field(min_length=1)]
    sizes: Annotated[
        tuple[Annotated[int, Field(ge=1, le=9)], ...], Field(min_length=5, max_length=5)
    ]
    name: Annotated[str, Field(min_length=1)]
    address: str | None


@pytest.mark.parametrize(
    ("key", "described"),
    [
        ("closed", ("integer", "16 to 64, a multiple of 16")),
        ("half_open", ("number", "over 0, under 1")),
        ("below", ("integer", "0 to 7")),
        ("share", ("number", "0 to 1")),
        ("word", ("text", "`all` or `largest`")),
        ("words", ("list", "any of `a`, `b`")),
        ("sizes", ("list", "5 values, each 1 to 9")),
        ("name", ("text", "not empty")),
        ("address", ("text or null", "")),
    ],
)
def test_a_key_is_described_by_its_type_and_range(reference, key, described):
    assert reference._type_and_range(Example.model_fields[key]) == described


def test_a_command_is_described_by_its_arguments_and_options(reference):
    app = typer.Typer()

    @app.command(epilog="Example: tool copy a")
    def copy(
        path: Annotated[Path, typer.Argument(help="What to copy: <file>.")],
        times: Annotated[int, typer.Option(help="How often.", min=1, envvar="TIMES")] = 2,
        fast: Annotated[bool, typer.Option("--fast", help="Skip checks.")] = False,
    ) -> None:
        """Copy a file."""

    ((name, command),) = reference._commands(app, "tool")
    assert reference._command(name, command).split("\n") == [
        "## tool copy",
        "",
        "Copy a file.",
        "",
        "```text",
        "tool copy PATH [OPTIONS]",
        "```",
        "",
        "| argument or option | type | default | meaning |",
        "| --- | --- | --- | --- |",
        "| `PATH` | path | required | What to copy: &lt;file>. |",
        "| `--times` | integer, from 1 | `2` | How often. Environment variable: TIMES. |",
        "| `--fast` | flag | off | Skip checks. |",
        "",
        "Example: `tool copy a`",
    ]


def test_only_the_part_between_the_marks_is_replaced(reference):
    page = f"before\n\n{reference.BEGIN}\nold\n{reference.END}\nafter\n"
    updated = reference.replace_generated(page, "new\n")
    assert updated == f"before\n\n{reference.BEGIN}\nnew\n\n{reference.END}\nafter\n"
