import numpy as np
import pandas as pd
import pytest

from pipeline.adapters import arrays, streaming
from pipeline.errors import GliaflowError
from pipeline.network import recipe

SIDE, FACTOR = 32, 2


@pytest.fixture
def stored(tmp_path):
    """Three patients of four slices on disk, and rows of most of them."""
    generator = np.random.default_rng(0)
    rows = []
    for patient in ("A_B_1", "A_B_2", "A_C_3"):
        images = generator.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
        masks = generator.integers(0, 2, (4, SIDE, SIDE), dtype=np.uint8)
        masks[0] = 0
        arrays.save(tmp_path, patient, arrays.Scan(images, masks))
        rows += [(patient, place, int(masks[place].sum())) for place in (0, 2, 3)]
    return tmp_path, pd.DataFrame(rows, columns=["patient", "position", "tumour_pixels"])


def in_memory(folder, rows) -> recipe.Slices:
    chosen = [(name, own.position.to_numpy()) for name, own in rows.groupby("patient")]
    loaded = arrays.load(folder, chosen, factor=FACTOR)
    return recipe.Slices(*loaded, has_tumour=rows.tumour_pixels.to_numpy() > 0)


def test_slices_read_while_training_are_those_that_memory_would_hold(stored):
    mapped, held = streaming.Mapped(*stored, factor=FACTOR), in_memory(*stored)
    chosen = np.array([[0, 3, 8], [1, 1, 5], [7, 2, 4]])
    parts = list(mapped.parts(chosen))
    assert len(parts) == 3
    for one, other in zip(parts, held.parts(chosen), strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.masks, other.masks)
        assert np.array_equal(one.chosen, other.chosen)
    assert np.array_equal(mapped.patients, held.patients)
    assert np.array_equal(mapped.has_tumour, held.has_tumour)


def test_a_scan_that_is_gone_is_a_sentence(stored):
    folder, rows = stored
    mapped = streaming.Mapped(folder, rows, factor=1)
    (folder / "A_B_2" / "images.npy").unlink()
    with pytest.raises(GliaflowError, match="run `dvc repro ingest`"):
        list(mapped.parts(np.array([[0, 4]])))
