"""Does the client child send what it should, and tell the truth about what came back? A real child, real servers."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import http.server
import json
import os
import selectors
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.truth import log
from benchmarks.truth.server import available, help_text, running
from pytest_kitt.load.arrivals import due_ns
from pytest_kitt.load.client.__main__ import _resolve
from pytest_kitt.load.client.loop import LoadLoop
from pytest_kitt.load.client.poller import Epoll, Selector
from pytest_kitt.load.run import Raw, address, run
from pytest_kitt.load.spec import Arrivals, ClientSpec, Look, Proxy, load_of
from pytest_kitt.measure.records import CountedBy, Failure, Phase, RequestTable

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
    return Counter(Failure(r.failure).name for r in raw.records.rows() if r.phase == Phase.MEASURED)


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
    "badutf8": ("BAD_STREAM", None),
    "errevent": ("ERROR_EVENT", 4),
    "redirect": ("HTTP_STATUS", 0),
    "status:500": ("HTTP_STATUS", 0),
    "429": ("HTTP_STATUS", 0),
    "500": ("HTTP_STATUS", 0),
    "503": ("HTTP_STATUS", 0),
}


@needs_truth
def test_the_table_has_every_fault() -> None:
    """What the truth server can do is in the table."""
    listed = {line.split()[0] for line in help_text().partition("faults:")[2].splitlines() if line.strip()}
    assert {name.partition(":")[0] for name in FAULTS} == listed


@needs_truth
@pytest.mark.parametrize("fault", FAULTS)
def test_every_shape_and_fault_of_a_stream(fault: str) -> None:
    """Legal streams of any shape give all tokens; every fault gives its own class of failure, never a good request."""
    failure, tokens = FAULTS[fault]
    limit = 1.0 if failure == "TIMEOUT" else 20.0
    with running(*TRUTH, "--fault", fault) as server:
        raw = run(spec(server.url, requests=2, timeout_s=limit), mark=MARK)
    assert failures(raw) == {failure: 2}
    for row in raw.records.rows():
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
            texts.append(run(spec(server.url, requests=1), mark=MARK).records.texts[0])
    assert len(set(texts)) == 1
    assert texts[0]


@needs_truth
def test_closed_loop_holds_its_concurrency() -> None:
    """Warm-up hands over without draining, cool-down keeps the load up, and every measured request is sent once."""
    with running("--ttft-ms", "20", "--itl-ms", "2") as server:
        raw = run(spec(server.url, concurrency=4, warmup=4, requests=20, hold=True), mark=MARK)
        time.sleep(0.3)
        served = log.read(server.log)
    rows = list(raw.records.rows())
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
    for row in raw.records.rows():
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
    assert failures(raw)["NONE"] == len(raw.records) >= 2
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
            raw = run(spec(url, requests=70, salt=salt, **words), mark=MARK)
            assert failures(raw) == {"NONE": 70}
            assert all(r.connect_ns == 0 for r in list(raw.records.rows())[1:])  # one connection served all
    assert len(set(seen)) == len(seen) == 140


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
    assert 1 <= sum(r.resent for r in raw.records.rows()) <= 3  # then it gets a new connection each time


@pytest.fixture
def tls_engine(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The simulated engine behind TLS, and the certificate to trust."""
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
            yield json.loads(process.stdout.readline())["url"], cert
        finally:
            process.kill()


def test_the_limits_of_a_connection_are_kept() -> None:
    """A server that closes after three answers, or after a second without work, and says so, costs no re-send."""
    seen: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 1.0
        served = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.served += 1
            seen.append(self.client_address[1])
            answer = b'{"choices":[{"text":" a","finish_reason":"stop"}]}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Keep-Alive", "timeout=1, max=3")
            self.end_headers()
            self.wfile.write(answer)
            self.close_connection = self.served >= 3

        def log_message(self, *_: object) -> None:
            pass

    with double(Handler) as url:
        often = run(spec(url, requests=10), mark=MARK)
        assert len(set(seen)) == 4
        slow = {"concurrency": 0, "arrivals": Arrivals(1.25, "constant"), "connections": 1, "max_connections": 9}
        rarely = run(spec(url, requests=4, **slow), mark=MARK)
    assert failures(often) == {"NONE": 10}
    assert failures(rarely) == {"NONE": 4}
    assert sum(often.records["resent"]) == sum(rarely.records["resent"]) == 0
    assert len(set(seen)) == 8


