"""Are JSON requests sent as they are, and their answers passed on whole? The client child against a real server."""

from __future__ import annotations

import http.server
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_kitt.dialect import apis
from pytest_kitt.load.run import Raw, run
from pytest_kitt.measure.records import CountedBy, Failure, RequestTable
from tests.test_load_client import spec

MARK = "test-calls"


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what was asked; a field of it says what else to do."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = asked.get("said") or json.dumps({"asked": asked["n"], "usage": {"prompt_tokens": asked["n"]}})
        self.send_response(asked.get("status", 200))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said.encode())))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """The address of a server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(
    url: str, bodies: list[dict[str, Any]], on_table: Callable[[RequestTable], None] = lambda _: None
) -> tuple[Raw, dict[int, str]]:
    """The load, and the answers' texts by number."""
    texts: dict[int, str] = {}

    def on_block(_: object, table: RequestTable) -> None:
        texts.update(table.texts)
        on_table(table)

    with tempfile.TemporaryFile() as file:
        file.write(b"".join(json.dumps(body).encode() + b"\n" for body in bodies))
        file.flush()
        wanted = spec(
            url, bodies=(), bodies_fd=file.fileno(), api=apis.WHOLE, hold=False, requests=len(bodies), concurrency=3
        )
        return run(wanted, mark=MARK, on_block=on_block, spool_texts=False), texts


def test_each_is_sent_once_and_answered_whole(url: str) -> None:
    """In whatever order they end; the number says which request an answer belongs to."""
    raw, texts = ask(url, [{"n": n, "text": "ä\n" * n} for n in range(40)])
    assert {n: json.loads(text)["asked"] for n, text in texts.items()} == {n: n for n in range(40)}
    rows = list(raw.records.rows())
    assert sorted((r.index, r.isl, r.osl, r.failure) for r in rows) == [(n, n, -1, Failure.NONE) for n in range(40)]
    assert {(len(r.event_ns), r.counted_by) for r in rows} == {(1, CountedBy.NOBODY)}
    assert all(r.event_ns[0] == r.end_ns for r in rows)


def test_their_answers_are_stored_nowhere(url: str) -> None:
    """They may be large: whoever asked reads them, and no block holds them."""
    raw, texts = ask(url, [{"n": n} for n in range(5)])
    assert len(texts) == 5
    assert raw.records.texts == {}
    assert [RequestTable.from_bytes(block.data).texts for block in raw.blocks] == [{}] * len(raw.blocks)


@pytest.mark.parametrize(
    "body, failure, why",
    [
        ({"n": 0, "status": 404, "said": '{"error": {"message": "no such thing"}}'}, Failure.HTTP_STATUS, "no such"),
        ({"n": 0, "said": "no JSON"}, Failure.BAD_STREAM, "is not JSON"),
        ({"n": 0, "said": '{"error": {"message": "sorry"}}'}, Failure.ERROR_EVENT, "sorry"),
    ],
)
def test_what_is_no_answer_fails_by_itself(url: str, body: dict[str, Any], failure: Failure, why: str) -> None:
    """The others are answered; the first explanation of each kind is kept."""
    raw, texts = ask(url, [{"n": 1}, body, {"n": 2}])
    assert sorted(texts) == [0, 2]
    assert {r.index: r.failure for r in raw.records.rows()} == {0: Failure.NONE, 1: failure, 2: Failure.NONE}
    assert any(why in text for text in raw.ending.details.values())


@pytest.mark.parametrize(
    "said, counts",
    [
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 1}}, (7, 1)),
        ({"meta_info": {"prompt_tokens": 8, "completion_tokens": 1}}, (8, 1)),
        ({"tokens_evaluated": 9, "tokens_predicted": 2}, (9, 2)),
        ({"prompt_eval_count": 10, "eval_count": 1}, (10, 1)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, (-1, -1)),
        ([1, 2], (-1, -1)),
    ],
)
def test_tokens_are_counted_where_the_server_says_so(said: Any, counts: tuple[int, int]) -> None:
    """In the words of any API; what is no count is none."""
    reader = apis.reader(apis.WHOLE)
    reader.feed([5, 9], [json.dumps(said).encode()[:3], json.dumps(said).encode()[3:]])
    answer = reader.finish()
    assert (answer.isl, answer.osl) == counts
    assert (list(answer.event_ns), json.loads(answer.text)) == ([9], said)


def test_large_answers_leave_in_many_blocks(url: str) -> None:
    """A block is bounded by its texts too."""
    sizes: list[int] = []
    said = json.dumps({"x": "y" * 300_000})
    ask(url, [{"n": 1, "said": said}] * 12, on_table=lambda table: sizes.append(len(table)))
    assert sum(sizes) == 12
    assert max(sizes) <= 3
