import cv2
import numpy as np

from pipeline.adapters.report import overlays

IMAGE = np.full((8, 8, 3), 60, np.uint8)
EMPTY = np.zeros((8, 8), bool)


def square(top: int, left: int) -> np.ndarray:
    """A mask of 2 x 2 pixels."""
    mask = EMPTY.copy()
    mask[top : top + 2, left : left + 2] = True
    return mask


def coloured(overlay: np.ndarray, colour: tuple[int, int, int]) -> set[tuple[int, int]]:
    return set(zip(*map(list, np.nonzero((overlay == colour).all(axis=-1))), strict=True))


def test_an_overlay_is_flair_in_grey_at_twice_the_size():
    image = IMAGE.copy()
    image[..., 1] = 200  # FLAIR is the second channel
    overlay = overlays.draw_overlay(image, EMPTY, None)
    assert overlay.shape == (16, 16, 3)
    assert (overlay == 200).all()


def test_the_outline_of_a_mask_leaves_its_inside_free():
    overlay = overlays.draw_overlay(IMAGE, square(2, 2), None)
    # Pixels 2 and 3 become 4 to 7; the outline is the outer ring of that square.
    ring = {(y, x) for y in range(4, 8) for x in range(4, 8) if {y, x} & {4, 7}}
    assert coloured(overlay, overlays.PREDICTED) == ring
    assert coloured(overlay, overlays.REFERENCE) == set()


def test_the_prediction_is_drawn_over_the_reference():
    overlay = overlays.draw_overlay(IMAGE, square(2, 2), square(2, 2))
    assert len(coloured(overlay, overlays.PREDICTED)) == 12
    assert coloured(overlay, overlays.REFERENCE) == set()
    overlay = overlays.draw_overlay(IMAGE, square(2, 2), square(5, 5))
    assert len(coloured(overlay, overlays.REFERENCE)) == 12


def test_a_png_keeps_its_colours(tmp_path):
    overlay = overlays.draw_overlay(IMAGE, square(2, 2), square(5, 5))
    overlays.save_png(tmp_path / "overlay.png", overlay)
    read = cv2.imread(str(tmp_path / "overlay.png"))
    assert np.array_equal(read[..., ::-1], overlay)
