"""Do the shipped benchmarks judge rightly? Their functions are called with scripted loads, whose answers are known."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest

from pytest_kitt import InvalidMeasurement, LoadResult
from pytest_kitt.load.certificate import certify
from pytest_kitt.load.spec import Ending, load_of
from pytest_kitt.measure.records import CountedBy, Phase, Records, Request, RequestTable
from pytest_kitt.selection import load_suites
from pytest_kitt.shipped import SUITES
from tools.benchmark_pages import PAGE, imported, pages, render

MS = 1_000_000
ENDING = Ending("kernel", 10.0, 1.0, 1, 100, 0, 0, 10_000, 0, 1.0, 0, [], {}, "")


@functools.cache
def benchmark(name: str) -> ModuleType:
    """The module of a shipped benchmark."""
    (path,) = SUITES.rglob(f"test_*_{name}.py")
    return imported(path)


def request(index: int, at_ms: float, gaps_ms: Sequence[float], *, ttft_ms: float = 20, isl: int = 128) -> Request:
    """A good request with a token after each gap."""
    events = [at_ms + ttft_ms]
    for gap in gaps_ms:
        events.append(events[-1] + gap)
    return Request(
        index=index,
        phase=Phase.MEASURED,
        counted_by=CountedBy.USAGE,
        planned_ns=round(at_ms * MS),
        send_ns=round(at_ms * MS),
        end_ns=round(events[-1] * MS),
        isl=isl,
        osl=len(events),
        answer_event=0,
        event_ns=[round(event * MS) for event in events],
    )


def result(requests: Sequence[Request], load: str = "closed:1", texts: Sequence[str] = (), **ending: Any) -> LoadResult:
    """What a load of these requests leaves."""
    table = RequestTable()
    for row, text in zip(requests, texts or [""] * len(requests), strict=True):
        table.append(row, text)
    records, said = Records([table.to_bytes()]), dataclasses.replace(ENDING, **ending)
    certificate = certify(records, load_of(load), [said], held=True)
    return LoadResult(records, said, certificate, {"load": load, "prompt_length_by": "tokenizer"})


class Scripted:
    """Stands for ``kitt_load`` and ``kitt_measure``: hands out results, and keeps what was asked for and recorded."""

    def __init__(self, *results: LoadResult) -> None:
        self._results = list(results)
        self.asked: list[tuple[Any, ...]] = []
        self.measured: dict[str, float] = {}

    def load(self, *asked: Any, **_options: Any) -> LoadResult:
        """The next result."""
        self.asked.append(asked)
        return self._results.pop(0)

    def measure(self, name: str, value: float, **_about: Any) -> None:
        """Keeps a number."""
        assert name not in self.measured
        self.measured[name] = float(value)


def steady(count: int = 10, gap_ms: float = 10, tokens: int = 64, **changes: Any) -> list[Request]:
    """Requests one after the other, all alike."""
    took = 20 + (tokens - 1) * gap_ms
    return [request(i, i * (took + 1), [gap_ms] * (tokens - 1), **changes) for i in range(count)]


def smoothness(gaps_ms: Sequence[float], **ending: Any) -> Scripted:
    """The benchmark over ten answers with these gaps."""
    rows = [request(i, i * 1e5, gaps_ms) for i in range(10)]
    script = Scripted(result(rows, **ending))
    try:
        benchmark("smoothness").test_smoothness(script.load, script.measure, 1)
    except (AssertionError, InvalidMeasurement) as error:
        error.add_note(str(script.measured))
        raise
    return script


def test_even_gaps_are_smooth() -> None:
    """All gaps alike: ratio 1, no stall."""
    found = smoothness([10.0] * 100).measured
    assert found["itl_p99_ratio"] == pytest.approx(1)
    assert found["longest_gap_ms"] == pytest.approx(10)
    assert (found["stall_share"], found["merged_share"], found["bundled_share"]) == (0, 0, 0)


def test_a_rare_stall_is_recorded_and_a_frequent_one_fails() -> None:
    """One gap of 300 ms in 200 passes with its share, one in 50 fails with the evidence."""
    found = smoothness([10.0] * 199 + [300.0]).measured
    assert found["stall_share"] == pytest.approx(1 / 200)
    assert found["longest_gap_ms"] == pytest.approx(300)
    with pytest.raises(AssertionError, match=r"2.0% of 1000 gaps are longer than 100 ms \(bound 1%\): p50 10 ms, p99"):
        smoothness(([10.0] * 49 + [300.0]) * 2)


def test_a_stall_is_long_against_the_pace_and_for_a_reader() -> None:
    """Neither short gaps that are long against the pace, nor long ones that are like the others, are stalls."""
    assert smoothness(([1.0] * 49 + [90.0]) * 2).measured["stall_share"] == 0
    assert smoothness([400.0, 500.0, 600.0] * 30).measured["stall_share"] == 0


@pytest.mark.parametrize(
    "gaps, ending", [([0.0] * 90 + [10.0] * 10, {"merged": 900}), ([10.0] * 100, {"bundled": 200})]
)
def test_tokens_that_come_together_have_no_smoothness(gaps: list[float], ending: dict[str, int]) -> None:
    """Nothing is said of gaps that nobody saw."""
    with pytest.raises(InvalidMeasurement, match="the server sends tokens together") as caught:
        smoothness(gaps, **ending)
    assert "itl_p99_ratio" not in str(caught.value.__notes__)


def test_several_tokens_in_an_event_have_no_smoothness() -> None:
    """Four tokens by usage in each event."""
    rows = [dataclasses.replace(row, osl=4 * row.osl) for row in steady(10, tokens=101)]
    script = Scripted(result(rows))
    with pytest.raises(InvalidMeasurement, match=r"sends tokens together \(4 per event"):
        benchmark("smoothness").test_smoothness(script.load, script.measure, 1)


def test_too_few_gaps_are_invalid() -> None:
    """A p99 of 400 gaps cannot be compared."""
    with pytest.raises(InvalidMeasurement, match="n=400 samples; a comparison with it needs 500"):
        smoothness([10.0] * 40)


def under_load(took_ms: float) -> tuple[Scripted, Callable[[], None]]:
    """The benchmark where 200 requests come at 20/s and each takes so long; the capacity is 40/s."""
    capacity = [request(i, (i // 32) * 800.0, [1.0] * 63, ttft_ms=737) for i in range(128)]
    arrivals = [request(i, i * 50.0, [1.0] * 63, ttft_ms=took_ms - 63) for i in range(200)]
    script = Scripted(result(capacity, "closed:32"), result(arrivals, "constant:20/s"))
    module = benchmark("latency_under_load")
    return script, lambda: module.test_latency_under_load(script.load, script.measure, 50)


def test_the_rate_is_a_share_of_the_capacity() -> None:
    """128 answers of 64 tokens in 3.2 s are 40 requests/s, and half of that is asked for."""
    script, test = under_load(200)
    test()
    assert script.measured["capacity_rps"] == pytest.approx(40)
    assert script.asked[1][0] == "poisson:20/s"
    assert script.measured["pace_kept_share"] == pytest.approx(9.95 / 10.15)


def test_a_growing_queue_fails() -> None:
    """Requests that came within 10 s and were answered only within 15 s."""
    script, test = under_load(5050)
    with pytest.raises(AssertionError, match=r"came within 9.95 s and were answered within 15 s \(66%, bound 80%\)"):
        test()
    assert script.measured["pace_kept_share"] == pytest.approx(9.95 / 15)


def test_a_batch_counts_from_the_first_send_to_the_last_token() -> None:
    """128 requests, the last token after 2 s: 128 x 64 tokens out and 128 x 128 in."""
    rows = [request(i, 0, [1.0] * 63, ttft_ms=1937) for i in range(128)]
    script = Scripted(result(rows, "closed:128"))
    benchmark("batch").test_batch(script.load, script.measure)
    assert script.measured == {"makespan_s": pytest.approx(2), "batch_tps": pytest.approx(128 * 192 / 2)}


class Engine:
    """Stands for an engine with room for everything, or for nothing."""

    def __init__(self, lacking: str = "") -> None:
        self._lacking = lacking

    def lacks_room(self, _tokens: int) -> str:
        """What it lacks."""
        return self._lacking


def long_context(rows: Sequence[Request], lacking: str = "", **params: str) -> Scripted:
    """The benchmark with prompts of 1024 tokens."""
    loaded = result(rows)
    loaded.params.update(params)
    script = Scripted(loaded)
    benchmark("long_context").test_long_context(Engine(lacking), script.load, script.measure, 1024)
    return script


def test_the_prefill_is_counted_in_the_servers_tokens() -> None:
    """1030 tokens in 20 ms, where 1024 were asked for; the tokenizer's count where the server says none."""
    assert long_context(steady(10, isl=1030)).measured["prefill_tps"] == pytest.approx(1030 / 0.02)
    assert long_context(steady(10, isl=-1)).measured["prefill_tps"] == pytest.approx(1024 / 0.02)


