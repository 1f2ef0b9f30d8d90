import pytest

from pipeline.adapters import buckets
from pipeline.errors import GliaflowError


def test_a_bucket_of_more_objects_than_one_page_holds_is_listed_whole(s3_login):
    names = [f"drop/june/P/P_{number}.tif" for number in range(1, 1102)]  # a page holds 1,000
    s3_login.fill("pages", dict.fromkeys([*names, "beside/P_1.tif"], b"x"))
    found = buckets.contents("s3://pages/drop", s3_login.url)
    assert sorted(key for key, _, _ in found) == sorted(
        name.removeprefix("drop/") for name in names
    )


@pytest.mark.parametrize("told", [{"ETag": f'"{"0" * 32}"'}, {"Size": 8}])
def test_an_object_that_is_not_what_the_listing_said_is_refused(s3_login, told):
    bucket = f"checked{len(told)}{next(iter(told)).lower()}"
    s3_login.fill(bucket, {"P/P_1.tif": b"content"})
    source = f"s3://{bucket}"
    client, (item,) = buckets.listed(source, s3_login.url)
    assert buckets.read(client, item, source, s3_login.url) == b"content"
    with pytest.raises(GliaflowError, match="do not match its checksum"):
        buckets.read(client, {**item, **told}, source, s3_login.url)
