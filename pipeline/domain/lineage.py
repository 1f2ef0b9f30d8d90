"""The lineage of a model: digests of its parts, and one digest that names it.

Digests are SHA-256 in hexadecimal. Takes bytes and values; does not know files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Lineage:
    """Digests of everything a version is made of; equal lineages are the same model.

    code: modules of every stage that shapes the model.
    data: the manifest, which holds the SHA-256 of every slice and mask.
    split: data/splits.csv.
    params: sections of params.yaml that shape the model.
    weights: the model file.
    """

    code: str
    data: str
    split: str
    params: str
    weights: str

    @property
    def digest(self) -> str:
        """The digest of all parts, which names the version."""
        return digest_of_mapping(asdict(self))


def digest_of_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_of_mapping(values: Mapping[str, Any]) -> str:
    """Return the digest of a JSON-like mapping; the order of its keys does not count."""
    return digest_of_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def digest_of_files(files: Mapping[str, bytes]) -> str:
    """Return the digest of named files; their names count, their order does not."""
    return digest_of_mapping({name: digest_of_bytes(content) for name, content in files.items()})
