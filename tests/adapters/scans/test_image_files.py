import struct

import cv2
import numpy as np
import pytest

from pipeline.adapters.scans import image_files


def three_channels() -> np.ndarray:
    """(2, 3, 3) uint8: pre-contrast 10 to 15, FLAIR 20 to 25, post-contrast 30 to 35."""
    return np.stack([np.arange(6).reshape(2, 3) + tens for tens in (10, 20, 30)], -1).astype("u1")


def test_a_tif_keeps_every_pixel_and_pre_contrast_first():
    decoded = image_files.decode_image(image_files.encode_tif(three_channels()))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, three_channels())
    assert list(decoded[0, 0]) == [10, 20, 30]


def test_pre_contrast_is_the_red_channel_of_a_tif(tmp_path):
    (tmp_path / "slice.tif").write_bytes(image_files.encode_tif(three_channels()))
    blue_green_red = cv2.imread(str(tmp_path / "slice.tif"), cv2.IMREAD_COLOR)
    assert list(blue_green_red[0, 0]) == [30, 20, 10]


def test_a_mask_keeps_every_pixel():
    mask = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    decoded = image_files.decode_image(image_files.encode_tif(mask))
    assert np.array_equal(decoded, mask)
    assert decoded.shape == (2, 3)


def jpeg() -> bytes:
    succeeded, buffer = cv2.imencode(".jpg", three_channels())
    assert succeeded
    return buffer.tobytes()


def two_pages() -> bytes:
    succeeded, buffer = cv2.imencodemulti(".tif", [three_channels(), three_channels()])
    assert succeeded
    return buffer.tobytes()


def of_size(side: int, *, kind: int = 4) -> bytes:
    """A tif whose directory claims side x side pixels, as numbers of some type; there are none."""
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, side) for tag in (256, 257))
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)


def wide_that_claims_to_be_narrow() -> bytes:
    """A tif of 4100 x 1 pixels that states its width a second time, as 16."""
    pixels = bytes(4100)
    tags = [(256, 4100), (256, 16), (257, 1), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    offset = 8 + 2 + (len(tags) + 2) * 12 + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in [*tags, (273, offset), (279, len(pixels))]
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 2) + entries + bytes(4) + pixels


def test_sixteen_bits_stay_sixteen_bits():
    pixels = three_channels().astype(np.uint16) * 1000
    succeeded, buffer = cv2.imencode(".tif", pixels[..., ::-1])
    assert succeeded
    decoded = image_files.decode_image(buffer.tobytes())
    assert decoded.dtype == np.uint16
    assert list(decoded[0, 0]) == [10_000, 20_000, 30_000]


def test_a_decoded_image_is_contiguous_in_memory():
    decoded = image_files.decode_image(image_files.encode_tif(three_channels()))
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image", r"it is no TIFF file \(it begins with b'no i'\)"),
        (image_files.encode_tif(three_channels())[:20], "its TIFF directory is cut off"),
        (jpeg(), r"it is no TIFF file \(it begins with .*\)"),
        (two_pages(), "it has 2 pages; expected one"),
        (of_size(60_000), "it claims 60000x60000 px; expected at most 4096 px a side"),
        (of_size(60_000, kind=9), "it states no width or no height"),
        (of_size(0), "it states no width or no height"),
        (wide_that_claims_to_be_narrow(), "it claims 4100x1 px; expected at most 4096 px a side"),
    ],
)
def test_content_that_is_no_image_is_an_error_with_the_reason(body, reason):
    with pytest.raises(ValueError, match=rf"^{reason}$"):
        image_files.decode_image(body)


def test_encoding_twice_gives_the_same_bytes():
    assert image_files.encode_tif(three_channels()) == image_files.encode_tif(three_channels())
