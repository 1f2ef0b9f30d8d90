"""Names of files as they may come in from outside, and what a copy of them must keep to."""

import os
import stat
from pathlib import Path

from hypothesis import strategies as st

# Bytes, as a file system stores them; `/` inside a name is possible in a zip alone.
PATIENTS = (b"P_A_1", b"P_B_2")
FILES = (b"P_A_1_1.tif", b"P_A_1_1_mask.tif", b"P_A_1_2.TIFF", b"P_B_2_1.tif", b"data.csv")
ODD = (
    b"batch.json", b"COMPLETE", b"source", b".tif", b"..tif", b"...", b" ", b"a\nb.tif", b"\x1b[2J",
    b"\xff\xfe.tif", "\u2028_1.tif".encode(), b"x" * 201, b"x" * 199 + b"_1.tif", b"__MACOSX",
    b"._P_A_1_1.tif", b".DS_Store", b"-rf", b"~", b"%s{0}", b"*.tif", b"C:", b"a:b", b"\\x.tif",
    b"..\\..\\x.tif", "\u0301.tif".encode(), b"P_A_1_99999999.tif", b"P_A_1_.tif",
)  # fmt: skip

NAMES = st.one_of(
    st.sampled_from(PATIENTS),
    st.sampled_from(FILES),
    st.sampled_from(ODD),
    st.binary(min_size=1, max_size=12),
)
USUAL = st.tuples(st.sampled_from(PATIENTS), st.sampled_from(FILES)).map(list)
PATHS = st.one_of(USUAL, USUAL, st.lists(NAMES, min_size=1, max_size=4)).map(b"/".join)


def snapshot(folder: Path) -> dict[bytes, tuple[int, int, int, bytes]]:
    """Return type, size, time of change and content of everything below a folder."""
    found = {}
    for parent, folders, files in os.walk(bytes(folder)):
        for name in (*folders, *files):
            path = os.path.join(parent, name)  # noqa: PTH118 - bytes
            status = os.lstat(path)
            is_file = stat.S_ISREG(status.st_mode)
            content = Path(os.fsdecode(path)).read_bytes() if is_file else b""
            changed = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            found[path] = (stat.S_IFMT(status.st_mode), len(content), changed, content)
    return found


def check_copy(target: Path) -> None:
    """Check that a copy holds <patient>/<file> and clinical tables: nothing else, nothing odd."""
    for path, (kind, *_) in snapshot(target).items():
        inside = Path(os.fsdecode(path)).relative_to(target)
        if kind == stat.S_IFDIR:
            assert len(inside.parts) == 1
        else:
            assert kind == stat.S_IFREG
            assert len(inside.parts) == 2 or str(inside) == "data.csv"


def check_message(message: str) -> None:
    """Check that an error is one line that a terminal can show."""
    assert "\n" not in message and len(message) < 12_000
    message.encode()
