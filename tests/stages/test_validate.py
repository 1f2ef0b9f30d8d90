from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from making import content, image, mask, parameters, write_patient, write_tif

from pipeline.adapters.scans import arrays
from pipeline.adapters.storage import csv_files
from pipeline.domain import recall
from pipeline.errors import GliaflowError
from pipeline.stages import ingest, validate

GOOD = [f"GOOD_AX_{number:02d}" for number in range(1, 13)]
Damage = Callable[[Path, str], object]  # changes files, by the patient's folder and name
BLACK = np.zeros((32, 32, 3), np.uint8)


@dataclass(frozen=True)
class Broken:
    """A patient of three valid slices, how its files are damaged, and the expected finding.

    file: name of the reported file, or its end after `<patient>_`.
    """

    patient: str
    damage: Damage
    rule: str
    file: str
    found: str
    expected: str


def put(ending: str, pixels: np.ndarray) -> Damage:
    return lambda folder, patient: write_tif(folder / f"{patient}_{ending}", pixels)


def put_bytes(ending: str, body: bytes) -> Damage:
    return lambda folder, patient: (folder / f"{patient}_{ending}").write_bytes(body)


def remove(*endings: str) -> Damage:
    def damage(folder: Path, patient: str) -> None:
        for ending in endings:
            (folder / f"{patient}_{ending}").unlink()

    return damage


def put_into_batch(batch: str, ending: str, pixels: np.ndarray) -> Damage:
    def damage(folder: Path, patient: str) -> None:
        other = folder.parents[1] / batch / patient
        other.mkdir(parents=True)
        write_tif(other / f"{patient}_{ending}", pixels)

    return damage


def put_smaller_slice(folder: Path, patient: str) -> None:
    write_tif(folder / f"{patient}_2.tif", image(patient, 2, size_px=16))
    write_tif(folder / f"{patient}_2_mask.tif", mask(5, size_px=16))


def put_named(name: str) -> Damage:
    return lambda folder, patient: write_tif(folder / name, image("stray", 4))


