import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from pipeline.domain.phantom import PhantomScan, generate, patient_names
from pipeline.domain.scans import image_facts, is_flat, missing_sequences

PRE, FLAIR, POST = range(3)


@pytest.fixture(scope="module")
def many_scans() -> list[PhantomScan]:
    names = patient_names(patients=150, seed=3)
    return [generate(name, slices=9, size_px=32, seed=3) for name in names]


@pytest.fixture(scope="module")
def large_scans() -> list[PhantomScan]:
    names = patient_names(patients=20, seed=20)
    return [generate(name, slices=6, size_px=256, seed=20) for name in names]


def as_bytes(scan: PhantomScan) -> tuple[str, bytes, bytes]:
    return scan.patient, scan.images.tobytes(), scan.masks.tobytes()


def is_copy(scan: PhantomScan, channel: int) -> bool:
    return np.array_equal(scan.images[..., channel], scan.images[..., FLAIR])


def blank_channels(scan: PhantomScan) -> np.ndarray:
    return ~scan.images.any(axis=(1, 2))  # (S, 3)


@pytest.mark.parametrize("size_px", [32, 100, 256])
def test_a_scan_has_the_documented_shapes_and_types(size_px):
    scan = generate("PHANTOM_AX_0001_20010101", slices=6, size_px=size_px, seed=1)
    slices = len(scan.images)
    assert scan.images.shape == (slices, size_px, size_px, 3)
    assert scan.images.dtype == np.uint8
    assert scan.masks.shape == (slices, size_px, size_px)
    assert scan.masks.dtype == np.bool_
    assert scan.patient == "PHANTOM_AX_0001_20010101"


def test_the_same_seed_gives_the_same_bytes():
    first, again = (
        generate("PHANTOM_BR_0002_20010101", slices=7, size_px=64, seed=5) for _ in "ab"
    )
    assert as_bytes(first) == as_bytes(again)


