import pytest

from pipeline.adapters.storage import s3
from pipeline.errors import GliaflowError


@pytest.mark.parametrize(
    ("source", "bucket_and_prefix"),
    [
        ("s3://scans", ("scans", "")),
        ("s3://scans/", ("scans", "")),
        ("s3://scans/lgg/new", ("scans", "lgg/new/")),
        ("s3://scans/lgg/new/", ("scans", "lgg/new/")),
    ],
)
def test_a_url_has_a_bucket_and_a_prefix_that_is_empty_or_ends_with_a_slash(
    source, bucket_and_prefix
):
    assert s3.parse_url(source) == bucket_and_prefix


@pytest.mark.parametrize("source", ["s3://", "s3:///scans"])
def test_a_url_without_a_bucket_is_an_error(source):
    with pytest.raises(GliaflowError, match=rf"{source} names no bucket"):
        s3.parse_url(source)


def test_a_listing_of_more_than_one_page_is_complete(s3_login):
    keys = [f"drop/june/P/P_{number}.tif" for number in range(1, 1102)]  # a page holds 1,000
    s3_login.fill("pages", dict.fromkeys([*keys, "beside/P_1.tif"], b"x"))
    contents = s3.list_contents("s3://pages/drop", s3_login.url)
    assert sorted(key for key, _, _ in contents) == sorted(
        key.removeprefix("drop/") for key in keys
    )


@pytest.mark.parametrize("listed", [{"ETag": f'"{"0" * 32}"'}, {"Size": 8}])
def test_an_object_that_differs_from_its_listing_is_refused(s3_login, listed):
    bucket = f"checked-{next(iter(listed)).lower()}"
    s3_login.fill(bucket, {"P/P_1.tif": b"content"})
    source = f"s3://{bucket}"
    client, (item,) = s3.list_objects(source, s3_login.url)
    assert s3.read_object(client, item, source, s3_login.url) == b"content"
    with pytest.raises(GliaflowError, match="do not match its checksum"):
        s3.read_object(client, {**item, **listed}, source, s3_login.url)
