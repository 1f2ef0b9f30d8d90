"""params.yaml, typed and frozen: the one place where its keys and ranges are written.

Does not know the stages: each gets its own section as a value.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import GliaflowError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
SplitName = Literal["train", "validation", "test"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Phantom(Section):
    patients: Annotated[int, Field(ge=3, le=2000)]
    slices: Annotated[int, Field(ge=5, le=100)]
    size_px: Annotated[int, Field(ge=32, le=512)]
    seed: Seed


class Fetch(Section):
    source: Annotated[str, Field(min_length=1)]
    endpoint_url: str | None
    max_gib: Positive
    phantom: Phantom


class Ingest(Section):
    workers: Annotated[int, Field(ge=0, le=256)]


class Validate(Section):
    height_px: Annotated[int, Field(ge=16, le=4096)]
    width_px: Annotated[int, Field(ge=16, le=4096)]
    min_patients: Count
    max_quarantined: Share


class Split(Section):
    unit: Literal["patient", "slice"]
    salt: Annotated[str, Field(min_length=1)]
    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def leaves_something_to_train_on(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} together must stay under 1"
            )
        return self


class Augment(Section):
    flip: Share
    rotate_degrees: Annotated[float, Field(ge=0, le=180)]
    scale: Annotated[float, Field(ge=0, le=0.5)]
    shift: Annotated[float, Field(ge=0, le=0.5)]
    intensity: Annotated[float, Field(ge=0, le=0.9)]
    missing: Share
    paste: Share


class Finer(Section):
    epochs: Annotated[int, Field(ge=0, le=10_000)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    min_learning_rate: Annotated[float, Field(ge=0, le=1)]
    average_epochs: Annotated[int, Field(ge=0, le=10_000)]

    @model_validator(mode="after")
    def averages_its_own_epochs(self) -> "Finer":
        if self.epochs and self.average_epochs > self.epochs:
            raise ValueError(
                f"average_epochs {self.average_epochs} must be at most epochs {self.epochs}"
            )
        return self

    @model_validator(mode="after")
    def lets_the_rate_only_fall(self) -> "Finer":
        _refuse_rising(self.learning_rate, self.min_learning_rate)
        return self


class Train(Section):
    slices: Literal["all", "tumour", "balanced"]
    intensity: Literal["raw", "scan"]
    image_size: Annotated[int, Field(ge=16, le=1024, multiple_of=16)]
    filters: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024)], ...],
        Field(min_length=5, max_length=5, strict=False),
    ]
    networks: Annotated[int, Field(ge=1, le=20)]
    batch: Annotated[int, Field(ge=1, le=1024)]
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["plateau", "cosine"]
    average_epochs: Annotated[int, Field(ge=0, le=10_000)]
    missed_weight: Share
    exponent: Annotated[float, Field(gt=0, le=4)]
    loss_by_slice: Share
    patience: Count
    plateau_patience: Count
    plateau_factor: Annotated[float, Field(gt=0, le=0.5)]
    min_learning_rate: Annotated[float, Field(ge=0, le=1)]
    finer: Finer
    augment: Augment
    precision: Literal["float32", "bfloat16"]
    memory_gib: Positive
    seed: Seed

    @model_validator(mode="after")
    def averages_its_last_epochs(self) -> "Train":
        if self.average_epochs and (self.schedule != "cosine" or self.average_epochs > self.epochs):
            raise ValueError(
                f"average_epochs {self.average_epochs} must be at most epochs {self.epochs}, with "
                f"schedule cosine (it is {self.schedule})"
            )
        return self

    @model_validator(mode="after")
    def lets_the_rate_only_fall(self) -> "Train":
        _refuse_rising(self.learning_rate, self.min_learning_rate)
        return self

    @model_validator(mode="after")
    def refines_what_ran_to_its_end(self) -> "Train":
        if self.finer.epochs and self.schedule != "cosine":
            raise ValueError(
                f"finer.epochs is {self.finer.epochs} and schedule {self.schedule}; a finer network "
                "goes on from one that was trained to its end: set schedule to cosine, or "
                "finer.epochs to 0"
            )
        return self


def _refuse_rising(start: float, lowest: float) -> None:
    if lowest > start:
        raise ValueError(f"min_learning_rate {lowest} must not be over learning_rate {start}")


class Evaluate(Section):
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1, strict=False)]
    threshold: Annotated[float, Field(gt=0, lt=1)]
    views: Annotated[int, Field(ge=1, le=4)]  # as many as domain/views.py has
    keep: Literal["all", "largest"]
    min_area_px: Annotated[int, Field(ge=0, le=1_000_000)]
    missed_weight: Share
    resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    seed: Seed

    @model_validator(mode="after")
    def names_the_test(self) -> "Evaluate":
        if "test" not in self.splits:
            raise ValueError("splits must name test: the gate reads it")
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits names one twice: {', '.join(self.splits)}")
        return self


class Report(Section):
    patients: Annotated[int, Field(ge=1, le=50)]
    slices: Annotated[int, Field(ge=1, le=100)]


class Watch(Section):
    source: Annotated[str, Field(min_length=1)]
    endpoint_url: str | None
    poll_seconds: Annotated[int, Field(ge=5, le=86_400)]
    settle_seconds: Annotated[int, Field(ge=1, le=86_400)]
    git_commit: bool
    notify: str | None


class Register(Section):
    tracking_uri: Annotated[str, Field(min_length=1)]
    experiment: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]


class Gate(Section):
    min_tversky: Share
    min_tversky_low: Share
    min_patients: Count


class Params(Section):
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
        GliaflowError: the file is missing or no YAML, a key is unknown or missing, or a
            value is out of range; the sentence gives the key, what was found and what is
            allowed.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoDoubles)  # noqa: S506
    except FileNotFoundError:
        raise GliaflowError(
            f"{path} is not there; call gliaflow and dvc in the folder of the repository"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GliaflowError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise GliaflowError(f"{path} cannot be read ({error.strerror}); expected a file") from error
    return parse(raw, name=path.name)


def parse(raw: Any, *, name: str = "params.yaml") -> Params:
    """Check parameters that were read already; see `load`."""
    if not isinstance(raw, dict):
        raise GliaflowError(f"{name} holds no sections; take it from the repository again")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise GliaflowError(f"{name}: {_sentence(error.errors()[0])}") from error


class _NoDoubles(yaml.SafeLoader):
    """A safe loader that refuses a key which stands twice in one section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice; take one out", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _sentence(error: Any) -> str:
    keys = [str(part) for part in error["loc"]]
    key = ".".join(keys)
    if error["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known there: {', '.join(known)}"
        return f"the key {key} is not known; {hint}"
    if error["type"] == "missing":
        return f"the key {key} is missing; add it, or take the file from the repository again"
    allowed = error["msg"].removeprefix("Value error, ").replace("Input should be ", "")
    if error["type"] == "value_error":
        return f"{key}: {allowed}"
    if error["type"] == "model_type":
        allowed = "a section of keys"
    if error["type"] in ("too_short", "too_long"):
        context = error["ctx"]
        allowed = f"{context.get('min_length', context.get('max_length'))} values"
    return f"{key} is {error['input']!r}; allowed: {allowed}"


def _known_keys(section: list[str]) -> list[str]:
    model: type[BaseModel] = Params
    for key in section:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = fields[key].annotation  # type: ignore[assignment]
    return [field.alias or name for name, field in model.model_fields.items()]
