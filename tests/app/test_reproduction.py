import pytest

from pipeline.app import reproduction
from pipeline.domain.comparison import Difference

SAME = dict.fromkeys(("code", "data", "split", "params", "weights"), True)
OTHER_WEIGHTS = SAME | {"weights": False}


def verdict(parts, mean: float, *noise: float) -> str:
    return reproduction._verdict(parts, Difference(mean, None, None, 5), noise)


def test_equal_parts_are_identical():
    assert verdict(SAME, 0.0) == "identical"


@pytest.mark.parametrize(
    ("mean", "noise", "expected"),
    [
        (0.01, (0.02, -0.005), "within seed noise"),
        (-0.02, (0.02,), "within seed noise"),
        (0.021, (0.02, -0.005), "different"),
        (0.0, (), "different"),  # nothing to compare with
    ],
)
def test_other_weights_are_compared_with_the_noise_of_replicates(mean, noise, expected):
    assert verdict(OTHER_WEIGHTS, mean, *noise) == expected


def test_other_data_are_different_whatever_the_score():
    assert verdict(OTHER_WEIGHTS | {"data": False}, 0.0, 0.5) == "different"
