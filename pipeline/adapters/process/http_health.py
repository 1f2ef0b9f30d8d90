"""Wait for a server on loopback to answer, and find a free port for one."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable

HOST = "127.0.0.1"
SECONDS_BETWEEN_CHECKS = 0.3


def wait_for_answer(
    url: str,
    *,
    seconds: float,
    is_alive: Callable[[], bool],
    headers: dict[str, str] | None = None,
) -> bool:
    """Ask an address until it answers with a status under 400.

    Args:
        is_alive: whether the server's process still runs; if not, waiting ends.

    Returns:
        False if the process ended, or no such answer came within `seconds`.
    """
    request = urllib.request.Request(url, headers=headers or {})  # noqa: S310 - on loopback
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_alive():
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - on loopback
                return is_alive()
        except (urllib.error.URLError, OSError):
            time.sleep(SECONDS_BETWEEN_CHECKS)
    return False


def free_port() -> int:
    """Return a port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_in_use(port: int) -> bool:
    """Whether something listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