def test_tls_with_a_private_authority(tls_engine: tuple[str, Path]) -> None:
    """Https works with the right CA file, on the kernel's clock, and fails by name without it."""
    url, cert = tls_engine
    good = run(spec(url, ca_file=str(cert), concurrency=2, requests=6), mark=MARK)
    bad = run(spec(url, requests=2), mark=MARK)
    assert failures(good) == {"NONE": 6}
    assert good.ending.clock == "kernel"
    assert all(len(r.event_ns) == 8 and r.event_ns[0] - r.send_ns >= 5_000_000 for r in good.records.rows())
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


@needs_truth
@pytest.mark.parametrize("shape", [("--late-headers",), ("--role-chunk",), ("--late-headers", "--role-chunk")])
def test_heads_and_roles_are_no_tokens(shape: tuple[str, ...]) -> None:
    """TTFT ends with the first token: not with the head, not with a chunk that only names the role."""
    body = {"model": "truth", "messages": [{"role": "user", "content": "PLACE"}], "max_tokens": 4, "stream": True}
    before, after = json.dumps(body | {"stream_options": {"include_usage": True}}).split("PLACE")
    with running("--ttft-ms", "20", "--itl-ms", "5", *shape) as server:
        host, port, *_ = address(server.url)
        chat = {"bodies": ((before, after),), "path": "/v1/chat/completions", "api": "chat", "host": host, "port": port}
        raw = run(spec(server.url, **chat), mark=MARK)
    assert failures(raw) == {"NONE": 4}
    for row in raw.records.rows():
        assert len(row.event_ns) == row.osl == 4
        assert row.event_ns[0] - row.send_ns >= 20_000_000


@needs_truth
def test_an_answer_that_was_not_streamed() -> None:
    """One document: all tokens at once, counted by usage."""
    body = json.dumps({"model": "truth", "prompt": "x", "max_tokens": 6})
    with running(*TRUTH) as server:
        raw = run(spec(server.url, bodies=((body, ""),)), mark=MARK)
    assert [(r.osl, len(r.event_ns)) for r in raw.records.rows()] == [(6, 1)] * 4
    assert failures(raw) == {"NONE": 4}


@needs_truth
def test_a_redirect_is_named_and_not_followed() -> None:
    """The user hears where it leads to."""
    with running("--fault", "redirect") as server:
        raw = run(spec(server.url, requests=1), mark=MARK)
    assert "redirected to http://127.0.0.1" in raw.ending.details["HTTP_STATUS 307"]


