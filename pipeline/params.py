"""params.yaml as typed, frozen values: the only place that defines its keys and ranges.

Does not know the stages: each gets its section as a value. The descriptions of the keys are
the text of docs/configuration.md.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import GliaflowError

# Keys of earlier releases, and what they are called now.
RENAMED = {"train.finer": "train.refine"}

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1)]
LowestRate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0, le=10_000)]
Pixels = Annotated[int, Field(ge=16, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
SplitName = Literal["train", "validation", "test"]
ENDPOINT = "S3 server other than Amazon's, `http://host:port`."


# PyYAML also raises what Python does where a value does not fit its tag: a date 2001-13-99,
# `!!int x`, `!!timestamp x`, `!!bool x`.
YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Phantom(Section):
    """The synthetic data set, used when `fetch.source` is `phantom`."""

    patients: Annotated[int, Field(ge=3, le=2000)] = Field(description="Number of patients.")
    slices: Annotated[int, Field(ge=5, le=100)] = Field(
        description="Mean number of slices per patient."
    )
    size_px: Annotated[int, Field(ge=32, le=512)] = Field(description="Side of a slice, in pixels.")
    seed: Seed = Field(description="Seed of the generator.")


class Fetch(Section):
    """Where scans come from."""

    source: Text = Field(
        description="`phantom`, a folder, Kaggle's zip, `s3://bucket/prefix` or `kaggle`."
    )
    endpoint_url: str | None = Field(description=ENDPOINT)
    max_gib: Positive = Field(description="A zip that expands beyond this is refused, in GiB.")
    max_file_mib: Annotated[int, Field(ge=1, le=4096)] = Field(
        description="A file larger than this is refused, in MiB."
    )
    max_patient_files: Annotated[int, Field(ge=1, le=200_000)] = Field(
        description="A patient with more files, masks included, is refused."
    )
    max_batch_patients: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        description="A source or batch with more patients is refused."
    )
    phantom: Phantom


class Ingest(Section):
    """How scans are decoded."""

    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        description="Processes that decode patients; 0: one per core."
    )


class Validate(Section):
    """Which scans are fit for training, and when the run stops."""

    height_px: Pixels = Field(description="Height of every slice, in pixels.")
    width_px: Pixels = Field(description="Width of every slice, in pixels.")
    min_patients: Count = Field(description="The run stops with fewer accepted patients.")
    max_quarantined: Share = Field(
        description="The run stops if a larger share of the patients is in quarantine."
    )


class Split(Section):
    """How patients are assigned to train, validation and test."""

    unit: Literal["patient", "slice"] = Field(
        description="What is split. `slice` is the published protocol, which leaks patients."
    )
    salt: Text = Field(
        description="Decides the split together with the patient's name. Never change it: another "
        "salt reassigns every patient (see [Decisions](decisions.md))."
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="Share of patients for validation. With `test` under 1."
    )
    test: Annotated[float, Field(gt=0, lt=1)] = Field(description="Share of patients for the test.")

    @model_validator(mode="after")
    def check_that_train_is_not_empty(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} together must stay under 1"
            )
        return self


class Augment(Section):
    """Data augmentation of training slices, resampled each epoch; 0 turns a transform off."""

    flip: Share = Field(description="Share of slices mirrored left to right.")
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        description="Largest rotation, in degrees."
    )
    scale: Annotated[float, Field(ge=0, le=0.5)] = Field(
        description="Largest change of size, as a share of the side."
    )
    shift: Annotated[float, Field(ge=0, le=0.5)] = Field(
        description="Largest shift, as a share of the side."
    )
    intensity: Annotated[float, Field(ge=0, le=0.9)] = Field(
        description="Largest change of brightness of each sequence, as a share."
    )
    missing: Share = Field(
        description="Share of slices that lose post-contrast; half of them lose pre-contrast too."
    )
    paste: Share = Field(
        description="Share of slices that also get the tumour of another slice of the batch."
    )


class Refine(Section):
    """Refinement: a network at twice `image_size` that continues from the trained one.

    The model is the mean of both. Needs `schedule: cosine`.
    """

    epochs: Epochs = Field(description="Epochs on a cosine schedule; 0: no refinement.")
    learning_rate: Rate = Field(description="Learning rate at the start.")
    min_learning_rate: LowestRate = Field(
        description="Learning rate at the end; at most `learning_rate`."
    )
    average_epochs: Epochs = Field(
        description="The mean of this many last epochs' weights is used; 0: the last epoch's."
    )

    @model_validator(mode="after")
    def check_averaged_epochs(self) -> "Refine":
        if self.epochs and self.average_epochs > self.epochs:
            raise ValueError(
                f"average_epochs {self.average_epochs} must be at most epochs {self.epochs}"
            )
        return self

    @model_validator(mode="after")
    def check_learning_rates(self) -> "Refine":
        _refuse_rising(self.learning_rate, self.min_learning_rate)
        return self


class Train(Section):
    """How the network is trained. See [Training recipes](recipes.md)."""

    slices: Literal["all", "tumour", "balanced"] = Field(
        description="Slices of an epoch. `balanced`: all tumour slices and as many tumour-free "
        "ones, resampled each epoch."
    )
    intensity: Literal["raw", "scan"] = Field(
        description="`scan`: each sequence of a scan is scaled to one mean and spread."
    )
    image_size: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = Field(
        description="Side of the images that the network sees, in pixels; must divide the slices' "
        "side. The model resizes."
    )
    filters: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024)], ...],
        Field(min_length=5, max_length=5, strict=False),
    ] = Field(description="Filters of the five levels of the ResUNet, outermost first.")
    networks: Annotated[int, Field(ge=1, le=20)] = Field(
        description="Networks trained from different seeds; the model is their mean."
    )
    batch: Annotated[int, Field(ge=1, le=1024)] = Field(description="Slices of a training step.")
    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        description="Epochs; with `schedule: plateau` at most this many."
    )
    learning_rate: Rate = Field(description="Learning rate at the start.")
    schedule: Literal["plateau", "cosine"] = Field(
        description="`plateau`: keeps the best epoch by validation and stops early. `cosine`: runs "
        "all epochs and keeps the last."
    )
    average_epochs: Epochs = Field(
        description="With `cosine`: the mean of this many last epochs' weights is used; 0: the "
        "last epoch's."
    )
    missed_weight: Share = Field(
        description="Cost of a false negative in the loss; a false positive costs 1 minus it."
    )
    exponent: Annotated[float, Field(gt=0, le=4)] = Field(
        description="Exponent of the focal Tversky loss."
    )
    loss_by_slice: Share = Field(
        description="Share of the loss in which all tumour slices have equal weight, whatever "
        "their tumour's size."
    )
    patience: Count = Field(
        description="With `plateau`: training ends after this many epochs without a better "
        "validation score."
    )
    plateau_patience: Count = Field(
        description="With `plateau`: the learning rate falls after this many such epochs."
    )
    plateau_factor: Annotated[float, Field(gt=0, le=0.5)] = Field(
        description="With `plateau`: factor by which the learning rate falls."
    )
    min_learning_rate: LowestRate = Field(
        description="Lowest learning rate; at most `learning_rate`."
    )
    refine: Refine
    augment: Augment
    precision: Literal["float32", "bfloat16"] = Field(
        description="`bfloat16` is about twice as fast on processors that support it; others "
        "refuse it."
    )
    memory_gib: Positive = Field(
        description="A data set larger than this is read from disk during training, in GiB."
    )
    seed: Seed = Field(description="Seed of weights, order of slices and augmentation.")

    @model_validator(mode="after")
    def check_averaged_epochs(self) -> "Train":
        if self.average_epochs and (self.schedule != "cosine" or self.average_epochs > self.epochs):
            raise ValueError(
                f"average_epochs {self.average_epochs} must be at most epochs {self.epochs}, with "
                f"schedule cosine (it is {self.schedule})"
            )
        return self

    @model_validator(mode="after")
    def check_learning_rates(self) -> "Train":
        _refuse_rising(self.learning_rate, self.min_learning_rate)
        return self

    @model_validator(mode="after")
    def check_that_refinement_has_a_trained_network(self) -> "Train":
        if self.refine.epochs and self.schedule != "cosine":
            raise ValueError(
                f"refine.epochs is {self.refine.epochs} and schedule {self.schedule}; refinement "
                "continues from a network that was trained to its end: set schedule to cosine, "
                "or refine.epochs to 0"
            )
        return self


def _refuse_rising(start: float, lowest: float) -> None:
    if lowest > start:
        raise ValueError(f"min_learning_rate {lowest} must not be over learning_rate {start}")


class Evaluate(Section):
    """Post-processing and scoring. Changing a value needs no retraining."""

    splits: Annotated[tuple[SplitName, ...], Field(min_length=1, strict=False)] = Field(
        description="Splits that are scored; `test` must be among them."
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="A pixel of at least this probability is tumour."
    )
    views: Annotated[int, Field(ge=1, le=4)] = Field(  # as many as there are in the domain
        description="Test-time augmentation: views of each slice (as it is, mirrored, smaller, "
        "larger) whose mean probability is used."
    )
    keep: Literal["all", "largest"] = Field(
        description="`largest`: of a scan's predicted regions, only the largest is kept."
    )
    min_area_px: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        description="A slice with fewer predicted tumour pixels gets an empty mask."
    )
    missed_weight: Share = Field(
        description="Cost of a false negative in the Tversky index that is reported and judged."
    )
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        description="Bootstrap resamples of patients for the 95 % intervals."
    )
    seed: Seed = Field(description="Seed of the bootstrap.")

    @model_validator(mode="after")
    def check_splits(self) -> "Evaluate":
        if "test" not in self.splits:
            raise ValueError("splits must name test: the gate reads it")
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits names a split twice: {', '.join(self.splits)}")
        return self


class Report(Section):
    """What the report shows."""

    patients: Annotated[int, Field(ge=1, le=50)] = Field(
        description="Patients pictured from each of: the worst, the median, the best."
    )
    slices: Annotated[int, Field(ge=1, le=100)] = Field(description="Slices pictured per patient.")


class Watch(Section):
    """The watched inbox, and what happens after a decision. See [New scans](new-scans.md)."""

    source: Text = Field(
        description="The inbox: a folder or `s3://bucket/prefix` with `<batch>/<patient>/*.tif`."
    )
    endpoint_url: str | None = Field(description=ENDPOINT)
    poll_seconds: Annotated[int, Field(ge=5, le=86_400)] = Field(
        description="Seconds between two checks of the inbox; takes effect at the next `make up`."
    )
    settle_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        description="A batch is complete once it is unchanged for this many seconds. A file "
        "`COMPLETE` in it says so at once."
    )
    git_commit: bool = Field(
        description="Commit dvc.lock and the batches' `.dvc` files on the branch `retrained`."
    )
    notify: str | None = Field(
        description="Shell command that gets `decision.json` on its standard input."
    )


class Register(Section):
    """The MLflow server and the names in it."""

    tracking_uri: Text = Field(
        description="MLflow's tracking URI. The environment variable `MLFLOW_TRACKING_URI` "
        "overrides it."
    )
    experiment: Text = Field(description="Experiment that runs are logged to.")
    model: Text = Field(description="Name of the registered model.")


class Gate(Section):
    """What a version must reach to become the champion."""

    min_tversky: Share = Field(description="Lowest mean Tversky index over the test patients.")
    min_tversky_low: Share = Field(description="Lowest lower end of its 95 % interval.")
    min_patients: Count = Field(
        description="With fewer test patients the verdict is `inconclusive`."
    )
    margin: Share = Field(
        description="Mean fall against the champion, on the same test patients, that still counts "
        "as not worse."
    )
    group_margin: Share = Field(
        description="Mean fall of a group (site, tumour size, missing sequence) that is accepted."
    )
    min_group: Annotated[int, Field(ge=2)] = Field(
        description="Fewest patients of a group that is judged."
    )
    test_budget: Count = Field(
        description="Models judged on the same test patients; with more the verdict is "
        "`inconclusive`."
    )
    approval: Literal["inconclusive", "always"] = Field(
        description="What a person has to approve: `inconclusive` verdicts, or `always` every "
        "promotion."
    )
    approval_hours: Positive = Field(
        description="An approval that nobody gave within this time counts as rejected."
    )


class Params(Section):
    """All sections of params.yaml."""

    fetch: Fetch
    ingest: Ingest
    validate_: Validate = Field(alias="validate")
    split: Split
    train: Train
    evaluate: Evaluate
    report: Report
    watch: Watch
    register_: Register = Field(alias="register")
    gate: Gate


def load(path: Path) -> Params:
    """Read and check the parameters.

    Raises:
        GliaflowError: the file is missing or not YAML, a key is unknown or missing, or a value
            is out of range. The message gives the key, its value and what is allowed.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506
    except FileNotFoundError:
        raise GliaflowError(
            f"{path} does not exist; run gliaflow and dvc in the folder of the repository"
        ) from None
    except YAML_ERRORS as error:
        raise GliaflowError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise GliaflowError(f"{path} is nested too deeply; expected sections of keys") from None
    except OSError as error:
        raise GliaflowError(f"{path} cannot be read ({error.strerror}); expected a file") from error
    return parse(raw, name=path.name)


