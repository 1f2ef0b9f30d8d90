from pathlib import Path

import pytest

from pipeline.adapters.checkout.local_paths import LocalPaths

NAMES = [name for name, value in vars(LocalPaths).items() if isinstance(value, property)]


@pytest.mark.parametrize("name", NAMES)
def test_every_path_is_absolute_below_local(name):
    root = Path("/checkout")
    path = getattr(LocalPaths(root), name)
    assert path.is_relative_to(root / ".local")


def test_no_two_names_share_a_path():
    paths = [getattr(LocalPaths(Path("/checkout")), name) for name in NAMES]
    assert len(set(paths)) == len(paths) > 5
