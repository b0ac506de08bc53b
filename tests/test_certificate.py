"""Does the certificate flag what makes a measurement wrong, and nothing else? Scripted records, known answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_kitt.load import accounting
from pytest_kitt.load.certificate import Certificate, certify
from pytest_kitt.load.spec import Adaptive, Arrivals, Closed, Ending, Load, joined
from pytest_kitt.measure.records import CountedBy, Failure, Phase, Records, Request, RequestTable
from pytest_kitt.measure.results import Result
from pytest_kitt.report.terminal import all_certified

MS = 1_000_000
ENDING = Ending(
    clock="kernel",
    wall_s=10.0,
    cpu_s=1.0,
    max_rss_bytes=1,
    clock_drift_ns=100,
    merged=0,
    bundled=0,
    reads=1000,
    late_reads=0,
    stall_ms=1.0,
    local_errors=0,
    samples=[],
    details={},
    stopped="",
)


def row(index: int, planned_ms: float, *, late_ms: float = 0.1, took_ms: float = 100, **changes: Any) -> Request:
    """A request with ten tokens, 10 ms apart."""
    send = int((planned_ms + late_ms) * MS)
    last = send + int(took_ms * MS)
    fields: dict[str, Any] = {
        "phase": Phase.MEASURED,
        "planned_ns": int(planned_ms * MS),
        "send_ns": send,
        "end_ns": last,
        "osl": 10,
        "isl": 100,
        "counted_by": CountedBy.USAGE,
        "answer_event": 0,
        "event_ns": [last - (9 - i) * 10 * MS for i in range(10)],
    }
    return Request(index=index, **{**fields, **changes})


def records(rows: Sequence[Request]) -> Records:
    """As a load leaves them."""
    table = RequestTable()
    for r in rows:
        table.append(r)
    return Records([table.to_bytes()])


def closed(n: int = 40, **changes: Any) -> list[Request]:
    """Two slots, each sending as soon as it is free, with a cool-down behind."""
    rows = [row(i, (i // 2) * 100.1 + (i % 2) * 50, **changes) for i in range(n)]
    more = [row(n + i, (n // 2 + i // 2) * 100.1 + (i % 2) * 50, phase=Phase.COOLDOWN) for i in range(2)]
    return rows + more


def open_(n: int = 100, **changes: Any) -> list[Request]:
    """One request every 10 ms."""
    return [row(i, i * 10, **changes) for i in range(n)]


def found(rows: Sequence[Request], load: Load, **changes: Any) -> Certificate:
    """The certificate of a load with some account of its client."""
    return certify(records(rows), load, [dataclasses.replace(ENDING, **changes)], held=True)


def test_a_good_closed_loop() -> None:
    """Everything holds, and says what it is."""
    c = found(closed(), Closed(2))
    assert c.holds
    assert [c.lag_p50_ms, c.lag_p99_ms] == pytest.approx([0.1, 0.1], rel=1e-3)
    assert c.in_flight_mean == pytest.approx(2, abs=0.05)
    assert (c.cpu_share, c.clock, c.rate_asked_rps) == (0.1, "kernel", 0)
    assert c.as_params()["broken"] == []


def test_requests_that_are_all_sent_at_once() -> None:
    """Nothing follows: the slots are full when the last one is sent, unless some have ended by then."""
    at_once = [row(i, 0, late_ms=i * 0.1) for i in range(20)]
    c = certify(records(at_once), Closed(20), [ENDING], held=False)
    assert (c.in_flight_mean, c.holds) == (20, True)
    slow = [row(i, 0, late_ms=i * 10, took_ms=95) for i in range(20)]
    c = certify(records(slow), Closed(20), [ENDING], held=False)
    assert c.in_flight_mean == 10
    assert any("10 requests were under way of 20 asked for" in said for said in c.broken)


def test_slots_that_fill_up_without_a_warm_up() -> None:
    """Two slots, the second one 50 ms late, and nothing behind: they count from when both are full."""
    rows = [row(i, (i // 2) * 100.1 + (i % 2) * 50) for i in range(12)]
    c = certify(records(rows), Closed(2), [ENDING], held=False)
    assert c.in_flight_mean == pytest.approx(2, abs=0.01)


def test_a_good_adaptive_loop() -> None:
    """There is no number of requests that should be under way; lag and the client's own time still count."""
    thin = [row(i, i * 200.0) for i in range(40)]
    c = found(thin, Adaptive(8, 64))
    assert (c.holds, c.in_flight_target) == (True, 0)
    assert c.in_flight_mean == pytest.approx(0.5, abs=0.05)
    late = found([row(i, i * 200.0, late_ms=30) for i in range(40)], Adaptive(8, 64), cpu_s=9.9)
    assert ["late" in late.broken[0], "of its core" in late.broken[1]] == [True, True]