def parse(raw: Any, *, name: str = "params.yaml") -> Params:
    """Check parameters that are already read.

    Args:
        raw: content of the file, sections by name.
        name: of the file, for error messages.

    Raises:
        GliaflowError: as in `load`.
    """
    if not isinstance(raw, dict):
        raise GliaflowError(f"{name} holds no sections; restore it from the repository")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise GliaflowError(f"{name}: {_message(_most_helpful(error.errors()))}") from error


def differences(before: Params, after: Params) -> list[str]:
    """List what changed between two sets of parameters: `train.epochs: 8 -> 9`."""
    return _differences(
        before.model_dump(mode="json", by_alias=True),
        after.model_dump(mode="json", by_alias=True),
        "",
    )


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str) -> list[str]:
    changed = []
    for key, old in before.items():
        if isinstance(old, dict):
            changed += _differences(old, after[key], f"{prefix}{key}.")
        elif old != after[key]:
            changed.append(f"{prefix}{key}: {old} -> {after[key]}")
    return changed


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that occurs twice in a section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} occurs twice; remove one", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _most_helpful(errors: list[Any]) -> Any:
    """Return the first error, but a renamed key before the new name that is missing for it."""
    for error in errors:
        if error["type"] == "extra_forbidden" and ".".join(map(str, error["loc"])) in RENAMED:
            return error
    return errors[0]


def _message(error: Any) -> str:
    """Describe one of pydantic's validation errors: the key, its value and what is allowed."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden" and key in RENAMED:
        return f"the key {key} is now called {RENAMED[key]}; rename it"
    if error["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known there: {', '.join(known)}"
        return f"the key {key} is not known; {hint}"
    if error["type"] == "missing":
        return f"the key {key} is missing; add it, or restore the file from the repository"
    if error["type"] == "value_error":
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    return f"{key} is {error['input']!r}; allowed: {_allowed(error)}"


def _allowed(error: Any) -> str:
    if error["type"] == "model_type":
        return "a section of keys"
    if error["type"] in ("too_short", "too_long"):
        context = error["ctx"]
        return f"{context.get('min_length', context.get('max_length'))} values"
    return str(error["msg"]).replace("Input should be ", "")


def _known_keys(path: list[str]) -> list[str]:
    """Return the keys of the section at `path`, as they are written in the file."""
    model: type[BaseModel] = Params
    for key in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = fields[key].annotation  # type: ignore[assignment]  # a section, by its alias
    return [field.alias or name for name, field in model.model_fields.items()]
