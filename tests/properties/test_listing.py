"""A folder of any names, links and pipes is copied or refused; nothing else is written or read."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pipeline.adapters.scans import sources
from pipeline.adapters.scans.sources import Limits
from pipeline.errors import GliaflowError
from properties import kept, trees
from properties.search import bounded, search

KINDS = ("file", "file", "file", "folder", "link", "pipe")
LIMITS = Limits(max_gib=1, max_file_mib=1, max_patient_files=20, max_batch_patients=20)
# Links lead up, to another entry, to a file outside the source, to itself and to nothing.
TARGETS = ("..", ".", "../outside", "../outside/P_A_1_1.tif", "P_A_1", "self", "nothing")


@st.composite
def folders(draw: st.DrawFn) -> bytes:
    """Return a list of [kind, path, target of a link], as JSON; bytes are text in Latin-1."""
    entry = st.tuples(st.sampled_from(KINDS), trees.PATHS, st.sampled_from(TARGETS))
    entries = draw(st.lists(entry, min_size=1, max_size=12))
    lines = [[kind, path.decode("latin-1"), target] for kind, path, target in entries]
    return json.dumps({"entries": lines, "link": draw(st.booleans())}).encode()


def make(root: Path, entries: list[list[str]]) -> None:
    """Make what a list describes; leave out what the file system does not allow."""
    for kind, name, target in entries:
        inside = name.encode("latin-1").lstrip(b"/")
        path = Path(os.fsdecode(os.path.join(bytes(root), inside)))  # noqa: PTH118 - bytes
        try:
            # A link made before may lead out of the folder.
            if path.parent.resolve().is_relative_to(root) and ".." not in path.parts:
                make_entry(kind, path, target)
        except (OSError, ValueError, RuntimeError):
            continue


def make_entry(kind: str, path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(path if target == "self" else target)
        case "pipe":
            os.mkfifo(path)
        case "file":
            with path.open("xb") as stream:
                stream.write(os.fsencode(path.name)[:6])


def check_is_copied_or_refused(content: bytes) -> None:
    described = json.loads(content)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        source, target = root / "source", root / "target"
        for new in (source, target, root / "outside"):
            new.mkdir()
        (root / "outside" / "P_A_1_1.tif").write_bytes(b"outside")
        make(source, described["entries"])
        before = {name: trees.snapshot(root / name) for name in ("source", "outside")}
        beside = set(root.iterdir())
        try:
            with bounded(cpu_seconds=5, mib=100):
                copied = sources.copy_source(
                    str(source), target, endpoint_url=None, limits=LIMITS, link=described["link"]
                )
        except GliaflowError as error:
            trees.check_message(str(error))
        else:
            trees.check_message(sources.describe_skipped(copied.skipped))
            assert copied.files == sum(path.is_file() for path in target.rglob("*"))
        trees.check_copy(target)
        assert before == {name: trees.snapshot(root / name) for name in before}
        assert set(root.iterdir()) == beside


@search("listing", folders())
def test_any_folder_is_copied_or_refused(content):
    with kept.failing("listing", content):
        check_is_copied_or_refused(content)


@kept.replay("listing")
@pytest.mark.timeout(20)
def test_kept_folders(content):
    check_is_copied_or_refused(content)
