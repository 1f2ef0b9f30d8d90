import numpy as np
import pandas as pd
import pytest

from pipeline.adapters.scans import arrays, training_sources
from pipeline.domain import intensity
from pipeline.errors import GliaflowError
from pipeline.network.training_data import SlicesInMemory

SIDE, FACTOR = 32, 2
STEPS = np.array([[0, 3, 8], [1, 1, 5], [7, 2, 4]])


@pytest.fixture(autouse=True)
def host_memory(monkeypatch):
    """Keep slices in the host's memory, as TensorFlow on a CPU does, whatever the machine."""
    monkeypatch.setattr("pipeline.network.backend.keeps_slices_on_device", lambda: False)


@pytest.fixture
def stored(tmp_path):
    """Three patients of four slices on disk, and the rows of three slices of each."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in ("A_B_1", "A_B_2", "A_C_3"):
        images = rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
        masks = rng.integers(0, 2, (4, SIDE, SIDE), dtype=np.uint8)
        masks[0] = 0
        arrays.save(tmp_path, patient, arrays.Scan(images, masks))
        rows += [(patient, position, int(masks[position].sum())) for position in (0, 2, 3)]
    return tmp_path, pd.DataFrame(rows, columns=["patient", "position", "tumour_pixels"])


def open_slices(stored, *, in_memory, by_scan=False):
    folder, rows = stored
    return training_sources.open_slices(
        folder, rows, factor=FACTOR, by_scan=by_scan, in_memory=in_memory
    )


def assert_same_parts(source, other, steps=STEPS):
    parts, other_parts = list(source.parts(steps)), list(other.parts(steps))
    assert len(parts) == len(other_parts) == len(steps)
    for part, other_part in zip(parts, other_parts, strict=True):
        assert np.array_equal(part.images, other_part.images)
        assert np.array_equal(part.masks, other_part.masks)
        assert np.array_equal(part.chosen, other_part.chosen)


@pytest.mark.parametrize("in_memory", [True, False])
def test_slices_are_those_of_the_rows_downsampled(stored, in_memory):
    folder, _ = stored
    source = open_slices(stored, in_memory=in_memory)
    assert list(source.patients) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(source.has_tumour) == [False, True, True] * 3
    (part,) = source.parts(np.array([[8, 0, 4]]))
    assert part.chosen.tolist() == [[0, 1, 2]]
    # Row 8 is slice 3 of the third patient, row 0 slice 0 of the first, row 4 slice 2 of the second.
    for i, (patient, position) in enumerate([("A_C_3", 3), ("A_B_1", 0), ("A_B_2", 2)]):
        scan = arrays.open_scan(folder, patient)
        only = slice(position, position + 1)
        assert np.array_equal(part.images[i], arrays.shrink_images(scan.images[only], FACTOR)[0])
        assert np.array_equal(part.masks[i], arrays.shrink_masks(scan.masks[only], FACTOR)[0])
    assert part.images.shape == (3, SIDE // FACTOR, SIDE // FACTOR, 3)
    assert part.images.dtype == part.masks.dtype == np.uint8


@pytest.mark.parametrize("by_scan", [False, True])
def test_streamed_slices_equal_slices_in_memory(stored, by_scan):
    in_memory = open_slices(stored, in_memory=True, by_scan=by_scan)
    streamed = open_slices(stored, in_memory=False, by_scan=by_scan)
    assert isinstance(in_memory, SlicesInMemory)
    assert isinstance(streamed, training_sources.StreamedSlices)
    assert_same_parts(streamed, in_memory)
    assert np.array_equal(streamed.patients, in_memory.patients)
    assert np.array_equal(streamed.has_tumour, in_memory.has_tumour)


@pytest.mark.parametrize("in_memory", [True, False])
def test_intensities_are_normalised_by_all_slices_of_the_scan(stored, in_memory):
    scan = arrays.open_scan(stored[0], "A_B_1")
    scaled = intensity.apply_scale(scan.images[2:3], intensity.estimate_scale(scan.images))
    (part,) = open_slices(stored, in_memory=in_memory, by_scan=True).parts(np.array([[1]]))
    assert not np.array_equal(scaled, scan.images[2:3])
    assert np.array_equal(part.images, arrays.shrink_images(scaled, FACTOR))


def test_slices_in_memory_need_no_files_once_they_are_open(stored):
    source = open_slices(stored, in_memory=True)
    before = [part.images.copy() for part in source.parts(STEPS)]
    for path in stored[0].rglob("*.npy"):
        path.unlink()
    assert np.array_equal([part.images for part in source.parts(STEPS)], before)


def test_slices_lie_on_the_device_where_that_trains_faster(stored, monkeypatch):
    monkeypatch.setattr("pipeline.network.backend.keeps_slices_on_device", lambda: True)
    source = open_slices(stored, in_memory=True)
    assert isinstance(source, SlicesInMemory)
    (part,) = source.parts(STEPS)
    assert np.array_equal(part.chosen, STEPS)
    host = open_slices(stored, in_memory=False)
    for step, host_part in zip(STEPS, host.parts(STEPS), strict=True):
        assert np.array_equal(np.asarray(part.images)[step], host_part.images)


def test_a_streamed_scan_that_is_gone_is_an_error(stored):
    folder, rows = stored
    source = training_sources.StreamedSlices(folder, rows, factor=1)
    (folder / "A_B_2" / "images.npy").unlink()
    with pytest.raises(GliaflowError, match="run `dvc repro ingest`"):
        list(source.parts(np.array([[0, 4]])))


def test_memory_counts_three_channels_and_the_mask():
    # 1024 * 256 * 256 * 4 bytes = 2**28 bytes.
    assert training_sources.gib_in_memory(1024, side=256) == 0.25
