"""A changed table is read with the right columns and types, or refused with its name."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import strategies as st

from pipeline.adapters.scans import patient_files
from pipeline.adapters.storage import stage_tables
from pipeline.domain import scans
from pipeline.domain.splits import SPLITS
from pipeline.errors import GliaflowError
from properties import kept, mutations
from properties.search import bounded, search

A, B = "P_AB_1", "P_CD_2"
ODD_CELLS = (
    "", " ", "0", "-1", "1.5", "1e400", "inf", "nan", "NA", "True", "99999", "100000",
    "9007199254740993", "1" * 30, "0x10", "train", "..", "a/b", "\0", "\n", "\u2028", '"', "é" * 300,
)  # fmt: skip


def as_csv(rows: list[list[str]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode(errors="surrogatepass")


def manifest() -> list[list[str]]:
    facts: dict[str, Any] = {
        "height": 8, "width": 8, "channels": 3, "dtype": "uint8", "pre_mean": 1.5,
        "flair_mean": 2.25, "post_mean": 3, "mask_height": 8, "mask_width": 8, "mask_channels": 1,
        "mask_dtype": "uint8", "mask_values": "0 255", "sha256": "ab", "pixels": "12",
    }  # fmt: skip
    slices = [(A, 1, 0), (A, 2, 9), (A, 3, 0), (B, 1, 7), (B, 2, 0)]
    rows = [
        facts | {"patient": p, "site": p[2:4], "slice": number, "tumour_pixels": pixels}
        for p, number, pixels in slices
    ]
    conflict = {"patient": A, "site": "AB", "slice": 2, "conflict": "other content"}
    columns = patient_files.COLUMNS
    cells = [[str(row.get(column, "")) for column in columns] for row in [*rows, conflict]]
    return [list(columns), *cells]


SCORES = (
    "patient,split,site,tversky,dice,sensitivity,precision,slices,tumour_slices,tumour_pixels,"
    "predicted_pixels,false_alarm_slices,missing,size_group"
)
GOOD = {
    "manifest": manifest(),
    "quarantine": [
        line.split(",")
        for line in ("patient,rule,file,found,expected", f"{A},conflict,f,x,", "P,numbering,g,y,z")
    ],
    "splits": [line.split(",") for line in ("patient,split", f"{A},train", f"{B},test")],
    "slices": [
        line.split(",")
        for line in (
            "patient,slice,split", f"{A},1,train", f"{A},2,test", f"{A},3,train", f"{B},1,train",
            f"{B},2,validation",
        )
    ],
    "patients": [
        line.split(",")
        for line in (
            SCORES,
            f"{A},test,AB,0.5,0.25,1.0,0.1,3,1,9,20,1,none,small",
            f"{B},test,CD,1.0,1.0,1.0,1.0,2,1,7,7,0,pre post,large",
        )
    ],
    "history": [
        line.split(",")
        for line in (
            "network,epoch,loss,val_loss,val_tversky,learning_rate", "1,1,0.9,0.8,0.1,0.002",
            "1,2,0.5,,,0.001",
        )
    ],
}  # fmt: skip


@st.composite
def changed_tables(draw: st.DrawFn) -> bytes:
    """Return the name of a table and, after a line break, its changed content."""
    name = draw(st.sampled_from(sorted(GOOD)))
    good = GOOD[name]
    if draw(st.booleans()):
        header = len(as_csv(good[:1]))
        body = draw(mutations.mutated(as_csv(good), range(header)))
    else:
        rows = good
        for _ in range(draw(st.integers(1, 3))):
            rows = draw(changed_rows(rows))
        body = as_csv(rows)
    return name.encode() + b"\n" + body


@st.composite
def changed_rows(draw: st.DrawFn, rows: list[list[str]]) -> list[list[str]]:
    """Change one row, column or cell; a row or a column may be the header or the last one."""
    columns = st.integers(0, max(len(rows[0]) - 1, 0)) if rows else st.just(0)
    row, column = draw(st.integers(0, max(len(rows) - 1, 0))), draw(columns)
    cell = st.one_of(st.sampled_from(ODD_CELLS), st.text(max_size=8))
    match draw(
        st.sampled_from(["drop", "swap", "cell", "cell", "column", "cut", "remove", "twice"])
    ):
        case "drop":
            return [[*line[:column], *line[column + 1 :]] for line in rows]
        case "swap":
            other = draw(columns)
            return [with_swapped(line, column, other) for line in rows]
        case "cell":
            return (
                [*rows[:row], with_cell(rows[row], column, draw(cell)), *rows[row + 1 :]]
                if rows
                else []
            )
        case "column":
            value = draw(cell)
            return [*rows[:1], *(with_cell(line, column, value) for line in rows[1:])]
        case "cut":
            return [*rows[:row], *(line[:column] for line in rows[row : row + 1]), *rows[row + 1 :]]
        case "remove":
            return rows[:row] + rows[row + 1 :]
        case _:
            return rows + rows[row : row + 1]


def with_cell(line: list[str], column: int, value: str) -> list[str]:
    return [*line[:column], value, *line[column + 1 :]]


def with_swapped(line: list[str], first: int, second: int) -> list[str]:
    if max(first, second) >= len(line):
        return line
    swapped = list(line)
    swapped[first], swapped[second] = line[second], line[first]
    return swapped


def check_accepted(paths: dict[str, Path], splits: str) -> None:
    accepted = stage_tables.accepted_slices(paths["manifest"], paths["quarantine"])
    assert accepted.slice.dtype == accepted.tumour_pixels.dtype == "int64"
    assert accepted.slice.between(0, 99_999).all() and accepted.tumour_pixels.between(0, 64).all()
    assert (
        not accepted.duplicated(["patient", "slice"]).any() and not accepted.conflict.notna().any()
    )
    check_patients(accepted)
    for patient, positions in stage_tables.slice_positions(accepted):
        assert list(positions) == list(range((accepted.patient == patient).sum()))
    joined = stage_tables.join_splits(accepted, paths[splits])
    assert len(joined) == len(accepted) and joined.split.isin(SPLITS).all()


def check_scores(table: pd.DataFrame) -> None:
    check_patients(table)
    assert len(table) and table.split.isin(SPLITS).all()
    assert table[["tversky", "dice", "sensitivity", "precision"]].stack().between(0, 1).all()
    assert table.slices.dtype == table.tumour_pixels.dtype == "int64"


def check_history(table: pd.DataFrame) -> None:
    assert table.network.dtype == table.epoch.dtype == "int64"
    assert (table[["network", "epoch"]] >= 1).all(axis=None)


def check_patients(table: pd.DataFrame) -> None:
    assert all(isinstance(name, str) and not scans.print_fault(name) for name in table.patient)
    assert not any("/" in name or name in ("", ".", "..") for name in table.patient)


def check_quarantine(table: pd.DataFrame) -> None:
    check_patients(table)
    assert all(isinstance(rule, str) for rule in table.rule)
    assert stage_tables.quarantined_patients(table) <= set(table.patient)


def checks(name: str, paths: dict[str, Path]) -> list[Callable[[], Any]]:
    """Return what reads a table, with the good tables beside it."""
    match name:
        case "patients":
            return [lambda: check_scores(stage_tables.read_patients(paths[name]))]
        case "history":
            return [lambda: check_history(stage_tables.read_history(paths[name]))]
        case "quarantine":
            check = lambda: check_quarantine(stage_tables.read_quarantine(paths[name]))  # noqa: E731
            return [check, lambda: check_accepted(paths, "splits")]
        case "splits" | "slices":
            disjoint = lambda: stage_tables.check_disjoint(paths[name], by_slice=name == "slices")  # noqa: E731
            return [disjoint, lambda: check_accepted(paths, name)]
        case _:
            return [
                lambda: check_accepted(paths, "splits"),
                lambda: check_accepted(paths, "slices"),
            ]


def check_is_read_or_refused(content: bytes, folder: Path) -> None:
    encoded, _, body = content.partition(b"\n")
    name = encoded.decode()
    paths = {table: folder / f"{table}.csv" for table in GOOD}
    for table, path in paths.items():
        path.write_bytes(body if table == name else as_csv(GOOD[table]))
    for check in checks(name, paths):
        try:
            with bounded(cpu_seconds=5, mib=100):
                check()
        except GliaflowError as error:
            message = str(error)
            # A changed patient may be missing in another table.
            assert any(str(path) in message for path in paths.values())
            assert not scans.print_fault(message) and len(message) < 1000, message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@search("tables", changed_tables())
def test_a_changed_table_is_read_or_refused(content, folder):
    with kept.failing("tables", content):
        check_is_read_or_refused(content, folder)


@kept.replay("tables")
def test_kept_tables(content, folder):
    check_is_read_or_refused(content, folder)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_the_unchanged_tables_are_read(name, folder):
    paths = {table: folder / f"{table}.csv" for table in GOOD}
    for table, path in paths.items():
        path.write_bytes(as_csv(GOOD[table]))
    for check in checks(name, paths):
        check()