def test_what_was_sent_again_is_counted() -> None:
    """The times are those of the last attempt: they count as any other's."""
    rows = [row(i, (i // 2) * 100.1 + (i % 2) * 50, retried=i % 4) for i in range(40)]
    c = found(rows, Closed(2))
    assert (c.retried, c.resent, c.holds) == (30, 0, True)
    assert c.lag_p99_ms == pytest.approx(0.1, rel=1e-3)


def test_a_good_open_loop() -> None:
    """The pace asked for is the pace sent."""
    c = found(open_(), Arrivals(100, "constant"))
    assert c.holds
    assert c.rate_asked_rps == c.rate_sent_rps == pytest.approx(100)
    assert c.in_flight_target == 0


@pytest.mark.parametrize(
    "changes, said, cure",
    [
        ({"cpu_s": 9.9}, "the client used 99% of its core", "--kitt-clients=2"),
        ({"late_reads": 100}, "10% of the answers' bytes waited", "run again when it has none"),
        ({"local_errors": 1}, "1 connections failed for want of files, ports or memory", "mend this machine"),
        ({"clock_drift_ns": 3 * MS}, "wall clock was set by 3 ms", "mend this machine"),
        ({"merged": 10}, "2.8% of the tokens came in one read", "--kitt-bundled"),
        ({"bundled": 100}, "28% of its tokens in one chunk", "--kitt-bundled"),
    ],
)
def test_a_client_that_did_not_keep_up(changes: dict[str, Any], said: str, cure: str) -> None:
    """Each bound on the client's own account, alone, with a next step of its own."""
    c = found(closed(), Closed(2), **changes)
    (sentence,) = c.broken
    assert said in sentence
    assert cure in c.cure


def test_bundled_tokens_may_be_accepted() -> None:
    """Then neither merging nor bundling breaks anything."""
    ending = dataclasses.replace(ENDING, merged=100, bundled=100)
    assert certify(records(closed()), Closed(2), [ending], held=True, bundled=True).holds


def test_short_gaps_may_merge_more() -> None:
    """Where tokens are half a millisecond apart a merged one is off by that much, which is little."""
    rows = [dataclasses.replace(r, event_ns=[r.end_ns - (9 - i) * MS // 2 for i in range(10)], isl=1) for r in closed()]
    assert found(rows, Closed(2), merged=10).holds
    assert not found(rows, Closed(2), merged=60).holds


def test_late_requests() -> None:
    """Requests that were sent 20 ms late, in both kinds of loop; one that is very late is enough."""
    assert "up to 20 ms late" in found(closed(late_ms=20, took_ms=1000), Closed(2)).broken[0]
    assert "up to 20 ms late" in found(open_(late_ms=20), Arrivals(100)).broken[0]
    one = [row(i, i * 10, late_ms=2000 if i == 150 else 0.1) for i in range(300)]
    assert "a request was sent 2e+03 ms late" in found(one, Arrivals(100)).broken[0]


def test_opening_a_connection_is_not_the_clients_lateness() -> None:
    """It is measured apart; one that was opened before the load hides nothing."""
    assert found(open_(late_ms=50, connect_ns=50 * MS), Arrivals(100)).holds
    assert found(open_(late_ms=0.1, connect_ns=50 * MS), Arrivals(100)).lag_p50_ms == pytest.approx(0.1)


def test_a_pace_that_was_not_reached() -> None:
    """Sent ever later: 100 requests/s became 90."""
    rows = [row(i, i * 10, late_ms=i * 1.1) for i in range(100)]
    assert any("90.09 requests/s were sent of 100 due" in said for said in found(rows, Arrivals(100)).broken)


def test_too_few_under_way() -> None:
    """Slots that stand empty half of the time."""
    rows = [row(i, (i // 2) * 200 + (i % 2) * 100) for i in range(40)]
    c = found(rows, Closed(2))
    assert "1 requests were under way of 2 asked for" in c.broken[0]
    assert "too quick for this client" in c.cure
    failed = [dataclasses.replace(r, failure=Failure.TIMEOUT, event_ns=[]) for r in rows]
    assert found(failed, Closed(2)).broken == ("not one measured request had a good answer",)


def test_accounts_of_several_clients() -> None:
    """What is counted adds up, the worst of what is measured counts, and the busiest client's core is the bound."""
    busy = dataclasses.replace(ENDING, cpu_s=9.8, clock="user", reads=10, stall_ms=7, stopped="boom")
    c = certify(records(closed()), Closed(2), [ENDING, busy], held=True)
    assert (c.clock, c.stall_ms, round(c.cpu_share, 6)) == ("user", 7, 0.98)
    whole = joined([ENDING, busy])
    assert (whole.reads, round(whole.cpu_s, 6), whole.clock, whole.stopped) == (1010, 10.8, "user", "boom")


def result(category: str, *certificates: Certificate) -> Result:
    """One that carries the certificates of some loads."""
    params = {f"load{i}.certificate": c.as_params() for i, c in enumerate(certificates)}
    return Result("n", "", None, "b", "1", category, "passed", "", params, (), "", 0.0)


def test_a_line_says_what_all_certified_loads_have_in_common() -> None:
    """The worst of each; loads that are not certified and quality items are not among them."""
    good, slower = found(closed(), Closed(2)), found(closed(late_ms=5, took_ms=1000), Closed(2), cpu_s=5.0, merged=1)
    bad = found(closed(), Closed(2), cpu_s=9.9)
    shown = all_certified([result("performance", good, slower), result("custom", bad), result("quality", bad)])
    assert shown == (
        "certified: 2 loads, sent at most 5 ms late (p99), client at most 50% of a core, at most 0.28% of the tokens "
        "merged, kernel clock"
    )
    assert all_certified([result("custom", bad)]) == ""


def test_little_evidence_breaks_nothing() -> None:
    """A handful of requests prove no share."""
    assert found(closed(4, late_ms=20, took_ms=1000), Closed(2)).holds
    assert found([row(0, 0, failure=Failure.CONNECT, event_ns=[])], Arrivals(5)).connections_failed == 1


@pytest.mark.parametrize(
    "rows, stopped, said",
    [
        ([], "", ["not one measured request had a good answer"]),
        ([row(0, 0, failure=Failure.CONNECT, event_ns=[])], "", ["not one measured request had a good answer"]),
        (
            [row(0, 0, failure=Failure.CANCELLED)],
            "cancelled",
            ["not one measured request had a good answer", "the load was ended before its stop: cancelled"],
        ),
        (closed(), "cancelled", ["the load was ended before its stop: cancelled"]),
    ],
)
def test_nothing_good_or_not_the_whole_load_is_no_certificate(
    rows: list[Request], stopped: str, said: list[str]
) -> None:
    """Neither is among the loads that the line counts."""
    certificate = found(rows, Closed(2), stopped=stopped)
    assert list(certificate.broken) == said
    assert certificate.cure == "run it again, to its end and with good answers"
    assert all_certified([result("performance", certificate)]) == ""


SAMPLES = [(10, 5, "twenty characters ok", "")]


@pytest.mark.parametrize(
    "osl, events, counts, text, said",
    [
        (10, 10, None, "", []),
        (11, 10, None, "", []),  # an end-of-text token is counted and not seen
        (5, 10, None, "", ["usage says 200 tokens, and 400 events"]),
        (20, 10, 20, "words", []),  # two tokens in an event, says the tokenizer too
        (20, 10, 10, "words", ["its own tokenizer counts 10"]),
        (20, 10, None, "x" * 60, []),  # no tokenizer: long enough for so many tokens
        (20, 10, None, "x" * 12, ["and their text has 12 characters"]),
    ],
)
def test_counts_of_answers(osl: int, events: int, counts: int | None, text: str, said: list[str]) -> None:
    """Usage against events, and where there are several tokens in one, the tokenizer or the text decides."""
    rows = [row(i, i * 10, osl=osl, event_ns=list(range(events))) for i in range(40)]
    tokenize = None if counts is None else (lambda _: counts)
    doubts = accounting.doubts(records(rows), [(osl, events, text, "")], tokenize=tokenize)
    assert len(doubts) == len(said)
    assert all(part in doubt for part, doubt in zip(said, doubts, strict=True))


def test_counts_of_chunks_prove_nothing() -> None:
    """Where the server does not count there is nothing to compare."""
    rows = [row(i, i * 10, osl=10, counted_by=CountedBy.CHUNKS) for i in range(40)]
    assert accounting.doubts(records(rows), SAMPLES, tokenize=len) == []


def test_who_counted() -> None:
    """It is stored with the result."""
    rows = [row(0, 0), row(1, 10, counted_by=CountedBy.CHUNKS), row(2, 20, failure=Failure.RESET, counted_by=0)]
    assert accounting.counters(records(rows)) == "usage,chunks"


@pytest.mark.parametrize("sent, doubts", [(100, 0), (105, 0), (90, 0), (200, 1), (0, 0)])
def test_prompts_that_were_cut(sent: int, doubts: int) -> None:
    """The server counts 100 tokens of prompts: fewer than were sent means that it cut them."""
    said = accounting.doubts(records(open_(20)), [], tokenize=None, prompt_tokens=sent)
    assert len(said) == doubts
