import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = "127.0.0.1"
SECONDS_TO_START = 60


@dataclass(frozen=True)
class S3:
    """A real S3 server on loopback, and the only key that it knows."""

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
        """Make a bucket with these objects, key to content."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for key, content in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=content)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """SeaweedFS, awake and answering; ended with the session."""
    folder = tmp_path_factory.mktemp("s3")
    names = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(names))
    server = S3(f"http://{LOOPBACK}:{ports[3]}", "gliaflow", secrets.token_hex(16))
    (folder / "s3.json").write_text(json.dumps(identities(server)))
    (folder / "data").mkdir()
    command = [
        str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder / 'data'}",
        f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-s3", f"-s3.config={folder / 's3.json'}",
        *(f"-{name}.port={port}" for name, port in zip(names, ports[:4], strict=True)),
        *(f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)),
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64", "-volume.max=2000",  # seven for every bucket
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait(server, process, folder / "log")
        yield server
    finally:
        process.kill()  # it holds nothing to keep, and takes long to end by itself
        process.wait()
        for port in ports:  # its sockets for itself, which no flag puts elsewhere
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()


@pytest.fixture
def s3_login(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, with its key in the environment and no other credentials in reach."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", LOOPBACK)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # remembers the last test's credentials
    return s3


@pytest.fixture
def closed_port() -> int:
    """A port that refuses connections."""
    return free_ports(1)[0]


def identities(server: S3) -> dict[str, Any]:
    credentials = [{"accessKey": server.key, "secretKey": server.secret}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    return {"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, all different."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind((LOOPBACK, 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait(server: S3, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until an object can be written: before that the server may answer and yet refuse."""
    end = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            server.fill("awake", {"object": b"content"})
            return
        except Exception as error:  # whatever boto3 raises while the server starts
            if process.poll() is not None or time.monotonic() > end:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the S3 server did not start: {tail}") from error
            time.sleep(0.2)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users reach as well; rights inside are put right at the end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755)
