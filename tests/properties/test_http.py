"""No request with a foreign `Host` or `Origin` reaches the server, however it is written."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from flows.server import OnlyLocal
from properties import kept, mutations
from properties.search import search

HOST, PORT = "127.0.0.1", 4200
HOSTS = {b"127.0.0.1:4200", b"localhost:4200"}
ORIGINS = {b"http://127.0.0.1:4200", b"http://localhost:4200"}
FOREIGN = (
    b"", b"127.0.0.1", b"localhost", b"127.0.0.1:80", b"evil.example", b"evil.example:4200",
    b"localhost:4200.evil.example", b"localhost:4200@evil.example", b" localhost:4200",
    b"localhost:4200\r\n", b"LOCALHOST:4200", b"localhost:04200", b"[::1]:4200", b"\xff\xfe",
    b"localhost:4200,localhost:4200", b"null", b"https://localhost:4200", b"http://localhost",
    b"http://localhost:4200/", b"http://evil.example",
)  # fmt: skip
# Header names are made lower-case by the server in front; others must not get past either.
NAMES = {b"host": (b"host", b"Host", b"HOST"), b"origin": (b"origin", b"Origin", b"ORIGIN")}
OTHER_HEADERS = ([b"x-forwarded-host", b"localhost:4200"], [b"hos\xe9", b"\0"], [b"", b""])


@st.composite
def headers(draw: st.DrawFn, name: bytes, good: set[bytes], most: int) -> list[list[bytes]]:
    value = st.one_of(
        st.sampled_from(sorted(good)),
        st.sampled_from(FOREIGN),
        mutations.mutated(min(good)),
    )
    pairs = st.tuples(st.sampled_from(NAMES[name]), value)
    return [list(pair) for pair in draw(st.lists(pairs, max_size=most))]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a request as JSON; bytes are text in Latin-1."""
    lines = draw(headers(b"host", HOSTS, 2)) + draw(headers(b"origin", ORIGINS, 2))
    lines += draw(st.lists(st.sampled_from(OTHER_HEADERS), max_size=2))
    request = {
        "type": draw(st.sampled_from(["http", "websocket"])),
        "method": draw(st.sampled_from(["GET", "POST", "OPTIONS", "CONNECT", "\0", ""])),
        "path": draw(st.sampled_from(["/", "/api/health", "//evil.example", "/\udc80", "*", ""])),
        "headers": [
            [part.decode("latin-1") for part in line] for line in draw(st.permutations(lines))
        ],
    }
    return json.dumps(request).encode()


def send(request: dict[str, Any]) -> tuple[bool, list[dict[str, Any]]]:
    """Send a request; return whether it reached the app, and the answers of `OnlyLocal`."""
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append(scope)

    async def receive():
        return {"type": f"{request['type']}.connect"}

    async def answer(message):
        sent.append(message)

    lines = [tuple(part.encode("latin-1") for part in line) for line in request["headers"]]
    scope = {**request, "headers": lines, "raw_path": b"/\xff", "query_string": b"\xff"}
    call = OnlyLocal(app, host=HOST, port=PORT)(scope, receive, answer)
    with suppress(StopIteration):  # it waits for nothing, so one step is all of it
        call.send(None)
    return bool(reached), sent


def check_only_local_ones_pass(content: bytes) -> None:
    """Check that a request passes exactly if its one host and all its origins are this server's."""
    request = json.loads(content)
    reached, sent = send(request)
    values = {name: _values(request, name) for name in (b"host", b"origin")}
    is_local = (
        len(values[b"host"]) == 1
        and values[b"host"][0] in HOSTS
        and all(value in ORIGINS for value in values[b"origin"])
    )
    assert reached == is_local
    if not reached:
        first = sent[0]
        assert first.get("status") == 403 or first["type"] == "websocket.close"


def _values(request: dict[str, Any], name: bytes) -> list[bytes]:
    pairs = [[part.encode("latin-1") for part in line] for line in request["headers"]]
    return [value for key, value in pairs if key.lower() == name]


@search("http", requests())
def test_only_requests_to_this_server_reach_it(content):
    with kept.failing("http", content):
        check_only_local_ones_pass(content)


@kept.replay("http")
def test_kept_requests(content):
    check_only_local_ones_pass(content)


def test_a_request_to_this_server_reaches_it():
    good = {"type": "http", "method": "GET", "path": "/", "headers": [["host", "localhost:4200"]]}
    assert send(good) == (True, [])
