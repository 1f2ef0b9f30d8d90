"""Change good input at random places: bytes, text, and values read from JSON or YAML."""

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# Numbers at the edges of the types that files store numbers in.
EDGES = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
NUMBERS = (0, 1, -1, 0.5, 1.5, -0.0, 1e308, math.inf, -math.inf, math.nan, 2**31, 2**63, 10**400)
STRANGE = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, math.inf, -math.inf,
    math.nan, "", " ", "0", "nan", "null", "train", "\0", "\n", "\u2028", "é" * 300, "..", "/",
    [], [[]], [None], {}, {"": None}, [0, 1, 2], ["a", "a"],
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, good: bytes, hot: Sequence[int] = ()) -> bytes:
    """Return bytes with a few changes: flipped, inserted, removed, repeated, cut or set.

    Args:
        hot: positions where a change matters most, such as those of a header; half of the
            changes begin there.
    """
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 5))):
        start = draw(_position(len(content), hot))
        end = start + draw(st.integers(1, 16))
        match draw(st.sampled_from(["flip", "set", "number", "insert", "remove", "repeat", "cut"])):
            case "flip" if start < len(content):
                content[start] ^= 1 << draw(st.integers(0, 7))
            case "set":
                content[start:end] = draw(st.binary(max_size=16))
            case "number":
                size = draw(st.sampled_from([1, 2, 4]))
                number = draw(st.sampled_from(EDGES)) % 256**size
                content[start : start + size] = number.to_bytes(size, draw(_BYTE_ORDER))
            case "insert":
                content[start:start] = draw(st.binary(min_size=1, max_size=16))
            case "remove":
                del content[start:end]
            case "repeat":
                content[start:start] = content[start:end] * draw(st.sampled_from([1, 2, 50]))
            case "cut":
                del content[start:]
    return bytes(content)


_BYTE_ORDER: Any = st.sampled_from(["little", "big"])


def _position(length: int, hot: Sequence[int]) -> st.SearchStrategy[int]:
    anywhere = st.integers(0, length)
    inside = [position for position in hot if position <= length]
    return st.one_of(st.sampled_from(inside), anywhere) if inside else anywhere


@st.composite
def mutated_value(draw: st.DrawFn, good: Any) -> Any:
    """Return a value from JSON or YAML with a few changes: keys, types, numbers, lengths."""
    value = good
    for _ in range(draw(st.integers(1, 3))):
        value = draw(_changed(value))
    return value


@st.composite
def _changed(draw: st.DrawFn, value: Any) -> Any:
    """Go down at random, then replace, remove, rename or repeat what is there."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        return draw(_changed_dict(value))
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(value) - 1))
        match draw(st.sampled_from(["inside", "remove", "repeat"])):
            case "inside":
                return [*value[:at], draw(_changed(value[at])), *value[at + 1 :]]
            case "remove":
                return value[:at] + value[at + 1 :]
            case _:
                return value + [value[at]] * draw(st.sampled_from([1, 30]))
    others = (st.sampled_from(STRANGE), st.integers(), st.floats(), st.text())
    is_number = isinstance(value, int | float)
    return draw(st.one_of(*([st.sampled_from(NUMBERS)] * 4 if is_number else []), *others))


@st.composite
def _changed_dict(draw: st.DrawFn, value: dict[Any, Any]) -> dict[Any, Any]:
    key = draw(st.sampled_from(sorted(value, key=str)))
    others = {name: item for name, item in value.items() if name != key}
    match draw(st.sampled_from(["inside", "inside", "inside", "remove", "rename", "swap"])):
        case "remove":
            return others
        case "rename":
            return others | {draw(st.text(max_size=8)): value[key]}
        case "swap" if others:
            other = draw(st.sampled_from(sorted(others, key=str)))
            return value | {key: value[other], other: value[key]}
        case _:
            return value | {key: draw(_changed(value[key]))}
