"""Commands killed with SIGKILL: the same command again ends as if nothing had happened."""

import json
import shutil
from pathlib import Path

import teams

from faults import watch_once
from faults.killing import Victim
from faults.matrix import fault
from faults.workplace import RUN, SAME, Workplace, check_refused, check_same

MOMENTS = 15


@fault("kill", f"`gliaflow run` from nothing, {MOMENTS} moments", must_hold=SAME)
def kill_runs(place: Workplace) -> str:
    """Kill each run twice: the moments of a pair add up to the duration of one run."""
    victim = Victim(place, RUN, MOMENTS)
    place.forget_results()
    victim.measure()
    for moment in range((MOMENTS + 1) // 2):
        place.forget_results()
        for number in sorted({moment, MOMENTS - 1 - moment}):
            victim.kill(number)
        victim.again()
        check_same(place)
    return victim.seen()


@fault(
    "kill",
    f"the check of the inbox, {MOMENTS} moments",
    must_hold="each batch is imported once, whole; each starts one retraining; nothing is left",
)
def kill_checks(place: Workplace) -> str:
    shutil.copy(watch_once.__file__, place.root)
    victim = Victim(place, ("watch_once",), MOMENTS, ready=watch_once.READY)
    _drop(place, "first")
    victim.measure()
    before = _retrainings(victim.output())
    for moment in range(MOMENTS):
        _drop(place, f"batch-{moment}")
        victim.kill(moment)
        started = _retrainings(victim.again()) - before
        _check_imported(place)
        assert started == moment + 1, f"{started} retrainings after {moment + 1} batches"
    return victim.seen()


def _drop(place: Workplace, batch: str) -> None:
    """Put a complete batch of 40 patients into the inbox, unlike every other batch."""
    number = len(list((place.root / "inbox").glob("*")))
    for place_in_batch in range(40):
        patient = f"NEW_AX_{number:02}{place_in_batch:02}"
        folder = place.root / "inbox" / batch / patient
        folder.mkdir(parents=True)
        for name, content in teams.scan_files(patient).items():
            (folder / name).write_bytes(content)
    (place.root / "inbox" / batch / "COMPLETE").touch()


def _retrainings(output: str) -> int:
    return int(output.rpartition("retrainings: ")[2])


def _check_imported(place: Workplace) -> None:
    """Check that data/incoming holds each batch of the inbox once, byte for byte."""
    inbox, incoming = _scans(place.root / "inbox"), _scans(place.root / "data/incoming")
    assert inbox == incoming, f"differ: {sorted(set(inbox) ^ set(incoming))[:5]}"
    started = json.loads((place.root / ".local/inbox/started.json").read_text())
    assert len(set(started)) == len(started), started
    left = list((place.root / ".local/inbox/aside").glob("*"))
    assert not left, f"partial copies are left: {left}"


def _scans(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.tif")}


@fault(
    "kill",
    f"`gliaflow predict`, {MOMENTS} moments",
    must_hold="a part never looks complete; into an empty folder: the same exact masks",
)
def kill_predictions(place: Workplace) -> str:
    """Kill predictions of both runtimes in turn; the fast one first converts the model."""
    scans = ("gliaflow", "predict", "data/raw/source", "--out", "out")
    victims = [Victim(place, (*scans, *option), MOMENTS) for option in ((), ("--fast",))]
    expected, refused = [], 0
    for victim in victims:
        victim.measure()
        expected.append(_scans(place.root / "out"))
        shutil.rmtree(place.root / "out")
    for moment in range(MOMENTS):
        victim, masks = victims[moment % 2], expected[moment % 2]
        shutil.rmtree(place.root / ".local/runtimes", ignore_errors=True)
        victim.kill(moment)
        if any((place.root / "out").glob("*")) and not (place.root / "out/patients.csv").exists():
            check_refused(place.call(*victim.command), "out")
            refused += 1
            shutil.rmtree(place.root / "out")
        shutil.rmtree(place.root / "out", ignore_errors=True)
        victim.again()
        _check_masks(_scans(place.root / "out"), masks, is_exact=not moment % 2)
        shutil.rmtree(place.root / "out")
    return f"{', '.join(victim.seen() for victim in victims)}; {refused} parts refused"


def _check_masks(masks: dict[str, bytes], expected: dict[str, bytes], *, is_exact: bool) -> None:
    """Check that the same masks were written, and that the exact ones are equal.

    The fast runtime is the one that wins a race at its first use; its masks may differ.
    """
    assert masks.keys() == expected.keys(), sorted(masks.keys() ^ expected.keys())[:5]
    different = [name for name, mask in masks.items() if mask != expected[name]]
    assert not (is_exact and different), f"{len(different)} masks differ: {different[:3]}"


@fault(
    "kill",
    f"`gliaflow promote`, {MOMENTS} moments",
    must_hold="champion and newest decision agree, and say what was asked for",
)
def kill_promotions(place: Workplace) -> str:
    """Promote two versions in turn, so that each command changes the champion."""
    place.change(train={"epochs": 6})
    assert place.call(*RUN).returncode == 0
    asked = ("--override", "again", "--by", "Ada Roe")
    victims = [Victim(place, ("gliaflow", "promote", v, *asked), MOMENTS) for v in ("1", "2")]
    for victim in victims:
        victim.measure()
    for moment in range(MOMENTS):
        victim = victims[moment % 2]
        victim.kill(moment)
        victim.again()
        _check_champion(place, moment % 2 + 1)
    decisions = len(place.registry()["decisions"])
    return f"{', '.join(victim.seen() for victim in victims)}; {decisions} decisions recorded"


def _check_champion(place: Workplace, version: int) -> None:
    report = place.registry()
    assert report["champion"] == version, report["champion"]
    newest = report["decisions"][0]
    assert newest["verdict"] == "promote", newest
    assert newest["candidate"]["version"] == version, newest
