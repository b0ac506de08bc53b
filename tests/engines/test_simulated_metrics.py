"""What the simulated engine tells Prometheus: a page that can be read, numbers that are those of the timetable."""

from __future__ import annotations

import math
import re
import socket
from dataclasses import dataclass, field
from itertools import islice, pairwise

import pytest

from pytest_kitt.engine.simulated import distribution, timetable
from pytest_kitt.engine.simulated.exposition import Histogram, Page
from pytest_kitt.engine.simulated.timetable import Speed
from tests.engines.serving import Server, Start, raw_post, stream

LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)\{(.*)\} (\S+)")


@dataclass
class Family:
    """What a page says of one metric."""

    kind: str
    samples: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)


def parse(page: str) -> dict[str, Family]:
    """A page of format 0.0.4; an AssertionError for whatever a strict reader would refuse."""
    assert page.endswith("\n")
    found: dict[str, Family] = {}
    name = ""
    for line in page.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in found, f"{name} comes twice"
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == name
            found[name] = Family(line.split(" ")[3])
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            family = found[name]
            suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
            assert match[1] in [name + suffix for suffix in suffixes], line
            labels = dict(LABEL.findall(match[2]))
            assert LABEL.sub("", match[2]) == "", line
            family.samples.setdefault(match[1], []).append((labels, float(match[3])))
    for name, family in found.items():
        check(name, family)
    return found


def check(name: str, family: Family) -> None:
    """Counters do not say that they gauge, and buckets add up."""
    assert family.kind in ("counter", "gauge", "histogram")
    assert family.kind != "counter" or name.endswith("_total")
    if family.kind == "histogram":
        buckets = [(float(labels["le"]), value) for labels, value in family.samples[f"{name}_bucket"]]
        assert buckets[-1][0] == math.inf
        assert all(low[0] < high[0] and low[1] <= high[1] for low, high in pairwise(buckets))
        assert family.samples[f"{name}_count"][0][1] == buckets[-1][1]


def scrape(server: Server) -> dict[str, Family]:
    """The server's page."""
    reply = server.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(reply.text)


def test_a_value_at_a_bound_is_within_it() -> None:
    """Buckets are cumulative, their upper bounds inclusive."""
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1.0, 1.1, 2.5, 9.0):
        histogram.observe(value)
    assert list(histogram.cumulative()) == [("1.0", 2), ("2.5", 4), ("+Inf", 5)]
    assert (histogram.sum, histogram.count) == (14.1, 5)


def test_labels_are_escaped() -> None:
    """Whatever a name holds, the page can be read and gives it back."""
    page = Page({"model_name": 'a"b\\c\nd,e="f"'})
    page.add("gauge", "x", 1, "two\nlines")
    (labels, value) = parse(page.render().decode())["x"].samples["x"][0]
    assert labels == {"model_name": r"a\"b\\c\nd,e=\"f\""}
    assert value == 1


def test_the_page_can_be_read(start: Start) -> None:
    """A strict parser takes it, and vLLM's names have vLLM's kinds and labels."""
    server = start("--ttft-ms", "1", "--itl-ms", "0", "--prefix-cache", "1", "--profile", "h100x8", "--model", 'a"b')
    server.complete("x", max_tokens=2)
    found = scrape(server)
    kinds = {name: family.kind for name, family in found.items()}
    assert (
        kinds.items()
        >= {
            "vllm:num_requests_running": "gauge",
            "vllm:num_requests_waiting": "gauge",
            "vllm:kv_cache_usage_perc": "gauge",
            "vllm:gpu_cache_usage_perc": "gauge",
            "vllm:num_preemptions_total": "counter",
            "vllm:prompt_tokens_total": "counter",
            "vllm:generation_tokens_total": "counter",
            "vllm:request_success_total": "counter",
            "vllm:time_to_first_token_seconds": "histogram",
            "vllm:inter_token_latency_seconds": "histogram",
            "vllm:request_queue_time_seconds": "histogram",
            "vllm:e2e_request_latency_seconds": "histogram",
            "vllm:prefix_cache_queries_total": "counter",
            "vllm:prefix_cache_hits_total": "counter",
        }.items()
    )
    assert {
        labels["model_name"] for family in found.values() for rows in family.samples.values() for labels, _ in rows
    } == {r"a\"b"}
    ((hardware, _),) = found["simulated:hardware_info"].samples["simulated:hardware_info"]
    assert (hardware["profile"], hardware["count"], hardware["memory_gib"]) == ("h100x8", "8", "80")


