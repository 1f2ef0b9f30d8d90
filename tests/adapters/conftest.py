import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3, S3Server, environment, free_ports


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A running SeaweedFS with room for many buckets; it ends with the session."""
    server = S3Server(tmp_path_factory.mktemp("s3"), volumes=2000)
    try:
        server.start()
        yield server.address
    finally:
        server.stop()


@pytest.fixture
def s3_login(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, with its key in the environment and no other credentials in reach."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(Path(os.devnull)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it caches an earlier test's credentials
    return s3


@pytest.fixture
def closed_port() -> int:
    """A port that refuses connections."""
    return free_ports(1)[0]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can reach; permissions inside are restored at the end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755)