PIXELS = image("some", 2)
DECODES = "an image and a mask that decode"
NUMBERED = "every number once, from 1 without gaps"
NAMED = "<patient>_<number>.tif in the folder <patient>"
PLANE = "one channel, of the image's height and width"
KINDS = {
    "unreadable image": Broken(
        "BAD_AX_01", put_bytes("2.tif", b"no image"), "unreadable", "2.tif",
        "image: it is no TIFF file (it begins with b'no i')", DECODES,
    ),
    "unreadable mask": Broken(
        "BAD_AX_02", put_bytes("2_mask.tif", b"no image"), "unreadable", "2_mask.tif",
        "mask: it is no TIFF file (it begins with b'no i')", DECODES,
    ),
    "empty image": Broken(
        "BAD_AX_03", put_bytes("2.tif", b""), "unreadable", "2.tif",
        "image: the file is empty", DECODES,
    ),
    "16-bit image": Broken(
        "BAD_AX_04", put("2.tif", PIXELS.astype(np.uint16) * 256), "type", "2.tif", "uint16", "uint8"
    ),
    "grey image": Broken(
        "BAD_AX_05", put("2.tif", PIXELS[..., 0]), "shape", "2.tif", "32x32x1", "32x32x3"
    ),
    "slice of another size": Broken(
        "BAD_AX_06", put_smaller_slice, "shape", "2.tif", "16x16x3", "32x32x3"
    ),
    "mask of another size": Broken(
        "BAD_AX_07", put("2_mask.tif", mask(5, size_px=16)), "mask size", "2_mask.tif",
        "16x16x1", PLANE,
    ),
    "mask of three channels": Broken(
        "BAD_AX_08", put("2_mask.tif", np.repeat(mask(5)[..., None], 3, axis=2)), "mask size",
        "2_mask.tif", "32x32x3", PLANE,
    ),
    "16-bit mask": Broken(
        "BAD_AX_09", put("2_mask.tif", mask(5).astype(np.uint16)), "mask type", "2_mask.tif",
        "uint16", "uint8",
    ),
    "mask with value 128": Broken(
        "BAD_AX_10", put("2_mask.tif", mask(5) // 255 * 128), "mask values", "2_mask.tif",
        "0 128", "0 and 255 alone",
    ),
    "image without mask": Broken(
        "BAD_AX_11", remove("2_mask.tif"), "image without mask", "2.tif", "nothing",
        "a mask beside every image, empty where there is no tumour",
    ),
    "mask without image": Broken(
        "BAD_AX_12", remove("2.tif"), "mask without image", "2_mask.tif", "nothing",
        "an image beside every mask",
    ),
    "gap": Broken(
        "BAD_AX_13", remove("2.tif", "2_mask.tif"), "slice numbers", "1.tif",
        "slice 2 not there", NUMBERED,
    ),
    "doubled number": Broken(
        "BAD_AX_14", put("01.tif", PIXELS[::-1]), "slice numbers", "01.tif", "slice 1 twice",
        NUMBERED,
    ),
    "other content in a later batch": Broken(
        "BAD_AX_15", put_into_batch("later", "2.tif", PIXELS[:, ::-1]), "conflict", "2.tif",
        "other content than source/BAD_AX_15/BAD_AX_15_2.tif",
        "the bytes that are there already; the earlier scan stays in use",
    ),
    "name of another patient": Broken(
        "BAD_AX_16", put_named("OTHER_AX_01_4.tif"), "file name", "OTHER_AX_01_4.tif",
        "OTHER_AX_01_4.tif", NAMED,
    ),
    "name of another patient's mask": Broken(
        "BAD_AX_17", put_named("OTHER_AX_01_4_mask.tif"), "file name", "OTHER_AX_01_4_mask.tif",
        "OTHER_AX_01_4_mask.tif", NAMED,
    ),
    "same image, first": Broken(
        "BAD_AX_18", put("2.tif", image("twin", 2)), "same image", "2.tif",
        "BAD_AX_19 (source/BAD_AX_19/BAD_AX_19_3.tif)",
        "an image that no other patient holds; remove one of the copies",
    ),
    "same image, second": Broken(
        "BAD_AX_19", put("3.tif", image("twin", 2)), "same image", "3.tif",
        "BAD_AX_18 (source/BAD_AX_18/BAD_AX_18_2.tif)",
        "an image that no other patient holds; remove one of the copies",
    ),
    "inverted mask": Broken(
        "BAD_AX_20", put("2_mask.tif", 255 - mask(5)), "mask area", "2_mask.tif",
        "99.6 % of the slice",
        "tumour on at most half of the slice; check that the mask is not inverted",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Outputs:
    """The files that ingest and validate wrote."""

    root: Path

    @property
    def quarantine(self) -> pd.DataFrame:
        return csv_files.read_table(self.root / "quarantine.csv")

    def findings_of(self, patient: str) -> pd.DataFrame:
        return self.quarantine[self.quarantine.patient == patient]


def run(raw: Path, **limits: float) -> Outputs:
    root = raw.parent
    params = parameters(validate=limits)
    manifest = root / "manifest.csv"
    ingest.run(params, code="code", raw=raw, scans=root / "scans", manifest=manifest)
    validate.run(
        params,
        manifest=manifest,
        recalled=recalled(root),
        quarantine=root / "quarantine.csv",
        docs=root / "docs",
    )
    return Outputs(root)


def recalled(root: Path, *patients: str) -> Path:
    """Write the list of withdrawn patients."""
    rows = [{"patient": patient, "when": "", "who": "Ada", "why": ""} for patient in patients]
    path = root / "recalled.csv"
    csv_files.write_table(path, pd.DataFrame(rows, columns=recall.COLUMNS))
    return path


def write_good(raw: Path, patients: list[str], *, tumour_pixels: int = 5) -> None:
    """Write valid patients; their first slice is black, as often in real scans."""
    for patient in patients:
        folder = write_patient(raw / "source" / patient, tumour_pixels=tumour_pixels)
        write_tif(folder / f"{patient}_1.tif", BLACK)


def damage_first_patient(raw: Path) -> None:
    KINDS["empty image"].damage(raw / "source" / GOOD[0], GOOD[0])


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory) -> Outputs:
    """One run over twelve good patients and one for each kind of damage."""
    raw = tmp_path_factory.mktemp("broken") / "raw"
    write_good(raw, GOOD)
    for kind in KINDS.values():
        kind.damage(write_patient(raw / "source" / kind.patient), kind.patient)
    return run(raw, max_quarantined=1.0)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_broken_patient_is_in_quarantine_with_rule_file_found_and_expected(all_kinds, kind):
    findings = all_kinds.findings_of(kind.patient)
    (finding,) = findings[findings.rule == kind.rule].to_dict("records")
    assert finding["found"] == kind.found
    assert finding["expected"] == kind.expected
    batch, patient, name = finding["file"].split("/")
    assert (batch, patient) == ("later" if kind.rule == "conflict" else "source", kind.patient)
    assert name in (kind.file, f"{kind.patient}_{kind.file}")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_fault_gives_a_single_finding(all_kinds, kind):
    assert list(all_kinds.findings_of(kind.patient).rule) == [kind.rule]


def test_good_patients_are_not_in_quarantine(all_kinds):
    assert set(all_kinds.quarantine.patient) == {kind.patient for kind in KINDS.values()}


def test_good_patients_keep_their_pixels(all_kinds):
    for patient in GOOD:
        scan = arrays.open_scan(all_kinds.root / "scans", patient)
        assert np.array_equal(scan.images, [BLACK, image(patient, 2), image(patient, 3)])
        assert np.array_equal(scan.masks * 255, [mask(0), mask(5), mask(5)])


def test_quarantine_has_the_documented_columns(all_kinds):
    assert list(all_kinds.quarantine) == ["patient", "rule", "file", "found", "expected"]


def test_a_valid_data_set_gives_an_empty_quarantine(tmp_path):
    write_good(tmp_path / "raw", GOOD[:3])
    outputs = run(tmp_path / "raw", min_patients=3, max_quarantined=0.0)
    assert outputs.quarantine.empty
    assert (outputs.root / "quarantine.csv").read_text() == "patient,rule,file,found,expected\n"


def test_too_few_patients_are_an_error_with_number_and_limit(tmp_path):
    write_good(tmp_path / "raw", GOOD[:3])
    with pytest.raises(GliaflowError, match=r"^3 patients are fit to use; expected at least 4 "):
        run(tmp_path / "raw", min_patients=4)


def test_patients_in_quarantine_do_not_count_as_fit_to_use(tmp_path):
    write_good(tmp_path / "raw", GOOD[:4])
    damage_first_patient(tmp_path / "raw")
    with pytest.raises(GliaflowError, match=r"^3 patients are fit to use; expected at least 4 "):
        run(tmp_path / "raw", min_patients=4, max_quarantined=0.25)


def test_too_large_a_share_in_quarantine_is_an_error_with_share_and_limit(tmp_path):
    write_good(tmp_path / "raw", GOOD[:4])
    damage_first_patient(tmp_path / "raw")
    with pytest.raises(
        GliaflowError, match=r"^25% of the patients are in quarantine; allowed: 20% "
    ):
        run(tmp_path / "raw", min_patients=1, max_quarantined=0.2)
    assert list(Outputs(tmp_path).quarantine.patient) == [GOOD[0]]


def test_a_share_in_quarantine_at_the_limit_is_accepted(tmp_path):
    write_good(tmp_path / "raw", GOOD[:4])
    damage_first_patient(tmp_path / "raw")
    outputs = run(tmp_path / "raw", min_patients=3, max_quarantined=0.25)
    assert list(outputs.quarantine.patient) == [GOOD[0]]


def test_a_data_set_without_tumour_is_an_error(tmp_path):
    write_good(tmp_path / "raw", GOOD[:3], tumour_pixels=0)
    with pytest.raises(GliaflowError, match=r"^no accepted slice has tumour; expected some"):
        run(tmp_path / "raw", min_patients=3)
    assert Outputs(tmp_path).quarantine.empty


def test_a_data_set_whose_masks_are_all_empty_or_half_full_is_valid(tmp_path):
    write_good(tmp_path / "raw", GOOD[:3], tumour_pixels=32 * 16)
    assert run(tmp_path / "raw", min_patients=3).quarantine.empty


def test_patients_named_by_numbers_keep_their_names_in_quarantine(tmp_path):
    write_good(tmp_path / "raw", ["0012", "0013", "0014"])
    for patient in ("0012", "0013"):
        write_tif(tmp_path / "raw" / "source" / patient / f"{patient}_2.tif", PIXELS)
    quarantine = run(tmp_path / "raw", min_patients=1, max_quarantined=1.0).quarantine
    assert list(zip(quarantine.patient, quarantine.found, strict=True)) == [
        ("0012", "0013 (source/0013/0013_2.tif)"),
        ("0013", "0012 (source/0012/0012_2.tif)"),
    ]


def test_of_a_patient_and_its_copy_under_another_name_only_the_later_is_in_quarantine(tmp_path):
    write_good(tmp_path / "raw", GOOD[:4])
    copy = tmp_path / "raw" / "later" / "COPY_AX_01"
    copy.mkdir(parents=True)
    for path in (tmp_path / "raw" / "source" / GOOD[0]).iterdir():
        (copy / path.name.replace(GOOD[0], copy.name)).write_bytes(path.read_bytes())
    quarantine = run(tmp_path / "raw", min_patients=3, max_quarantined=0.25).quarantine
    assert set(quarantine.patient) == {copy.name}
    assert list(quarantine.found) == [
        f"{GOOD[0]} (source/{GOOD[0]}/{GOOD[0]}_{number}.tif)" for number in (2, 3)
    ]


def test_all_broken_rules_of_the_data_set_are_reported_together(tmp_path):
    write_good(tmp_path / "raw", GOOD[:1])
    damage_first_patient(tmp_path / "raw")
    with pytest.raises(GliaflowError) as raised:
        run(tmp_path / "raw", min_patients=1, max_quarantined=0.2)
    assert "0 patients are fit to use; expected at least 1" in str(raised.value)
    assert "100% of the patients are in quarantine; allowed: 20%" in str(raised.value)
    assert "no accepted slice has tumour" in str(raised.value)


def test_two_runs_give_the_same_quarantine_and_pages(all_kinds, tmp_path):
    again = Outputs(tmp_path)
    validate.run(
        parameters(validate={"max_quarantined": 1.0}),
        manifest=all_kinds.root / "manifest.csv",
        recalled=recalled(again.root),
        quarantine=again.root / "quarantine.csv",
        docs=again.root / "docs",
    )
    assert content(again.root / "docs") == content(all_kinds.root / "docs")
    assert again.quarantine.equals(all_kinds.quarantine)


def test_the_printed_lines_count_patients_and_name_every_finding(tmp_path, capsys):
    write_good(tmp_path / "raw", GOOD[:4])
    damage_first_patient(tmp_path / "raw")
    capsys.readouterr()
    run(tmp_path / "raw", min_patients=3, max_quarantined=0.25)
    assert [line for line in capsys.readouterr().out.splitlines() if "validate" in line] == [
        "validate: 3 patients accepted, 1 in quarantine",
        f"validate: quarantine: {GOOD[0]}: unreadable (source/{GOOD[0]}/{GOOD[0]}_2.tif)",
    ]


def test_a_recalled_patient_is_kept_out_and_no_fault_of_the_data_set(tmp_path):
    write_good(tmp_path / "raw", GOOD)
    outputs = run(tmp_path / "raw", min_patients=1, max_quarantined=0.2)
    assert outputs.quarantine.empty
    validate.run(
        parameters(validate={"min_patients": 1, "max_quarantined": 0.0}),
        manifest=tmp_path / "manifest.csv",
        recalled=recalled(tmp_path, GOOD[0], "somebody else"),
        quarantine=tmp_path / "quarantine.csv",
        docs=tmp_path / "docs",
    )
    (finding,) = outputs.quarantine.to_dict("records")
    assert (finding["patient"], finding["rule"], finding["file"]) == (
        GOOD[0], "recalled", "recalled.csv",
    )  # fmt: skip
