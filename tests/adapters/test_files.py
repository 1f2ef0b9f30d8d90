from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from making import content

from pipeline.adapters import files
from pipeline.errors import GliaflowError

# FIPS 180-2, appendix B.1.
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def write_half(path: Path, *, is_folder: bool = False) -> None:
    with files.replacing(path) as beside:
        if is_folder:
            beside.mkdir()
        (beside / "part" if is_folder else beside).write_text("half")
        raise RuntimeError


def test_sha256_is_that_of_the_files_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256(tmp_path / "file") == SHA256_OF_ABC


def test_a_file_that_was_written_takes_the_place_of_the_old_one(tmp_path):
    (tmp_path / "file").write_text("old")
    with files.replacing(tmp_path / "file") as beside:
        beside.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert content(tmp_path) == {"file": b"new"}


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "file")
    assert content(tmp_path) == {"file": b"old"}


def test_a_writer_that_raises_before_it_wrote_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "new" / "file"):
        raise RuntimeError
    assert content(tmp_path) == {}


def test_a_folder_that_was_written_half_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "folder", is_folder=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    for word in ("old", "new"):
        with files.replacing(tmp_path / "folder") as beside:
            beside.mkdir()
            (beside / word).write_text(word)
    assert content(tmp_path) == {"folder/new": b"new"}


def test_text_round_trips_in_utf8(tmp_path):
    files.write_text(tmp_path / "new" / "file", "Größe «x»\n")
    assert (tmp_path / "new" / "file").read_bytes() == "Größe «x»\n".encode()


def test_json_round_trips(tmp_path):
    value = {"mean": 0.1, "names": ["ä", None], "nested": {"patients": 3}}
    files.write_json(tmp_path / "file.json", value)
    assert files.read_json(tmp_path / "file.json") == value


def test_json_refuses_what_is_no_number_and_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "file.json", {"mean": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "file.json", {"mean": float("nan")})
    assert files.read_json(tmp_path / "file.json") == {"mean": 0.5}


def test_tables_round_trip_to_the_last_bit(tmp_path):
    table = pd.DataFrame(
        {
            "patient": ["0012", "NA", "TCGA_CS_1"],
            "site": ["?", "NA", "CS"],
            "share": [0.1, 1 / 3, 1e-300],
            "tumour_pixels": [0, 5, 10**9],
            "note": ["comma, quote \"x\"", None, "Größe"],
        }
    )  # fmt: skip
    files.write_table(tmp_path / "table.csv", table)
    read = files.read_table(tmp_path / "table.csv")
    assert list(read.patient) == ["0012", "NA", "TCGA_CS_1"]
    assert list(read.site) == ["?", "NA", "CS"]
    assert list(read.share) == [0.1, 1 / 3, 1e-300]
    assert list(read.tumour_pixels) == [0, 5, 10**9]
    assert read.note[0] == 'comma, quote "x"'
    assert pd.isna(read.note[1])


def test_tables_have_one_line_end_on_every_system(tmp_path):
    files.write_table(tmp_path / "table.csv", pd.DataFrame({"patient": ["a", "b"]}))
    assert (tmp_path / "table.csv").read_bytes() == b"patient\na\nb\n"


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    files.write_table(tmp_path / "table.csv", pd.DataFrame(columns=["patient", "rule"]))
    read = files.read_table(tmp_path / "table.csv")
    assert (list(read), len(read)) == (["patient", "rule"], 0)


@pytest.mark.parametrize("read", [files.sha256, files.read_json, files.read_table])
def test_a_file_that_is_not_there_is_told_with_what_builds_it(tmp_path, read):
    with pytest.raises(GliaflowError, match=r"nowhere is not there; run `dvc repro`"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("body", [b"", b'{"mean": ', b"\xff\xfe"])
def test_broken_json_is_told_with_its_name(tmp_path, body):
    (tmp_path / "metrics.json").write_bytes(body)
    with pytest.raises(GliaflowError, match=r"metrics.json is no JSON"):
        files.read_json(tmp_path / "metrics.json")


@pytest.mark.parametrize("body", [b"", b"a,b\n1,2\n1,2,3\n", b"patient\n\xff\xfe\n"])
def test_a_broken_table_is_told_with_its_name(tmp_path, body):
    (tmp_path / "manifest.csv").write_bytes(body)
    with pytest.raises(GliaflowError, match=r"manifest.csv is no table"):
        files.read_table(tmp_path / "manifest.csv")


def pre_flair_post() -> np.ndarray:
    """(2, 3, 3) uint8 whose channels tell themselves apart: 10s, 20s, 30s."""
    return np.stack([np.arange(6).reshape(2, 3) + tens for tens in (10, 20, 30)], -1).astype("u1")


def test_a_tif_keeps_every_pixel_and_pre_contrast_first():
    read = files.decode_image(files.encode_tif(pre_flair_post()))
    assert read.dtype == np.uint8
    assert np.array_equal(read, pre_flair_post())
    assert list(read[0, 0]) == [10, 20, 30]


def test_pre_contrast_is_the_red_of_a_tif(tmp_path):
    (tmp_path / "slice.tif").write_bytes(files.encode_tif(pre_flair_post()))
    blue_green_red = cv2.imread(str(tmp_path / "slice.tif"), cv2.IMREAD_COLOR)
    assert list(blue_green_red[0, 0]) == [30, 20, 10]


def test_a_mask_keeps_every_pixel():
    mask = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    read = files.decode_image(files.encode_tif(mask))
    assert np.array_equal(read, mask)
    assert read.shape == (2, 3)


def test_sixteen_bits_stay_sixteen_bits():
    done, buffer = cv2.imencode(".tif", pre_flair_post().astype(np.uint16)[..., ::-1] * 1000)
    assert done
    read = files.decode_image(buffer.tobytes())
    assert read.dtype == np.uint16
    assert list(read[0, 0]) == [10_000, 20_000, 30_000]


def test_a_decoded_image_lies_in_one_piece():
    assert files.decode_image(files.encode_tif(pre_flair_post())).flags.c_contiguous


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image", "it does not decode as an image"),
        (files.encode_tif(pre_flair_post())[:20], "it does not decode as an image"),
    ],
)
def test_what_is_no_image_is_told_in_a_few_words(body, reason):
    with pytest.raises(ValueError, match=rf"^{reason}$"):
        files.decode_image(body)


def test_encoding_twice_gives_the_same_bytes():
    assert files.encode_tif(pre_flair_post()) == files.encode_tif(pre_flair_post())


def test_the_path_beside_lies_in_the_same_folder(tmp_path):
    path = Path(tmp_path / "file")
    with files.replacing(path) as beside:
        beside.write_text("x")
        assert beside.parent == path.parent
