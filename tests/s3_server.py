"""A real S3 server (SeaweedFS) on loopback that a test may stop and start again."""

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from adapters.conftest import LOOPBACK, S3, free_ports, identities
from botocore.exceptions import BotoCoreError, ClientError

NAMES = ("master", "volume", "filer", "s3")
SECONDS_TO_START = 90


class S3Server:
    """Keeps its objects in `folder` while it is stopped."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._ports = free_ports(2 * len(NAMES))
        self._process: subprocess.Popen[bytes] | None = None
        self.address = S3(f"http://{LOOPBACK}:{self._ports[3]}", "gliaflow", secrets.token_hex(16))
        (folder / "s3.json").write_text(json.dumps(identities(self.address)))
        (folder / "data").mkdir()

    def start(self) -> None:
        folder = self._folder
        ports, inner = self._ports[: len(NAMES)], self._ports[len(NAMES) :]
        command = [
            str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder / 'data'}",
            f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-s3", f"-s3.config={folder / 's3.json'}",
            *(f"-{name}.port={port}" for name, port in zip(NAMES, ports, strict=True)),
            *(f"-{name}.port.grpc={port}" for name, port in zip(NAMES, inner, strict=True)),
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.localSocket={folder / 's3.sock'}",
            f"-filer.localSocket={folder / 'filer.sock'}", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64", "-volume.max=100",
        ]  # fmt: skip
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        self._wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for port in self._ports:  # its sockets for itself, which no flag puts elsewhere
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()

    def login(self, file: Path, *, secret: str | None = None) -> None:
        """Write a credentials file, with another secret than the server's where one is given."""
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.new")
        beside.write_text(
            f"[default]\naws_access_key_id = {self.address.key}\n"
            f"aws_secret_access_key = {secret or self.address.secret}\n"
        )
        beside.replace(file)

    def _wait(self) -> None:
        """Until it hands out again what was written: before that it may answer and yet refuse."""
        assert self._process is not None
        client = self.address.client()
        end = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                if "awake" not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket="awake")
                client.put_object(Bucket="awake", Key="object", Body=b"content")
                return
            except (BotoCoreError, ClientError):
                assert self._process.poll() is None, "the S3 server ended"
                assert time.monotonic() < end, "the S3 server did not start"
                time.sleep(0.5)


def environment(credentials: Path) -> dict[str, str]:
    """What a process needs that may know these credentials alone."""
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": LOOPBACK,
    }
