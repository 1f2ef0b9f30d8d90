"""Mend `.dvc/tmp/rwlock`, DVC's record of which process reads or writes which path.

A DVC that was killed leaves its entry. DVC drops it once no process has that number, but the
system gives numbers again, and after a full disk the file may be cut off: both would block
every later run.
"""

import json
import time
from pathlib import Path
from typing import Any

from pipeline.adapters.process import processes
from pipeline.adapters.storage import json_files

TRIES = 4
SECONDS_BETWEEN_TRIES = 0.3
PROGRAMS = (b"dvc", b"gliaflow", b"pipeline.stages")  # in the command line of a real holder


def release_stale(root: Path) -> list[str]:
    """Drop entries whose process is gone or is not DVC, and a record that cannot be read.

    Returns:
        What was dropped, a sentence each.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    for _ in range(TRIES):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            holders = {
                holder["pid"] for mode in ("read", "write") for holder in _holders(record, mode)
            }
            break
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            time.sleep(SECONDS_BETWEEN_TRIES)  # a running DVC may be writing it
    else:
        path.unlink(missing_ok=True)
        return [f"removed {path}, DVC's record of its readers and writers: it was cut off"]
    stale = sorted(pid for pid in holders if not _is_dvc(pid))
    if stale:
        json_files.write_json(path, _without(record, set(stale)))
    return [f"dropped DVC's lock of process {pid}, which is gone or no DVC" for pid in stale]


def _holders(record: dict[str, Any], mode: str) -> list[dict[str, Any]]:
    entries = record.get(mode, {}).values()
    holders = [holder for entry in entries for holder in (entry if mode == "read" else [entry])]
    for holder in holders:
        if type(holder["pid"]) is not int:
            raise TypeError(f"{holder['pid']!r} is no process id")
    return holders


def _without(record: dict[str, Any], stale: set[int]) -> dict[str, Any]:
    readers = {
        path: kept
        for path, holders in record.get("read", {}).items()
        if (kept := [holder for holder in holders if holder["pid"] not in stale])
    }
    writers = {
        path: holder
        for path, holder in record.get("write", {}).items()
        if holder["pid"] not in stale
    }
    return {"read": readers, "write": writers}


def _is_dvc(pid: int) -> bool:
    """Whether a process runs that may be the holder; unknown counts as yes."""
    if processes.process_identity(pid) is None:
        return False
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return not command or any(name in command for name in PROGRAMS)
