import hashlib
from dataclasses import fields, replace

import pytest

from pipeline.domain.lineage import Lineage, digest_of_bytes, digest_of_files, digest_of_mapping

LINEAGE = Lineage(code="c", data="d", split="s", params="p", weights="w")


@pytest.mark.parametrize(
    ("content", "digest"),
    [  # from sha256sum
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_the_digest_of_bytes_is_their_sha256(content, digest):
    assert digest_of_bytes(content) == digest


def test_the_digest_of_a_mapping_is_that_of_its_sorted_json():
    expected = hashlib.sha256(b'{"a":[2,null],"b":{"c":0.5}}').hexdigest()
    assert digest_of_mapping({"b": {"c": 0.5}, "a": [2, None]}) == expected


def test_the_order_of_keys_does_not_count():
    assert digest_of_mapping({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of_mapping(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )


@pytest.mark.parametrize("other", [{}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": 1, "b": 1}])
def test_another_key_or_value_changes_the_digest(other):
    assert digest_of_mapping(other) != digest_of_mapping({"a": 1})


def test_the_order_of_a_list_counts():
    assert digest_of_mapping({"a": [1, 2]}) != digest_of_mapping({"a": [2, 1]})


def test_the_order_of_files_does_not_count():
    assert digest_of_files({"a": b"1", "b": b"2"}) == digest_of_files({"b": b"2", "a": b"1"})


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"a": b"1"},
        {"a": b"2", "b": b"1"},
        {"a": b"1", "c": b"2"},
        {"a": b"12", "b": b""},
        {"a": b"1", "b": b"2", "c": b""},
    ],
    ids=["empty", "removed", "swapped", "renamed", "content moved", "added"],
)
def test_names_and_contents_of_files_count(other):
    assert digest_of_files(other) != digest_of_files({"a": b"1", "b": b"2"})


def test_equal_lineages_have_the_same_digest():
    assert replace(LINEAGE).digest == LINEAGE.digest
    assert len(LINEAGE.digest) == 64


@pytest.mark.parametrize("part", [field.name for field in fields(Lineage)])
def test_every_part_of_a_lineage_counts(part):
    assert replace(LINEAGE, **{part: "x"}).digest != LINEAGE.digest


def test_swapped_parts_are_another_lineage():
    assert replace(LINEAGE, code="d", data="c").digest != LINEAGE.digest
