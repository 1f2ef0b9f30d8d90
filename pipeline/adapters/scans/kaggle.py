"""Download the published data set from Kaggle, after printing its terms of use."""

from pathlib import Path

from pipeline.errors import GliaflowError

KAGGLE_SET = "mateuszbuda/lgg-mri-segmentation"
TERMS = (
    f"The scans of {KAGGLE_SET} come from The Cancer Imaging Archive (TCGA-LGG); treat them as "
    "CC BY-NC-SA 4.0: non-commercial use, with attribution, and no attempt to identify patients."
)


def download() -> Path:
    """Print the terms of use, then download the data set; return its folder."""
    print(TERMS, flush=True)
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(KAGGLE_SET))
    except Exception as error:  # kagglehub raises what its HTTP client raises
        raise GliaflowError(
            f"{KAGGLE_SET} could not be downloaded from Kaggle ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); log in (KAGGLE_USERNAME and KAGGLE_KEY, or "
            "~/.kaggle/kaggle.json), or download the zip by hand and give its path with --source"
        ) from error