def test_another_process_gives_the_same_bytes():
    code = (
        "import hashlib; from pipeline.domain.phantom import generate;"
        "scan = generate('PHANTOM_BR_0002_20010101', slices=7, size_px=64, seed=5);"
        "print(hashlib.sha256(scan.images.tobytes() + scan.masks.tobytes()).hexdigest())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    scan = generate("PHANTOM_BR_0002_20010101", slices=7, size_px=64, seed=5)
    digest = hashlib.sha256(scan.images.tobytes() + scan.masks.tobytes()).hexdigest()
    assert process.stdout.strip() == digest


def test_another_seed_gives_another_head():
    first, second = (
        generate("PHANTOM_BR_0002_20010101", slices=7, size_px=64, seed=seed) for seed in (5, 6)
    )
    assert as_bytes(first) != as_bytes(second)


def test_adding_patients_changes_no_patient():
    few, many = patient_names(patients=4, seed=9), patient_names(patients=30, seed=9)
    assert many[:4] == few
    alone = generate(few[3], slices=6, size_px=32, seed=9)
    among_others = [generate(name, slices=6, size_px=32, seed=9) for name in many[:8]][3]
    assert as_bytes(alone) == as_bytes(among_others)


def test_no_name_appears_twice():
    names = patient_names(patients=500, seed=20)
    assert len(set(names)) == 500


def test_sites_have_unequal_shares_of_the_patients():
    counts = Counter(name.split("_")[1] for name in patient_names(patients=500, seed=20))
    assert len(counts) == 5
    assert max(counts.values()) > 5 * min(counts.values())


def test_the_number_of_slices_varies_around_the_given_mean(many_scans):
    counts = [len(scan.masks) for scan in many_scans]
    assert min(counts) >= 6 and max(counts) <= 12
    assert len(set(counts)) >= 4
    assert np.mean(counts) == pytest.approx(9, abs=0.5)


@pytest.mark.parametrize("slices", [5, 30])
def test_every_patient_has_slices_with_and_without_tumour(many_scans, slices):
    names = [scan.patient for scan in many_scans[:15]]
    for scan in many_scans + [generate(name, slices=slices, size_px=32, seed=4) for name in names]:
        with_tumour = scan.masks.any(axis=(1, 2))
        assert with_tumour.any(), scan.patient
        assert not with_tumour[0] and not with_tumour[-1], scan.patient


def test_about_a_third_of_the_slices_have_tumour(many_scans):
    with_tumour = np.concatenate([scan.masks.any(axis=(1, 2)) for scan in many_scans])
    assert 0.25 < with_tumour.mean() < 0.45


def test_lesions_range_from_a_few_to_thousands_of_pixels(large_scans):
    pixels = np.concatenate([scan.masks.sum(axis=(1, 2)) for scan in large_scans])
    pixels = pixels[pixels > 0]
    assert pixels.min() < 100
    assert pixels.max() > 2000
    assert pixels.max() < 10_000


def test_tumour_is_brighter_on_flair_than_the_brain_around_it(large_scans):
    for scan in large_scans:
        number = int(scan.masks.sum(axis=(1, 2)).argmax())
        flair, mask = scan.images[number, ..., FLAIR], scan.masks[number]
        rows, columns = np.nonzero(mask)
        box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        around = np.median(flair[box][~mask[box]])
        assert np.median(flair[mask]) > around, scan.patient


def test_no_tumour_lies_outside_the_head(large_scans):
    for scan in large_scans:
        dark = scan.images.max(axis=-1) < 5
        assert (dark & scan.masks).sum() <= 0.02 * scan.masks.sum(), scan.patient


def test_a_tenth_of_the_patients_have_missing_sequences_that_copy_flair_exactly(many_scans):
    both = [scan for scan in many_scans if is_copy(scan, PRE)]
    post = [scan for scan in many_scans if is_copy(scan, POST) and not is_copy(scan, PRE)]
    assert all(is_copy(scan, POST) for scan in both)
    assert both and post
    assert 0.04 < (len(both) + len(post)) / len(many_scans) < 0.2
    facts = [image_facts(image)["missing"] for image in both[0].images]
    assert set(missing_sequences(map(str, facts)).split()) == {"pre", "post"}


def test_some_tumour_free_slices_have_blank_channels_and_no_tumour_slice_has(many_scans):
    slices_with_blank = 0
    for scan in many_scans:
        blank = blank_channels(scan).any(axis=1)
        slices_with_blank += int(blank.sum())
        assert not (blank & scan.masks.any(axis=(1, 2))).any(), scan.patient
    assert 0.003 < slices_with_blank / sum(len(scan.masks) for scan in many_scans) < 0.04


def test_no_image_is_flat(many_scans):
    assert not any(is_flat(image) for scan in many_scans for image in scan.images)


def test_no_two_images_are_equal(many_scans):
    digests = [
        hashlib.sha256(image.tobytes()).digest() for scan in many_scans for image in scan.images
    ]
    assert len(set(digests)) == len(digests)


def test_the_head_is_smaller_at_both_ends_than_in_the_middle(large_scans):
    for scan in large_scans:
        head = (scan.images.max(axis=-1) > 20).sum(axis=(1, 2))
        assert head[0] < head[len(head) // 2] > head[-1], scan.patient


def test_brightness_differs_by_patient(large_scans):
    flair = [float(scan.images[..., FLAIR].max(axis=(1, 2)).mean()) for scan in large_scans]
    assert max(flair) > 1.5 * min(flair)


def test_a_smaller_scan_shows_the_same_tumour():
    large, small = (
        generate("PHANTOM_CY_0003_20010101", slices=8, size_px=size, seed=2) for size in (256, 64)
    )
    coarse = large.masks.reshape(-1, 64, 4, 64, 4).mean(axis=(2, 4)) >= 0.5
    overlap = 2 * (coarse & small.masks).sum() / (coarse.sum() + small.masks.sum())
    assert overlap > 0.85


def test_no_flair_threshold_segments_the_tumours(large_scans):
    best = max(mean_dice(large_scans, threshold) for threshold in range(20, 250, 10))
    assert best < 0.45


def mean_dice(scans: list[PhantomScan], threshold: int) -> float:
    """The mean Dice of scans segmented by a threshold on FLAIR."""
    scores = []
    for scan in scans:
        predicted = scan.images[..., FLAIR] >= threshold
        hits = (predicted & scan.masks).sum()
        scores.append(2 * hits / (predicted.sum() + scan.masks.sum()))
    return float(np.mean(scores))