def test_histograms_hold_the_drawn_times(start: Start) -> None:
    """The sums are those of the reference draws, request by request: what the client sees late is not in them."""
    server = start("--ttft-ms", "lognormal:20:0.3", "--itl-ms", "normal:2:1", "--seed", "7")
    for _ in range(3):
        server.complete("x", max_tokens=30)
    speed = Speed(distribution.read("lognormal:20:0.3"), distribution.read("normal:2:1"))
    ttfts = [timetable.draw_ttft_s(speed, 7, number) for number in range(3)]
    gaps = [gap.own_s for number in range(3) for gap in islice(timetable.draw_gaps(speed, 7, number), 29)]
    found = scrape(server)

    def value(name: str) -> float:
        return found[f"vllm:{name.rpartition('_')[0]}"].samples[f"vllm:{name}"][0][1]

    assert value("time_to_first_token_seconds_sum") == pytest.approx(sum(ttfts), abs=1e-8)
    assert value("time_to_first_token_seconds_count") == 3
    assert value("inter_token_latency_seconds_sum") == pytest.approx(sum(gaps), abs=1e-7)
    assert value("inter_token_latency_seconds_count") == 87
    assert value("e2e_request_latency_seconds_sum") == pytest.approx(sum(ttfts) + sum(gaps), abs=1e-7)
    assert value("request_queue_time_seconds_sum") == 0
    within = [sum(gap <= bound for gap in gaps) for bound in (0.01, 0.025)]
    buckets = found["vllm:inter_token_latency_seconds"].samples["vllm:inter_token_latency_seconds_bucket"]
    assert [count for _, count in buckets[:2]] == within


def test_how_requests_end(start: Start) -> None:
    """By their reason; a call ends like any other answer, and who goes before the end has aborted."""
    server = start("--ttft-ms", "0", "--itl-ms", "0")
    stop = server.complete("x", temperature=0)["choices"][0]["text"].split()[3]
    server.complete("x", temperature=0, stop=[stop])
    tools = [{"type": "function", "function": {"name": "f"}}]
    server.post("/v1/chat/completions", messages=[{"role": "user", "content": "x"}], tools=tools).raise_for_status()
    slow = start("--ttft-ms", "60000")
    with socket.create_connection(slow.address) as connection:
        connection.sendall(raw_post("/v1/completions", b'{"prompt": "x"}'))
        slow.wait_for("vllm:num_requests_running", 1)
    slow.wait_for("vllm:num_requests_running", 0)

    def ends(of: Server) -> dict[str, float]:
        samples = scrape(of)["vllm:request_success_total"].samples["vllm:request_success_total"]
        return {labels["finished_reason"]: value for labels, value in samples}

    assert ends(server) == {"stop": 2, "length": 1, "abort": 0}
    assert ends(slow) == {"stop": 0, "length": 0, "abort": 1}


def test_cache_usage_and_queue(start: Start) -> None:
    """What is reserved shows as usage; who does not fit waits, and starts when there is room."""
    server = start("--ttft-ms", "60000", "--kv-tokens", "100")
    assert server.get("/v1/models").json()["data"][0]["max_model_len"] == 100
    connections = [socket.create_connection(server.address) for _ in range(2)]
    for connection in connections:
        connection.sendall(raw_post("/v1/completions", b'{"prompt": "one two", "max_tokens": 58}'))
    server.wait_for("vllm:num_requests_waiting", 1)
    assert server.metric("vllm:kv_cache_usage_perc") == 0.6
    assert server.metric("vllm:gpu_cache_usage_perc") == 0.6
    connections[0].close()
    server.wait_for("vllm:num_requests_waiting", 0)
    assert server.metric("vllm:kv_cache_usage_perc") == 0.6
    connections[1].close()
    server.wait_for("vllm:kv_cache_usage_perc", 0)
    assert server.post("/v1/completions", prompt="x", max_tokens=100).status_code == 400