@pytest.mark.parametrize("isl", [900, 1400])
def test_prompts_of_another_length_are_invalid(isl: int) -> None:
    """A server that cuts prompts, or adds much to them, measures another length."""
    with pytest.raises(InvalidMeasurement, match=f"1024 tokens were asked for and the server counts {isl} to {isl}"):
        long_context(steady(10, isl=isl))


def test_prompts_that_nobody_counts_are_invalid() -> None:
    """No usage and no tokenizer: the length is a guess."""
    with pytest.raises(InvalidMeasurement, match="nobody counts the tokens of a prompt"):
        long_context(steady(10, isl=-1), prompt_length_by="estimated")


def test_what_does_not_fit_is_skipped() -> None:
    """With the engine's own reason, before anything is sent."""
    with pytest.raises(pytest.skip.Exception, match="too many for me"):
        long_context([], lacking="too many for me")


def beside_each_other(count: int) -> list[Request]:
    """Requests of 650 ms in eight slots."""
    return [request(i, i // 8 * 651, [10.0] * 63) for i in range(count)]


def determinism(alone: Sequence[str], asked: Sequence[str]) -> Scripted:
    """The benchmark with these answers alone, and with these to the question among seven others."""
    together = [text for answer in asked for text in (answer, *("other" for _ in range(7)))]
    script = Scripted(
        result(steady(len(alone)), texts=alone), result(beside_each_other(len(together)), "closed:8", texts=together)
    )
    benchmark("determinism").test_determinism(script.load, script.measure)
    return script


def test_only_what_differs_alone_fails() -> None:
    """Other answers under load are recorded with the first difference; alone they fail, with both texts."""
    found = determinism(["the sky"] * 20, ["the sky"] * 15 + ["the sea"] * 3 + ["them"] * 2).measured
    assert found == {"identical_alone": 1, "identical_together": 0.75, "first_difference_together": 3}
    said = r"1 of 20 answers differ .* at character 5: 'the sky' against 'the sea'"
    with pytest.raises(pytest.fail.Exception, match=said):
        determinism(["the sea"] + ["the sky"] * 19, ["the sky"] * 20)


def test_one_after_the_other_is_not_together() -> None:
    """Nothing is said of a load that was not there."""
    texts = ["the sky"] * 20
    script = Scripted(result(steady(20), texts=texts), result(steady(20), "closed:8", texts=texts))
    with pytest.raises(InvalidMeasurement, match=r"1 requests were under way on average \(bound 4 of 8\)"):
        benchmark("determinism").test_determinism(script.load, script.measure)


def test_empty_answers_are_no_evidence() -> None:
    """Twenty times nothing is not twenty times the same."""
    with pytest.raises(InvalidMeasurement, match="the 20 answers hold no text"):
        determinism([""] * 20, ["the sky"] * 20)


def test_the_page_says_what_the_benchmarks_say() -> None:
    """docs/benchmarks.md is what ``python -m tools.benchmark_pages`` writes."""
    assert PAGE.read_text() == render(pages(), load_suites([SUITES])), "run python -m tools.benchmark_pages"
