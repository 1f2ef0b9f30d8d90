import hashlib
from dataclasses import fields, replace

import pytest

from pipeline.domain.lineage import Lineage, of_bytes, of_files, of_mapping

LINE = Lineage(code="c", data="d", split="s", params="p", weights="w")


@pytest.mark.parametrize(
    ("content", "digest"),
    [  # as sha256sum gives them
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_bytes_have_their_sha256(content, digest):
    assert of_bytes(content) == digest


def test_a_mapping_has_the_digest_of_its_sorted_json():
    expected = hashlib.sha256(b'{"a":[2,null],"b":{"c":0.5}}').hexdigest()
    assert of_mapping({"b": {"c": 0.5}, "a": [2, None]}) == expected


def test_the_order_of_keys_does_not_count():
    assert of_mapping({"a": 1, "b": {"c": 2, "d": 3}}) == of_mapping(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )


@pytest.mark.parametrize("other", [{}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": 1, "b": 1}])
def test_another_key_or_value_has_another_digest(other):
    assert of_mapping(other) != of_mapping({"a": 1})


def test_the_order_of_lists_counts():
    assert of_mapping({"a": [1, 2]}) != of_mapping({"a": [2, 1]})


def test_the_order_of_files_does_not_count():
    assert of_files({"a": b"1", "b": b"2"}) == of_files({"b": b"2", "a": b"1"})


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
    ids=["none", "one gone", "swapped", "renamed", "moved over", "one more"],
)
def test_names_and_contents_of_files_count(other):
    assert of_files(other) != of_files({"a": b"1", "b": b"2"})


def test_equal_lineages_have_one_digest():
    assert replace(LINE).digest == LINE.digest
    assert len(LINE.digest) == 64


@pytest.mark.parametrize("part", [field.name for field in fields(Lineage)])
def test_every_part_of_a_lineage_counts(part):
    assert replace(LINE, **{part: "x"}).digest != LINE.digest


def test_parts_that_change_places_are_another_lineage():
    assert replace(LINE, code="d", data="c").digest != LINE.digest