def test_preemption_shows(start: Start) -> None:
    """Two that fill the cache together: one is put out, both end whole, and the counter says so."""
    server = start("--ttft-ms", "5", "--itl-ms", "5", "--kv-tokens", "60", "--kv-policy", "preempt")
    connections = [socket.create_connection(server.address, timeout=30) for _ in range(2)]
    body = b'{"prompt": "x", "max_tokens": 50}'
    for connection in connections:
        connection.sendall(raw_post("/v1/completions", body, "Connection: close"))
    for connection in connections:
        answer = b"".join(iter(lambda connection=connection: connection.recv(65536), b""))  # type: ignore[misc]
        connection.close()
        assert b'"completion_tokens":50' in answer
    assert server.metric("vllm:num_preemptions_total") == 1
    assert server.metric("vllm:kv_cache_usage_perc") == 0


def test_load_slows_by_the_formula(start: Start) -> None:
    """Two that arrive together have gaps of itl x (1 + slope)."""
    server = start("--ttft-ms", "constant:1000", "--itl-ms", "100", "--itl-slope", "0.5", "--tokens", "3")
    connections = [socket.create_connection(server.address, timeout=30) for _ in range(2)]
    for connection in connections:
        connection.sendall(raw_post("/v1/completions", b'{"prompt": "x"}', "Connection: close"))
    for connection in connections:
        assert b"200 OK" in b"".join(iter(lambda connection=connection: connection.recv(65536), b""))  # type: ignore[misc]
        connection.close()
    assert server.metric("vllm:inter_token_latency_seconds_sum") == pytest.approx(4 * 0.15, abs=1e-7)


def test_a_full_queue_is_429(start: Start) -> None:
    """Beyond the limit a request is refused with Retry-After and leaves no trace; one that can start is not."""
    options = ("--max-concurrent", "1", "--max-waiting", "1", "--prefix-cache", "1")
    server = start("--ttft-ms", "60000", *options)
    connections = [socket.create_connection(server.address) for _ in range(2)]
    connections[0].sendall(raw_post("/v1/completions", b'{"prompt": "x"}'))
    server.wait_for("vllm:num_requests_running", 1)
    connections[1].sendall(raw_post("/v1/completions", b'{"prompt": "x"}'))
    server.wait_for("vllm:num_requests_waiting", 1)
    reply = server.post("/v1/completions", prompt="x")
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    assert reply.json()["error"]["message"] == "1 requests wait already; try again later"
    assert server.metric("vllm:num_requests_waiting") == 1
    assert server.metric("vllm:prefix_cache_queries_total") == 2
    for connection in connections:
        connection.close()
    none = start("--ttft-ms", "0", "--max-concurrent", "1", "--max-waiting", "0")
    assert stream(none, prompt="x", max_tokens=2).last == "[DONE]"


def test_events_in_one_write(start: Start) -> None:
    """So many events come in one chunk, the last in what is left; each still has its token."""
    server = start("--ttft-ms", "0", "--itl-ms", "0", "--write-events", "4")
    with socket.create_connection(server.address, timeout=30) as connection:
        body = b'{"prompt": "x", "stream": true, "max_tokens": 10}'
        connection.sendall(raw_post("/v1/completions", body, "Connection: close"))
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    chunks = re.split(rb"\r\n[0-9a-f]+\r\n", raw.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2])
    assert [chunk.count(b"data: {") for chunk in chunks] == [4, 4, 2, 0, 0]
