"""Servers that are gone or never answer."""

import socket
import threading

from faults.matrix import fault
from faults.workplace import RUN, Workplace, check_refused


@fault("server", "MLflow's port is dead", must_hold="a sentence with the address within 60 s")
def dead_mlflow(place: Workplace) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    done = place.call("gliaflow", "registry", timeout=60, MLFLOW_TRACKING_URI=address)
    return check_refused(done, address)[:150]


@fault("server", "MLflow's server never answers", must_hold="a sentence with the address")
def silent_mlflow(place: Workplace) -> str:
    with silent_server() as address:
        done = place.call("gliaflow", "registry", timeout=90, MLFLOW_TRACKING_URI=address)
    return check_refused(done, address)[:150]


@fault("server", "the S3 server never answers", must_hold="a sentence with the address within 60 s")
def silent_s3(place: Workplace) -> str:
    with silent_server() as address:
        place.change(fetch={"source": "s3://scans/lgg", "endpoint_url": address})
        login = {"AWS_ACCESS_KEY_ID": "gliaflow", "AWS_SECRET_ACCESS_KEY": "made-up"}
        done = place.call(*RUN, timeout=120, **login)
    return check_refused(done, address)[:200]


class silent_server:  # noqa: N801 - used as a function
    """A server that accepts connections and says nothing."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        try:
            while True:
                self._open.append(self._listener.accept()[0])
        except OSError:
            return

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()
