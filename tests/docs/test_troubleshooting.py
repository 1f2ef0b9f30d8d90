"""Error messages quoted in docs/troubleshooting.md are messages of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [text.strip() for _, text in re.findall(r"^### (`+)(.+?)\1$", PAGE, re.M)]
VARIES = "…"


def texts() -> Iterator[str]:
    """Yield every string of the code, with `…` for the values in it, and the Makefile."""
    for package in ("pipeline", "gliaflow", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(_text(part) for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
    yield (ROOT / "Makefile").read_text(encoding="utf-8")


def _text(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else VARIES


@pytest.fixture(scope="module")
def code() -> list[str]:
    return list(texts())


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_in_the_code(quoted, code):
    parts = [re.escape(part.strip()) for part in quoted.split(VARIES) if part.strip()]
    pattern = re.compile(".*?".join(parts), re.S)
    assert any(pattern.search(text) for text in code if len(text) < 5000)


def test_the_page_quotes_messages():
    assert len(QUOTED) > 30
