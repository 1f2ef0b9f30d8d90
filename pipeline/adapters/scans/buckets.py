"""List an S3 bucket of scans, or a prefix of one."""

from functools import partial
from pathlib import PurePosixPath

from pipeline.adapters.scans.listing import Listing, SourceEntry, sort_entries
from pipeline.adapters.scans.paths import check_stays_inside, printable
from pipeline.adapters.storage import s3


def list_bucket(source: str, endpoint_url: str | None) -> Listing:
    """List the scans below `s3://bucket/prefix`.

    Raises:
        GliaflowError: the bucket cannot be listed, or a key would be written outside the target.
    """
    bucket, prefix = s3.parse_url(source)
    client, objects = s3.list_objects(source, endpoint_url)
    entries = []
    for item in objects:
        inside = PurePosixPath(item["Key"].removeprefix(prefix))
        where = f"s3://{bucket}/{item['Key']}"
        check_stays_inside(inside, printable(where))
        entries.append(
            SourceEntry(
                inside,
                "folder" if item["Key"].endswith("/") else "file",
                where=where,
                size=item["Size"],
                fingerprint=partial(str, f"{item['ETag']} {item['Size']}"),
                read=partial(s3.read_object, client, item, source, endpoint_url),
            )
        )
    return sort_entries(entries)
