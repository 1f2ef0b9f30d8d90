"""A real S3 server (SeaweedFS) on loopback, which a test may stop and start again."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

LOOPBACK = "127.0.0.1"
PARTS = ("master", "volume", "filer", "s3")
SECONDS_TO_START = 90


@dataclass(frozen=True)
class S3:
    """Address of a server, and the only credentials that it accepts."""

    url: str
    key: str
    secret: str

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )

    def fill(self, bucket: str, objects: dict[str, bytes]) -> None:
        """Create a bucket with these objects, key to content."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for key, content in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=content)


class S3Server:
    """A server that keeps its objects in `folder` while it is stopped.

    Args:
        volumes: limit on SeaweedFS's volumes; every bucket takes seven.
    """

    def __init__(self, folder: Path, *, volumes: int = 100):
        self._folder = folder
        self._volumes = volumes
        self._ports = free_ports(2 * len(PARTS))
        self._process: subprocess.Popen[bytes] | None = None
        port = self._ports[PARTS.index("s3")]
        self.address = S3(f"http://{LOOPBACK}:{port}", "gliaflow", secrets.token_hex(16))
        (folder / "s3.json").write_text(json.dumps(_identities(self.address)))
        (folder / "data").mkdir()

    def start(self) -> None:
        """Start the server and wait until it accepts writes."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, cwd=self._folder
            )
        self._wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # ending it gently takes long, and the objects are on disk
            self._process.wait()
        for port in self._ports:  # internal sockets, whose place no option changes
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()

    def login(self, file: Path, *, secret: str | None = None) -> None:
        """Write a credentials file.

        Args:
            secret: a wrong one; None: the server's.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.new")
        temporary.write_text(
            f"[default]\naws_access_key_id = {self.address.key}\n"
            f"aws_secret_access_key = {secret or self.address.secret}\n"
        )
        temporary.replace(file)

    def _command(self) -> list[str]:
        folder = self._folder
        http, grpc = self._ports[: len(PARTS)], self._ports[len(PARTS) :]
        return [
            str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder / 'data'}",
            f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-s3", f"-s3.config={folder / 's3.json'}",
            *(f"-{part}.port={port}" for part, port in zip(PARTS, http, strict=True)),
            *(f"-{part}.port.grpc={port}" for part, port in zip(PARTS, grpc, strict=True)),
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.localSocket={folder / 's3.sock'}",
            f"-filer.localSocket={folder / 'filer.sock'}", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64", f"-volume.max={self._volumes}",
        ]  # fmt: skip

    def _wait(self) -> None:
        """Wait until an object can be written: before that, the server may answer with errors."""
        assert self._process is not None
        client = self.address.client()
        end = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                if "ready" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="object", Body=b"content")
                return
            except (BotoCoreError, ClientError) as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    log = (self._folder / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"the S3 server did not start: {log}") from error
                time.sleep(0.2)


def environment(credentials: Path) -> dict[str, str]:
    """Return the variables with which a process uses this credentials file and no other."""
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": LOOPBACK,
    }


def free_ports(count: int) -> list[int]:
    """Return different ports that nothing listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind((LOOPBACK, 0))
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    return ports


def _identities(server: S3) -> dict[str, Any]:
    credentials = [{"accessKey": server.key, "secretKey": server.secret}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    return {"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]}
