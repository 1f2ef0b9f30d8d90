from making import content
from scan_sources import CLINICAL, KAGGLE_TWICE, SLICES, copy, error_of, make_folder

from pipeline.adapters.scans import kaggle


def test_if_kaggle_cannot_be_reached_the_error_comes_after_the_terms(raw, monkeypatch, capsys):
    def refuse(name: str) -> str:
        raise ConnectionError("no route\nto www.kaggle.com")

    monkeypatch.setattr("kagglehub.dataset_download", refuse)
    message = error_of("kaggle", raw)
    assert "mateuszbuda/lgg-mri-segmentation could not be downloaded from Kaggle" in message
    assert "no route to www.kaggle.com" in message
    assert "KAGGLE_USERNAME" in message
    assert "--source" in message
    assert "non-commercial use" in capsys.readouterr().out


def test_nothing_is_downloaded_from_kaggle_before_the_terms_are_printed(
    tmp_path, raw, monkeypatch, capsys
):
    printed = []

    def download(name: str) -> str:
        printed.append(capsys.readouterr().out)
        return str(make_folder(tmp_path / "downloaded", KAGGLE_TWICE))

    monkeypatch.setattr("kagglehub.dataset_download", download)
    assert copy("kaggle", raw).files == 5
    assert content(raw) == SLICES | {"data.csv": CLINICAL}
    assert printed == [kaggle.TERMS + "\n"]
