"""Does the client child send what it should, and tell the truth about what came back? A real child, real servers."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.truth import log
from benchmarks.truth.server import available, running
from pytest_kitt.load.run import Raw, address, run
from pytest_kitt.load.spec import ClientSpec
from pytest_kitt.measure.records import CountedBy, Failure, Phase

needs_truth = pytest.mark.skipif(not available(), reason="needs gcc to build the truth server")
MARK = "test-load-client"


def spec(url: str, **changes: Any) -> ClientSpec:
    """A small closed loop against a server."""
    host, port, tls, prefix = address(url)
    body = {"model": "truth", "prompt": "PLACE one two", "max_tokens": 8, "stream": True}
    before, after = json.dumps(body | {"stream_options": {"include_usage": True}}).split("PLACE")
    fields: dict[str, Any] = {
        "host": host,
        "port": port,
        "tls": tls,
        "ca_file": "",
        "path": prefix + "/v1/completions",
        "headers": (),
        "bodies": ((before, after),),
        "prefix_words": (),
        "prefix_length": 0,
        "salt": "s",
        "concurrency": 1,
        "warmup": 0,
        "requests": 4,
        "seconds": 0.0,
        "hold": False,
        "timeout_s": 20.0,
        "keep_text": True,
    }
    return ClientSpec(**{**fields, **changes})


def failures(raw: Raw) -> Counter[str]:
    """How the measured requests ended."""
    return Counter(Failure(r.failure).name for r in raw.table.rows() if r.phase == Phase.MEASURED)


@contextlib.contextmanager
def double(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """A small server of the test's own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


TRUTH = ("--ttft-ms", "5", "--itl-ms", "1")
FAULTS = {
    "none": ("NONE", 8),
    "split": ("NONE", 8),
    "splitchunk": ("NONE", 8),
    "merge:4": ("NONE", 8),
    "crlf": ("NONE", 8),
    "ping": ("NONE", 8),
    "nodone": ("NONE", 8),
    "eof": ("NONE", 8),
    "nospace": ("NONE", 8),
    "multidata": ("NONE", 8),
    "ctype": ("NONE", 8),
    "huge:1000000": ("NONE", 8),
    "close": ("CLOSED", 4),
    "reset": ("RESET", None),
    "stall": ("TIMEOUT", None),
    "noreply": ("TIMEOUT", 0),
    "badjson": ("BAD_STREAM", None),
    "errevent": ("ERROR_EVENT", 4),
    "redirect": ("HTTP_STATUS", 0),
    "status:500": ("HTTP_STATUS", 0),
    "429": ("HTTP_STATUS", 0),
}


@needs_truth
@pytest.mark.parametrize("fault", FAULTS)
def test_every_shape_and_fault_of_a_stream(fault: str) -> None:
    """Legal streams of any shape give all tokens; every fault gives its own class of failure, never a good request."""
    failure, tokens = FAULTS[fault]
    limit = 1.0 if failure == "TIMEOUT" else 20.0
    with running(*TRUTH, "--fault", fault) as server:
        raw = run(spec(server.url, requests=2, timeout_s=limit), mark=MARK)
    assert failures(raw) == {failure: 2}
    for row in raw.table.rows():
        assert tokens is None or len(row.event_ns) == tokens
        assert all(a <= b for a, b in pairwise(row.event_ns))
        if failure == "NONE":
            assert (row.osl, row.counted_by) == (8, CountedBy.USAGE)
            assert row.event_ns[0] - row.send_ns >= 5_000_000
    if failure != "NONE":
        assert any(name.startswith(failure) for name in raw.ending.details)


@needs_truth
def test_split_segments_carry_the_same_text() -> None:
    """However the bytes are cut, the text is the same."""
    texts = []
    for fault in ("none", "split", "splitchunk", "multidata"):
        with running(*TRUTH, "--fault", fault) as server:
            texts.append(run(spec(server.url, requests=1), mark=MARK).table.texts[0])
    assert len(set(texts)) == 1
    assert texts[0]


