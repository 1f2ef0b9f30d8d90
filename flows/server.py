"""Serve Prefect on loopback, for the local stack: `python -m flows.server --host H --port P`.

It is Prefect's own server with two additions:

- Requests whose `Host` or `Origin` is not this server are refused, WebSockets included. A page
  of another site cannot reach the server through the browser, nor by DNS rebinding.
- Garbage is collected in a thread. On SQLite the server may otherwise stop answering for a
  minute: the collector ends a cursor in the event loop and waits for a connection whose thread
  waits for the write lock, whose holder waits for the loop.

The login, CSRF protection and allowed origins are Prefect's settings (see `local_stack`).
"""

import argparse
import gc
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pipeline.adapters.process import parent_watch

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECONDS_BETWEEN = 1
ROUNDS_PER_FULL_COLLECTION = 30  # the oldest generation is large: it takes a quarter of a second
REFUSAL = b"gliaflow: this Host or Origin is not allowed"


class OnlyLocal:
    """An ASGI app that refuses requests with a foreign `Host` or `Origin`.

    Args:
        app: the app behind it.
        host, port: that it is served at. `localhost` is accepted as well.
    """

    def __init__(self, app: App, *, host: str, port: int):
        self._app = app
        self._hosts = {f"{host}:{port}", f"localhost:{port}"}
        self._origins = {f"http://{name}" for name in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_local(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": REFUSAL.decode()})
        else:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})

    def _is_local(self, scope: Scope) -> bool:
        values = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in values if name == b"host"]
        origins = [value for name, value in values if name == b"origin"]
        return (
            len(hosts) == 1
            and hosts[0] in self._hosts
            and all(origin in self._origins for origin in origins)
        )


def collect_beside() -> None:
    """Collect garbage in a thread from now on, and nowhere else."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    for count in itertools.count(1):
        time.sleep(SECONDS_BETWEEN)
        gc.collect(1 if count % ROUNDS_PER_FULL_COLLECTION else 2)


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="python -m flows.server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument("--quiet", action="store_true", help="log errors only")
    options = parser.parse_args()
    parent_watch.end_with_parent(message="")
    import uvicorn
    from prefect.server.api.server import create_app

    collect_beside()
    level = "error" if options.quiet else "info"
    app = OnlyLocal(create_app(final=True), host=options.host, port=options.port)
    uvicorn.run(app, host=options.host, port=options.port, log_level=level, access_log=False)


if __name__ == "__main__":
    main()
