"""Describe the parameters of a run as text, for the report."""

from pathlib import Path
from typing import Any

from pipeline.params import Params, Refine, Train


def describe(params: Params) -> dict[str, Any]:
    """Return the settings that a reader of the report needs, label to value.

    The page also reads `unit`, `source`, `missed_weight` and `weights kept`; other labels are
    only shown.
    """
    train, evaluate, source = params.train, params.evaluate, params.fetch.source
    refine = train.refine if train.refine.epochs else None
    networks = train.networks * (2 if refine else 1)
    limit = "at most " if train.schedule == "plateau" else ""
    return {
        "source": source if source.startswith("s3://") else Path(source).name,
        "unit": params.split.unit,
        "salt": params.split.salt,
        "training slices": train.slices,
        "intensity": "normalised per scan" if train.intensity == "scan" else "raw",
        "image size": f"{train.image_size} px"
        + (f", then {2 * train.image_size} px" if refine else ""),
        "filters": ", ".join(map(str, train.filters)),
        "batch": str(train.batch),
        "epochs": f"{limit}{train.epochs}" + (f", then {refine.epochs}" if refine else ""),
        "weights kept": _weights_kept(train)
        + (f", then {_weights_kept(refine)}" if refine else ""),
        "learning rate": f"{train.learning_rate:g}, {train.schedule}"
        + (f", then {refine.learning_rate:g}" if refine else ""),
        "loss": f"focal Tversky, missed weight {train.missed_weight:g}, "
        f"exponent {train.exponent:g}, {train.loss_by_slice:.0%} of it per slice",
        "augmentation": ", ".join(f"{name} {value:g}" for name, value in train.augment if value)
        or "none",
        "networks": "one" if networks == 1 else f"ensemble of {networks}",
        "seed": str(train.seed),
        "missed_weight": evaluate.missed_weight,
        "threshold": f"{evaluate.threshold:g}",
        "test-time augmentation": "none" if evaluate.views == 1 else f"{evaluate.views} views",
        "regions kept": evaluate.keep,
        "smallest area in a slice": f"{evaluate.min_area_px} px",
        "interval": f"95 %, {evaluate.resamples} resamples of patients",
    }


def _weights_kept(section: Train | Refine) -> str:
    if isinstance(section, Train) and section.schedule == "plateau":
        return "best epoch by validation Tversky"
    count = section.average_epochs
    return f"mean of the last {count} epochs" if count else "last epoch"
