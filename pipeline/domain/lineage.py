"""Where a model came from, as digests, and the one digest that names it.

SHA-256 throughout, written as hex. Takes bytes and values; does not know files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Lineage:
    """What a version is made of; equal lineages are the same model.

    code: the modules of every stage that shapes the model.
    data: the manifest, which holds the SHA-256 of every slice and mask.
    split: data/splits.csv.
    params: the sections of params.yaml that shape the model.
    weights: the model file.
    """

    code: str
    data: str
    split: str
    params: str
    weights: str

    @property
    def digest(self) -> str:
        return of_mapping(asdict(self))


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_mapping(values: Mapping[str, Any]) -> str:
    """Digest of a JSON-like mapping; the order of its keys does not count."""
    return of_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def of_files(files: Mapping[str, bytes]) -> str:
    """Digest of named files; names count, their order does not."""
    return of_mapping({name: of_bytes(content) for name, content in files.items()})
