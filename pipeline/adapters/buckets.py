"""S3 buckets, of Amazon or of any server that speaks the same: listed page by page, read whole.

`source` is `s3://bucket/prefix` throughout; `endpoint_url` is None for Amazon's own.
"""

import hashlib
from typing import Any

from pipeline.errors import GliaflowError


def contents(source: str, endpoint_url: str | None) -> list[tuple[str, int, str]]:
    """Every object below `s3://bucket/prefix`: key below the prefix, size in bytes, ETag."""
    _, prefix = named(source)
    _, found = listed(source, endpoint_url)
    return [(item["Key"].removeprefix(prefix), item["Size"], item["ETag"]) for item in found]


def named(source: str) -> tuple[str, str]:
    """Bucket and prefix, which is empty or ends with a slash."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise GliaflowError(f"the source {source} names no bucket; expected s3://bucket/prefix")
    return bucket, prefix.strip("/") + "/" if prefix.strip("/") else ""


def listed(source: str, endpoint_url: str | None) -> tuple[Any, list[dict[str, Any]]]:
    """A client, and every object below a prefix, page by page."""
    bucket, prefix = named(source)
    with _S3Sentences(source, endpoint_url):
        client = _s3_client(endpoint_url)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return client, [item for page in pages for item in page.get("Contents", [])]


def read(client: Any, item: dict[str, Any], source: str, endpoint_url: str | None) -> bytes:
    """The content of one object that `listed` gave.

    Raises:
        GliaflowError: it came cut off or changed, or did not come.
    """
    bucket, _ = named(source)
    with _S3Sentences(source, endpoint_url):
        answer = client.get_object(Bucket=bucket, Key=item["Key"])
        content = answer["Body"].read()
    etag = item["ETag"].strip('"')
    # Of an upload in parts, or under a server's own keys, the ETag is no MD5.
    is_md5 = len(etag) == 32 and "kms" not in answer.get("ServerSideEncryption", "")
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if len(content) != item["Size"] or (is_md5 and found != etag):
        raise GliaflowError(
            f"s3://{bucket}/{item['Key']} came with {len(content)} bytes that do not match its "
            f"checksum; expected {item['Size']} bytes: run it again"
        )
    return bytes(content)


def _s3_client(endpoint_url: str | None) -> Any:
    import boto3
    from botocore.config import Config

    settings = Config(
        retries={"max_attempts": 4, "mode": "standard"},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=16,
    )
    return boto3.client("s3", endpoint_url=endpoint_url, config=settings)


class _S3Sentences:
    """Turns what boto3 raises into one sentence that says whether to look at address, key or name."""

    def __init__(self, source: str, endpoint_url: str | None):
        self.source = source
        self.at = f" at {endpoint_url}" if endpoint_url else ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        if isinstance(error, NoCredentialsError):
            raise GliaflowError(
                f"{self.source}: no credentials were found; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "?")
            raise GliaflowError(
                f"{self.source}: the server{self.at} refused with {code}; check the bucket's name "
                "and that these credentials may list and read it"
            ) from error
        if isinstance(error, BotoCoreError | ValueError):
            raise GliaflowError(
                f"{self.source}: no answer{self.at} ({' '.join(str(error).split())}); check "
                "endpoint_url in params.yaml (fetch's for a source, watch's for the inbox) and the "
                "network"
            ) from error
