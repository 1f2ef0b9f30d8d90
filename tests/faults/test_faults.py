"""The short part of the fault matrix, on one checkout; `make faults` runs all of it."""

import pytest

from faults import cases  # noqa: F401 - fills the matrix
from faults.matrix import FAULTS, Fault, run
from faults.workplace import Workplace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.is_short], ids=lambda fault: fault.name
)
def test_what_must_hold_after_a_fault_holds(fault: Fault, place: Workplace):
    result = run(fault, place)
    if result.outcome == "skipped":
        pytest.skip(result.seen)
    assert result.outcome == "holds", result.seen
