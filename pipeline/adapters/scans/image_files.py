"""Decode and encode slices as image files.

H x W pixels, C channels. Does not know patients or masks.
"""

import numpy as np

from pipeline.domain.tiff import read_structure

MAX_SIDE_PX = 4096  # the largest size that params.yaml allows; checked before pixels are decoded


def decode_image(content: bytes) -> np.ndarray:
    """Decode a tif of one page, without converting it.

    Returns:
        (H, W) or (H, W, C) in the file's own type; three channels are in RGB order.

    Raises:
        ValueError: the content is empty, no TIFF, of several pages, larger than `MAX_SIDE_PX`,
            of no stated size, or does not decode; says which.
    """
    import cv2

    if not content:
        raise ValueError("the file is empty")
    structure = read_structure(content)
    if structure.pages != 1:
        raise ValueError(f"it has {structure.pages} pages; expected one")
    if not structure.width or not structure.height:
        raise ValueError("it states no width or no height")
    _check_side(structure.width, structure.height)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # a header that claims an absurd size
        raise ValueError(f"it does not decode as an image ({error.err})") from error
    if image is None:
        raise ValueError("it does not decode as an image")
    # A file may state its size twice; OpenCV follows the first.
    _check_side(image.shape[1], image.shape[0])
    # OpenCV returns blue first. The first channel of a slice, pre-contrast, is the tif's red.
    if image.ndim == 3 and image.shape[2] == 3:
        return np.ascontiguousarray(image[..., ::-1])
    return np.asarray(image)


def _check_side(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE_PX:
        raise ValueError(f"it claims {width}x{height} px; expected at most {MAX_SIDE_PX} px a side")


def encode_tif(image: np.ndarray) -> bytes:
    """Encode an image as an uncompressed tif, as in the published data set.

    Args:
        image: (H, W) or (H, W, 3) uint8, RGB order.
    """
    import cv2

    pixels = image[..., ::-1] if image.ndim == 3 else image
    succeeded, buffer = cv2.imencode(".tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    assert succeeded
    return buffer.tobytes()