@needs_truth
def test_closed_loop_holds_its_concurrency() -> None:
    """Warm-up hands over without draining, cool-down keeps the load up, and every measured request is sent once."""
    with running("--ttft-ms", "20", "--itl-ms", "2") as server:
        raw = run(spec(server.url, concurrency=4, warmup=4, requests=20, hold=True), mark=MARK)
        time.sleep(0.3)
        served = log.read(server.log)
    rows = list(raw.table.rows())
    phases = Counter(Phase(r.phase).name for r in rows)
    assert (phases["WARMUP"], phases["MEASURED"]) == (4, 20)
    assert phases["COOLDOWN"] >= 1
    assert failures(raw) == {"NONE": 20}
    assert sorted(r.index for r in rows) == list(range(len(rows)))
    assert {s.id for s in served} >= {f"kitt-{r.index}" for r in rows if r.phase == Phase.MEASURED}
    assert len({s.id for s in served}) == len(served)
    measured = [r for r in rows if r.phase == Phase.MEASURED]
    middle = sorted(r.send_ns + (r.end_ns - r.send_ns) // 2 for r in measured)
    for at in middle[2:-2]:
        assert sum(r.send_ns <= at <= r.end_ns for r in rows) >= 3  # one may be between two requests


@needs_truth
def test_times_match_the_server() -> None:
    """No token is seen before the server sent it, and the first comes no earlier than its due time."""
    with running("--ttft-ms", "30", "--itl-ms", "3") as server:
        raw = run(spec(server.url, concurrency=2, requests=10), mark=MARK)
        time.sleep(0.3)
        served = {s.id: s for s in log.read(server.log)}
    assert raw.ending.clock == "kernel"
    for row in raw.table.rows():
        truth = served[f"kitt-{row.index}"]
        ours = [at - row.send_ns for at in row.event_ns]
        theirs = [at - truth.arrive_ns for at in truth.sent_ns]
        # sent before it arrives, received after it is sent: ours can only be longer, but for the join of the clocks
        assert all(a >= b - 20_000 for a, b in zip(ours, theirs, strict=True))
        assert min(ours) >= 30_000_000 - 20_000


@needs_truth
def test_seconds_stop() -> None:
    """With a stop in seconds requests are sent until then, and those under way are finished."""
    with running(*TRUTH) as server:
        raw = run(spec(server.url, concurrency=2, requests=0, seconds=0.5), mark=MARK)
    assert failures(raw)["NONE"] == len(raw.table) >= 2
    assert raw.ending.wall_s >= 0.5


@needs_truth
def test_server_killed_in_mid_run_ends_the_load() -> None:
    """When the server dies the load ends by itself and says why."""
    with running("--ttft-ms", "50", "--itl-ms", "5") as server:
        threading.Timer(0.5, os.kill, (server.pid, signal.SIGKILL)).start()
        raw = run(spec(server.url, concurrency=4, requests=100_000), mark=MARK)
    assert raw.ending.stopped == "the server cannot be reached any more"
    assert set(failures(raw)) & {"RESET", "CLOSED"}
    assert failures(raw)["CONNECT"] >= 4


def test_refused_connection_is_data() -> None:
    """Where nobody listens every request is a failed row with its class, and the load ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        raw = run(spec(url, requests=3), mark=MARK)
    assert failures(raw) == {"CONNECT": 3}
    assert "refused" in raw.ending.details["CONNECT"]


@needs_truth
def test_large_prompts_are_sent_whole() -> None:
    """A body larger than the socket's buffer arrives, and the send time is that of its last piece."""
    body = json.dumps({"model": "truth", "prompt": "x" * 8_000_000, "max_tokens": 2, "stream": True})
    with running(*TRUTH) as server:
        raw = run(spec(server.url, bodies=((body, ""),), requests=2), mark=MARK)
    assert failures(raw) == {"NONE": 2}


def test_prefixes_are_unique() -> None:
    """No two requests of a load, nor of two loads, begin alike."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body["prompt"])
            answer = b'{"choices":[{"text":" a","finish_reason":"stop"}],"usage":{"completion_tokens":1}}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    words = {"prefix_words": (" one", " two", " three", " four"), "prefix_length": 12}
    with double(Handler) as url:
        for salt in ("a", "b"):
            raw = run(spec(url, requests=30, salt=salt, **words), mark=MARK)
            assert failures(raw) == {"NONE": 30}
            assert all(r.connect_ns == 0 for r in list(raw.table.rows())[1:])  # one connection served all
    assert len(set(seen)) == len(seen) == 60


def test_reset_on_a_reused_connection_is_sent_again_once() -> None:
    """A server that closes after each answer without saying so costs a re-send, which is counted, not a failure."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = b'{"choices":[{"text":" a","finish_reason":"stop"}]}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with double(Handler) as url:
        raw = run(spec(url, requests=10), mark=MARK)
    assert failures(raw) == {"NONE": 10}
    assert 1 <= sum(r.resent for r in raw.table.rows()) <= 3  # then it gets a new connection each time


def test_tls_with_a_private_authority(tmp_path: Path) -> None:
    """Https works with the right CA file, on the kernel's clock, and fails by name without it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    subject = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run([*make, *subject], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    command = [sys.executable, "-m", "pytest_kitt.engine.simulated", "--port", "0", "--ttft-ms", "5", "--itl-ms", "1"]
    tls = ["--tls-cert", str(cert), "--tls-key", str(key), "--model", "truth"]
    with subprocess.Popen([*command, *tls], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            good = run(spec(url, ca_file=str(cert), concurrency=2, requests=6), mark=MARK)
            bad = run(spec(url, requests=2), mark=MARK)
        finally:
            process.kill()
    assert failures(good) == {"NONE": 6}
    assert good.ending.clock == "kernel"
    assert all(len(r.event_ns) == 8 and r.event_ns[0] - r.send_ns >= 5_000_000 for r in good.table.rows())
    assert failures(bad) == {"CONNECT": 2}
    assert "certificate" in bad.ending.details["CONNECT"].lower()


def test_the_child_dies_with_its_parent() -> None:
    """Kill -9 of the process that started a client leaves no client behind."""
    helper = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-P', '-m', 'pytest_kitt.load.client'], stdin=subprocess.PIPE)\n"
        "print(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", helper], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(1.0)  # until the child waits for its spec
        parent.kill()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
