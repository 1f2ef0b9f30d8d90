import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.adapters.process import http_health


class Guarded(BaseHTTPRequestHandler):
    """Answers 200 to the right login, else 401."""

    def do_GET(self) -> None:
        is_right = self.headers.get("Authorization") == "Basic right"
        self.send_response(200 if is_right else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer((http_health.HOST, 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{http_health.HOST}:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_an_answer_ends_the_wait(url):
    login = {"Authorization": "Basic right"}
    assert http_health.wait_for_answer(url, seconds=20, is_alive=lambda: True, headers=login)


def test_a_refusal_is_no_answer(url):
    login = {"Authorization": "Basic wrong"}
    answered = http_health.wait_for_answer(url, seconds=0.7, is_alive=lambda: True, headers=login)
    assert not answered


def test_another_program_that_answers_for_a_process_that_ended_does_not_count(url):
    login = {"Authorization": "Basic right"}
    alive = iter([True, False])
    assert not http_health.wait_for_answer(
        url, seconds=20, is_alive=lambda: next(alive), headers=login
    )


def test_a_port_is_in_use_while_something_listens_on_it(url):
    assert http_health.is_in_use(int(url.rstrip("/").rpartition(":")[2]))
    assert not http_health.is_in_use(http_health.free_port())
