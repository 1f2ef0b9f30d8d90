"""The model card of a registered version, as Markdown. Values in, text out."""

from collections.abc import Mapping
from typing import Any

SCORES = {
    "tversky": "Tversky",
    "dice": "Dice",
    "sensitivity": "Sensitivity",
    "precision": "Precision",
}
MAX_LENGTH = 4_800  # MLflow cuts descriptions at 5000 characters
LICENCES = {
    "phantom": "The scans are synthetic. Code and weights: Apache-2.0.",
    "scans": "Code: Apache-2.0. The LGG scans come from The Cancer Imaging Archive (TCGA-LGG), to be "
    "treated as CC BY-NC-SA 4.0; weights trained on them are for non-commercial use.",
}
LIMITS = """\
Not a medical device and not for clinical use. Trained on one data set of low-grade gliomas: other
scanners, sequences and tumours are unknown to it. Scores of few patients have wide intervals. A
slice without post-contrast or pre-contrast scores lower; see the groups."""
LOADING = """\
```python
model = mlflow.pyfunc.load_model("models:/{name}@champion")
answer = model.predict(scan)  # (slices, {height}, {width}, 3) uint8: pre-contrast, FLAIR, post-contrast
answer["mask"]                # (slices, {height}, {width}) uint8: 0 background, 1 tumour
```
`predict` also takes a list of scans, or a table with the columns `patient` and `file`. Intensity
scaling and post-processing are those that the scores were measured with. For probabilities alone:
`mlflow.keras.load_model`."""


def render(
    *,
    name: str,
    source: str,
    metrics: Mapping[str, Any],
    counts: Mapping[str, Mapping[str, int]],
    settings: Mapping[str, Any],
    height_px: int,
    width_px: int,
    digest: str,
) -> str:
    """Return the model card.

    Args:
        name: of the registered model. source: as in params.yaml.
        metrics: as in metrics.json.
        counts: as of `summaries.count_by_split`.
        settings: label to value, of training and post-processing.
        digest: of the lineage.
    """
    text = "\n\n".join(
        [
            f"# {name}\n\nSegments low-grade glioma in brain MRI, slice by slice. Lineage `{digest[:12]}`.",
            "## Data\n\n" + _data(source, counts),
            "## Protocol\n\n" + _protocol(settings),
            "## Scores on test patients\n\n" + _scores(metrics.get("test", {})),
            "## Groups of test patients\n\n" + _groups(metrics.get("groups", {})),
            f"## Limits\n\n{LIMITS}",
            "## Licence\n\n" + LICENCES["phantom" if source == "phantom" else "scans"],
            "## How to load it\n\n" + LOADING.format(name=name, height=height_px, width=width_px),
        ]
    )
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 4] + "\n..."


def _data(source: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    kind = "Synthetic scans." if source == "phantom" else "Real scans."
    rows = [
        f"| {split} | {counts['patients'][split]} | {counts['slices'][split]} "
        f"| {counts['tumour_slices'][split]} |"
        for split in counts["patients"]
    ]
    header = ["| split | patients | slices | with tumour |", "|---|---|---|---|"]
    return "\n".join([kind, "", *header, *rows])


def _protocol(settings: Mapping[str, Any]) -> str:
    unit = settings["unit"]
    split = (
        "Split by patient: no test patient was seen in training."
        if unit == "patient"
        else "Split by SLICE: test patients were seen in training; the scores are too high."
    )
    listed = ("image size", "epochs", "loss", "networks", "threshold", "regions kept")
    return " ".join([split, *(f"{label}: {settings[label]}." for label in listed)])


def _scores(test: Mapping[str, Any]) -> str:
    rows = [
        f"| {label} | {test[key]['mean']:.4f} | {test[key]['low']:.4f} to {test[key]['high']:.4f} "
        f"| {test[key]['patients']} |"
        for key, label in SCORES.items()
        if key in test
    ]
    return "\n".join(["| score | mean | 95 % interval | patients |", "|---|---|---|---|", *rows])


def _groups(groups: Mapping[str, Any]) -> str:
    rows = [
        f"| {grouping} | {group} | {_mean(scores)} |"
        for grouping, members in groups.items()
        for group, scores in members.items()
    ]
    return "\n".join(["| grouping | group | Tversky, patients |", "|---|---|---|", *rows])


def _mean(scores: Mapping[str, Any]) -> str:
    score = scores["tversky"]
    if not isinstance(score, Mapping):
        return f"{score}"
    return f"{score['mean']:.3f}, {score['patients']}"
