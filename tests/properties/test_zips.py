"""A damaged or hostile zip is copied or refused; nothing is written outside the target."""

import io
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pipeline.adapters.scans import sources
from pipeline.adapters.scans.sources import Limits
from pipeline.errors import GliaflowError
from properties import kept, mutations, trees
from properties.search import bounded, search

LIMITS = Limits(max_gib=0.001, max_file_mib=0.5, max_patient_files=20, max_batch_patients=20)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
TYPES = (0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO)
CLIMBING = (
    "../x.tif", "P/../../x.tif", "/tmp/x.tif", "C:/x.tif", "..\\x\\y.tif", "\\\\host\\x.tif", "..",
    "P//P_1.tif", "./P/P_1.tif", "", "/", "P/P_1.tif/", "P/P_1.tif/Q_1.tif",
)  # fmt: skip


def make_zip(entries: list[tuple[str, int, int, bytes]]) -> bytes:
    """Return a zip of entries: name, method, type of file, content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that occurs twice
        for name, method, kind, body in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = method, kind << 16
            archive.writestr(entry, body)
    return stream.getvalue()


def good_zip(method: int) -> bytes:
    bodies = {name.decode(): name * 20 for name in trees.FILES}
    return make_zip([(f"top/P_A_1/{name}", method, 0, body) for name, body in bodies.items()])


GOOD = [good_zip(method) for method in METHODS]


def hot_positions(content: bytes) -> list[int]:
    """Return positions in the headers of entries and in the directory at the end."""
    starts = [
        at
        for at in range(len(content))
        if content[at : at + 4] in (b"PK\1\2", b"PK\3\4", b"PK\5\6")
    ]
    return [start + offset for start in starts for offset in range(0, 46, 2)]


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        good = draw(st.sampled_from(GOOD))
        return draw(mutations.mutated(good, hot_positions(good)))
    names = st.one_of(
        trees.PATHS.map(lambda path: path.decode("utf-8", "replace")), st.sampled_from(CLIMBING)
    )
    entry = st.tuples(
        names, st.sampled_from(METHODS), st.sampled_from(TYPES), st.binary(max_size=30)
    )
    return make_zip(draw(st.lists(entry, max_size=8)))


def check_is_copied_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source, target = root / "scans.zip", root / "in" / "target"
        target.mkdir(parents=True)
        source.write_bytes(content)
        try:
            with bounded(cpu_seconds=5, mib=100):
                copied = sources.copy_source(str(source), target, endpoint_url=None, limits=LIMITS)
        except GliaflowError as error:
            trees.check_message(str(error))
        else:
            trees.check_message(sources.describe_skipped(copied.skipped))
            assert copied.files == sum(path.is_file() for path in target.rglob("*"))
        trees.check_copy(target)
        assert {path.name for path in root.iterdir()} == {"scans.zip", "in"}
        assert [path.name for path in (root / "in").iterdir()] == ["target"]
        assert source.read_bytes() == content


@search("zips", zips())
def test_any_zip_is_copied_or_refused(content):
    with kept.failing("zips", content):
        check_is_copied_or_refused(content)


@kept.replay("zips")
def test_kept_zips(content):
    check_is_copied_or_refused(content)


@pytest.mark.parametrize("content", GOOD, ids=["stored", "deflated", "bzip2", "lzma"])
def test_the_undamaged_zips_are_copied(content, tmp_path):
    check_is_copied_or_refused(content)
    (tmp_path / "scans.zip").write_bytes(content)
    copied = sources.copy_source(
        str(tmp_path / "scans.zip"), tmp_path / "into", endpoint_url=None, limits=LIMITS
    )
    assert copied.files == len(trees.FILES)