@needs_truth
@pytest.mark.parametrize("load", ["constant:100/s", "poisson:100/s", "gamma:100/s:2"])
def test_open_loop_sends_when_requests_are_due(load: str) -> None:
    """The server sees the schedule's own gaps, however long the answers take; warm-up and cool-down are on it too."""
    arrivals = load_of(load)
    assert isinstance(arrivals, Arrivals)
    with running("--ttft-ms", "100", "--itl-ms", "5") as server:
        changes = {"concurrency": 0, "arrivals": arrivals, "connections": 8, "max_connections": 500, "seed": "3"}
        raw = run(spec(server.url, warmup=10, requests=60, hold=True, **changes), mark=MARK)
        time.sleep(0.3)
        served = {s.id: s for s in log.read(server.log)}
    rows = sorted(raw.records.rows(), key=lambda r: r.index)
    assert failures(raw) == {"NONE": 60}
    dues = list(islice(due_ns(arrivals, seed="3"), len(rows)))
    assert [r.planned_ns for r in rows] == dues
    assert [Phase(r.phase) for r in rows] == [Phase.WARMUP] * 10 + [Phase.MEASURED] * 60 + [Phase.COOLDOWN] * (
        len(rows) - 70
    )
    assert len(rows) > 70
    late = sorted(r.send_ns - r.planned_ns for r in rows if r.send_ns >= 0)
    assert late[0] >= 0
    assert late[len(late) // 2] < 5_000_000
    seen = [served[f"kitt-{r.index}"].arrive_ns for r in rows[:70]]
    off = sorted(abs((b - a) - (d - c)) for a, b, c, d in zip(seen, seen[1:], dues, dues[1:], strict=False))
    assert off[len(off) // 2] < 20_000_000  # a busy machine delays some of them


@needs_truth
def test_open_loop_waits_for_no_answer() -> None:
    """A server that is slower than requests come has ever more of them under way; beyond the limit they are late."""
    with running("--ttft-ms", "300", "--itl-ms", "1") as server:
        changes = {"concurrency": 0, "arrivals": Arrivals(100, "constant"), "connections": 1}
        free = run(spec(server.url, requests=50, max_connections=500, **changes), mark=MARK)
        bound = run(spec(server.url, requests=50, max_connections=10, **changes), mark=MARK)
    assert failures(free) == failures(bound) == {"NONE": 50}
    assert max(r.send_ns - r.planned_ns for r in free.records.rows()) < 300_000_000
    assert max(r.send_ns - r.planned_ns for r in bound.records.rows()) > 500_000_000


@needs_truth
def test_open_loop_for_some_seconds() -> None:
    """As many as are due in that time, no more and no less."""
    with running(*TRUTH) as server:
        changes = {"concurrency": 0, "arrivals": Arrivals(200, "constant"), "connections": 4, "max_connections": 100}
        raw = run(spec(server.url, requests=0, seconds=0.5, warmup=3, **changes), mark=MARK)
    assert failures(raw) == {"NONE": 100}


@needs_truth
@pytest.mark.parametrize("load", [{"concurrency": 6}, {"concurrency": 0, "arrivals": Arrivals(300), "connections": 4}])
def test_clients_share_a_load(load: dict[str, Any]) -> None:
    """Disjoint requests and prompts, one schedule, the measured ones exactly as many as asked for, one time base."""
    words = {"prefix_words": (" one", " two", " three", " four"), "prefix_length": 12}
    with running("--ttft-ms", "20", "--itl-ms", "2") as server:
        raw = run(
            spec(server.url, warmup=6, requests=61, hold=True, max_connections=300, seed="5", **load, **words),
            mark=MARK,
            clients=3,
        )
        time.sleep(0.3)
        served = log.read(server.log)
    assert failures(raw) == {"NONE": 61}
    rows = list(raw.records.rows())
    assert len({r.index for r in rows}) == len(rows)
    assert len({s.id for s in served}) == len(served)
    assert len(raw.clients) == 3
    if load["concurrency"]:
        measured = [r for r in rows if r.phase == Phase.MEASURED]
        middle = sorted(r.send_ns + (r.end_ns - r.send_ns) // 2 for r in measured)[20:40]
        assert all(sum(r.send_ns <= at <= r.end_ns for r in rows) >= 4 for at in middle)
    else:
        dues = list(islice(due_ns(load["arrivals"], seed="5"), 10_000))
        assert all(r.planned_ns == dues[r.index] for r in rows)


@needs_truth
def test_a_load_ends_early_when_too_many_fail() -> None:
    """Half of the requests fail; with a bound of 40 % the load stops, without one it goes on."""
    with running(*TRUTH, "--fault", "500", "--fault-every", "2") as server:
        stopped = run(spec(server.url, concurrency=4, requests=100_000, max_error_share=0.4), mark=MARK)
        whole = run(spec(server.url, concurrency=4, requests=120), mark=MARK)
    assert "requests failed" in stopped.ending.stopped
    assert 50 <= len(stopped.records) < 50_000
    assert failures(whole) == {"NONE": 60, "HTTP_STATUS": 60}
    assert whole.ending.stopped == ""


@needs_truth
def test_a_hopeless_load_ends() -> None:
    """When everything fails there is no use in going on."""
    with running("--fault", "500") as server:
        raw = run(spec(server.url, concurrency=4, requests=1_000_000), mark=MARK)
    assert "requests failed" in raw.ending.stopped


@needs_truth
def test_an_interrupt_keeps_what_was_measured() -> None:
    """Ctrl-C in mid-load: the requests that had ended, and those that were cancelled, are in the blocks."""
    code = (
        "import sys\nsys.path[:0] = [sys.argv[2]]\n"
        "from tests.test_load_client import spec, MARK\nfrom pytest_kitt.load.run import run, Interrupted\n"
        "from pytest_kitt.measure.records import Failure\n"
        "try:\n    load = spec(sys.argv[1], concurrency=4, requests=100000)\n"
        "    run(load, mark=MARK, on_progress=lambda p: print(p.done))\n"
        "except Interrupted as i:\n    f = list(i.raw.records['failure'])\n"
        "    print('kept', f.count(Failure.NONE), f.count(Failure.CANCELLED), flush=True)\n"
    )
    with running(*TRUTH, "--fault", "stall", "--fault-every", "7") as server:
        command = [sys.executable, "-u", "-c", code, server.url, str(Path(__file__).parents[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while (
                int(process.stdout.readline()) < 18
            ):  # by then each of the four slots waits for an answer that stalled
                pass
            process.send_signal(signal.SIGINT)
            said = process.stdout.read().split()
    assert said[-3:] == ["kept", "18", "4"]


@needs_truth
def test_thousands_of_connections_stand_before_the_clock_starts() -> None:
    """No request of a closed loop of 1500 pays for its connection."""
    with running("--ttft-ms", "300", "--itl-ms", "1") as server:
        raw = run(spec(server.url, concurrency=1500, requests=1500), mark=MARK)
    assert failures(raw) == {"NONE": 1500}
    assert all(0 < r.connect_ns < 10_000_000_000 for r in raw.records.rows())
    assert max(r.send_ns for r in raw.records.rows()) < 5_000_000_000


def test_too_few_files_are_said() -> None:
    """A limit that cannot be raised is one sentence before anything is sent."""
    code = (
        "import resource, sys\nsys.path[:0] = [sys.argv[1]]\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from tests.test_load_client import spec, MARK\nfrom pytest_kitt.load.run import run\n"
        "run(spec('http://127.0.0.1:1', concurrency=1000, requests=1000), mark=MARK)\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[1])]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert "1064 open files are needed and the limit is 256; raise it with ulimit -n" in said


@needs_truth
def test_the_clock_of_the_process_and_any_systems_poll() -> None:
    """Where the kernel does not stamp the client still measures, and says by which clock; with select as with epoll."""
    with running("--ttft-ms", "30", "--itl-ms", "3") as server:
        raw = run(spec(server.url, concurrency=2, requests=10, user_clock=True), mark=MARK)
        assert (raw.ending.clock, failures(raw)) == ("user", {"NONE": 10})
        assert all(r.event_ns[0] - r.send_ns >= 30_000_000 for r in raw.records.rows())
        for wanted in (
            spec(server.url, concurrency=2, requests=6),
            spec(server.url, concurrency=0, requests=20, arrivals=Arrivals(50), connections=2, max_connections=50),
        ):
            table = RequestTable()
            with contextlib.closing(Selector(selectors.SelectSelector())) as poller:
                loop = LoadLoop(wanted, _resolve(wanted), poller, emit=table.extend, progress=print, done=lambda: None)
                loop.open()
                loop.run(time.perf_counter_ns())
            gc.unfreeze()
            rows = list(table.rows())
            assert [r.failure for r in rows] == [Failure.NONE] * wanted.requests
            assert all(len(r.event_ns) == 8 for r in rows)


@needs_truth
def test_what_is_told_meanwhile_is_what_was_measured() -> None:
    """The looks' first-token times and gaps are those of measured requests, each at most once; counts only grow."""
    looks: list[Look] = []
    table = RequestTable()
    with running("--ttft-ms", "20", "--itl-ms", "4") as server, contextlib.closing(Epoll()) as poller:
        wanted = spec(server.url, concurrency=4, requests=60, warmup=8, hold=True)
        wanted = dataclasses.replace(
            wanted, bodies=tuple((a, b.replace('"max_tokens": 8', '"max_tokens": 64')) for a, b in wanted.bodies)
        )
        loop = LoadLoop(
            wanted,
            _resolve(wanted),
            poller,
            emit=table.extend,
            progress=looks.append,
            done=lambda: setattr(loop, "released", True),
        )
        loop.open()
        loop.run(time.perf_counter_ns())
    gc.unfreeze()
    measured = [row for row in table.rows() if row.phase is Phase.MEASURED]
    first = Counter(row.event_ns[0] - row.send_ns for row in measured)
    gaps = Counter(b - a for row in measured for a, b in pairwise(row.event_ns))
    told_first = Counter(ns for look in looks for ns in look.ttft_ns)
    told_gaps = Counter(ns for look in looks for ns in look.gaps_ns)
    assert told_first <= first
    assert told_gaps <= gaps
    assert told_first.total() > 30
    assert gaps.total() / 32 < told_gaps.total() < gaps.total() / 14
    for name in ("done", "tokens", "reads", "warmed", "measured_ns", "phase"):
        values = [getattr(look, name) for look in looks]
        assert values == sorted(values), name
    assert {look.phase for look in looks} <= {Phase.WARMUP, Phase.MEASURED, Phase.COOLDOWN}
    tokens = sum(max(row.osl, len(row.event_ns)) for row in table.rows())
    assert tokens / 2 < looks[-1].tokens <= tokens
    assert looks[-1].warmed == 8


@contextlib.contextmanager
def proxy(user: str) -> Iterator[tuple[str, list[str]]]:
    """An HTTP proxy that wants a name and a password, and the first lines of what it was asked."""
    asked: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        rbufsize = 0  # what stands behind the head is not ours to take

        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.rfile.readline()
            first = head.split(b"\r\n")[0].decode()
            asked.append(first)
            if f"Proxy-Authorization: Basic {user}\r\n".encode() not in head:
                self.wfile.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
                return
            verb, target, _ = first.split()
            place = target if verb == "CONNECT" else target.split("/")[2]
            host, _, port = place.rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                if verb == "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    head = head.replace(f"http://{place}".encode(), b"", 1)
                    there.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                threading.Thread(target=_pump, args=(there, self.connection), daemon=True).start()
                _pump(self.connection, there)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@needs_truth
def test_through_a_proxy() -> None:
    """Plain http is asked for by its whole address; the right name is needed, the wrong one is a failure by name."""
    with running(*TRUTH) as server, proxy("bWU6aHVzaA==") as (url, asked):
        host, port, *_ = address(url)
        good = run(spec(server.url, proxy=Proxy(host, port, "Basic bWU6aHVzaA==")), mark=MARK)
        bad = run(spec(server.url, proxy=Proxy(host, port)), mark=MARK)
    assert failures(good) == {"NONE": 4}
    assert asked[0] == f"POST {server.url}/v1/completions HTTP/1.1"
    assert failures(bad) == {"HTTP_STATUS": 4}
    assert "HTTP_STATUS 407" in bad.ending.details


def test_tls_through_a_proxy(tls_engine: tuple[str, Path]) -> None:
    """Https passes a tunnel, on the kernel's clock still; a proxy that refuses is named."""
    engine, ca = tls_engine
    with proxy("bWU6aHVzaA==") as (url, asked):
        host, port, *_ = address(url)
        changes = {"ca_file": str(ca), "requests": 3}
        good = run(spec(engine, proxy=Proxy(host, port, "Basic bWU6aHVzaA=="), **changes), mark=MARK)
        bad = run(spec(engine, proxy=Proxy(host, port), **changes), mark=MARK)
    assert (failures(good), good.ending.clock) == ({"NONE": 3}, "kernel")
    assert asked[0].startswith("CONNECT 127.0.0.1:")
    assert failures(bad) == {"CONNECT": 3}
    assert "refused the way to the server with status 407" in bad.ending.details["CONNECT"]


@needs_truth
def test_a_request_that_comes_too_late_is_none() -> None:
    """The limit holds to the millisecond, from when the request was due, for answers that do come too."""
    with running("--ttft-ms", "100", "--itl-ms", "1") as server:
        late = run(spec(server.url, concurrency=2, requests=10, timeout_s=0.05), mark=MARK)
        none_in_time = run(spec(server.url, concurrency=2, requests=10, timeout_s=0.1), mark=MARK)
        in_time = run(spec(server.url, concurrency=2, requests=10, timeout_s=0.5), mark=MARK)
    assert failures(late) == failures(none_in_time) == {"TIMEOUT": 10}
    assert failures(in_time) == {"NONE": 10}
    assert late.ending.wall_s < 1.0
