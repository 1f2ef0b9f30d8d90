"""List and read S3 buckets, of Amazon or of any compatible server.

`source` is always `s3://bucket/prefix`; `endpoint_url` is None for Amazon.
"""

import hashlib
from typing import Any

from pipeline.errors import GliaflowError


def list_contents(source: str, endpoint_url: str | None) -> list[tuple[str, int, str]]:
    """Return (key relative to the prefix, size in bytes, ETag) of every object of a source."""
    _, prefix = parse_url(source)
    _, objects = list_objects(source, endpoint_url)
    return [(item["Key"].removeprefix(prefix), item["Size"], item["ETag"]) for item in objects]


def parse_url(source: str) -> tuple[str, str]:
    """Return bucket and prefix; the prefix is empty or ends with a slash.

    Raises:
        GliaflowError: the URL has no bucket.
    """
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise GliaflowError(f"the source {source} names no bucket; expected s3://bucket/prefix")
    return bucket, prefix.strip("/") + "/" if prefix.strip("/") else ""


def list_objects(source: str, endpoint_url: str | None) -> tuple[Any, list[dict[str, Any]]]:
    """Return a client and every object of a source, over all pages of the listing.

    Raises:
        GliaflowError: the server does not answer or refuses, or there are no credentials.
    """
    bucket, prefix = parse_url(source)
    with _S3Errors(source, endpoint_url):
        client = _s3_client(endpoint_url)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return client, [item for page in pages for item in page.get("Contents", [])]


def read_object(client: Any, item: dict[str, Any], source: str, endpoint_url: str | None) -> bytes:
    """Return the content of one object.

    Args:
        client, item: from `list_objects`.

    Raises:
        GliaflowError: the content is truncated or differs from the listing, or the server
            refuses or does not answer.
    """
    bucket, _ = parse_url(source)
    with _S3Errors(source, endpoint_url):
        response = client.get_object(Bucket=bucket, Key=item["Key"])
        content = bytes(response["Body"].read())
    etag = item["ETag"].strip('"')
    # The ETag of a multipart upload, or of an object encrypted with KMS keys, is not an MD5.
    is_md5 = len(etag) == 32 and "kms" not in response.get("ServerSideEncryption", "")
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if len(content) != item["Size"] or (is_md5 and md5 != etag):
        raise GliaflowError(
            f"s3://{bucket}/{item['Key']} arrived as {len(content)} bytes that do not match its "
            f"checksum; expected {item['Size']} bytes: try again"
        )
    return content


def _s3_client(endpoint_url: str | None) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        # A server that accepts and never answers is given up within half a minute.
        retries={"max_attempts": 2, "mode": "standard"},
        connect_timeout=5,
        read_timeout=12,
        max_pool_connections=16,
    )
    return boto3.client("s3", endpoint_url=endpoint_url, config=config)


class _S3Errors:
    """Turns boto3's exceptions into errors that say which setting to check."""

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
                f"{self.source}: no answer{self.at} ({' '.join(str(error).split())}); check the "
                "network and endpoint_url in params.yaml: `fetch.endpoint_url` for a source, "
                "`watch.endpoint_url` for the inbox"
            ) from error
