"""Are the numbers right? Known answers from scripted times."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence

import pytest

from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.load.certificate import certify
from pytest_kitt.load.result import LoadResult
from pytest_kitt.load.spec import Closed, Ending
from pytest_kitt.measure.records import CountedBy, Failure, Phase, Records, Request, RequestTable
from pytest_kitt.measure.stats import Distribution, Statistic, percentile, wilson

MS = 1_000_000
ENDING = Ending("kernel", 1.0, 0.1, 1, 0, 0, 0, 10, 0, 0.0, 0, [], {"HTTP_STATUS 500": "boom"}, "")


def request(index: int, send_ms: float, events_ms: Sequence[float], **changes: int) -> Request:
    """A request whose times are given in milliseconds."""
    fields = {
        "phase": Phase.MEASURED,
        "planned_ns": int((send_ms - 1) * MS),
        "send_ns": int(send_ms * MS),
        "osl": len(events_ms),
        "isl": 10,
        "counted_by": CountedBy.USAGE,
        "answer_event": 0,
        "event_ns": [int(t * MS) for t in events_ms],
        "status": 200,
    }
    return Request(index=index, **{**fields, **changes})  # type: ignore[arg-type]


def result(*requests: Request) -> LoadResult:
    """A load with these requests."""
    table = RequestTable()
    for r in requests:
        table.append(r)
    records = Records([table.to_bytes()])
    return LoadResult(records, ENDING, certify(records, Closed(1), [ENDING], held=True), {})


def test_the_times_of_one_request() -> None:
    """Each formula of the table on scripted times: send 100, reasoning at 150, answer at 160, 170, 190; 8 tokens."""
    load = result(request(0, 100, [150, 160, 170, 190], osl=8, answer_event=1, connect_ns=2 * MS, length_finish=1))
    assert list(load.ttft_ms.values) == [50]
    assert list(load.ttfo_ms.values) == [60]
    assert list(load.itl_ms.values) == [10, 10, 20]
    assert list(load.tpot_ms.values) == [pytest.approx(40 / 7)]
    assert list(load.e2e_ms.values) == [90]
    assert list(load.ntpot_ms.values) == [90 / 8]
    assert list(load.e2e_from_schedule_ms.values) == [91]
    assert list(load.connect_ms.values) == [2]
    assert (list(load.isl.values), list(load.osl.values)) == ([10], [8])
    assert float(load.output_tps) == pytest.approx(8 / 0.090)
    assert float(load.request_rps) == pytest.approx(1 / 0.090)
    assert float(load.length_finish_share) == 1


def test_the_window_counts_what_was_produced_in_it() -> None:
    """Tokens of warm-up and cool-down inside the window count, those outside and those of failed requests do not."""
    load = result(
        request(0, 0, [50, 90, 110, 130], phase=Phase.WARMUP),  # 110 and 130 lie inside
        request(1, 100, [150, 200]),
        request(2, 120, [160, 300]),  # the window is 100 to 300
        request(3, 140, [180, 190], failure=Failure.CLOSED),
        request(4, 210, [250, 310], phase=Phase.COOLDOWN, failure=Failure.CANCELLED, osl=-1),  # 250 lies inside
        request(5, 211, [251], phase=Phase.COOLDOWN, failure=Failure.HTTP_STATUS),
    )
    assert float(load.output_tps) == pytest.approx(7 / 0.2)
    assert float(load.request_rps) == pytest.approx(2 / 0.2)
    assert (load.n, load.failed, load.failures) == (2, 1, {"CLOSED": 1})
    assert float(load.requests_failed) == 1
    assert sorted(load.ttft_ms.values) == [40, 50]


@pytest.mark.parametrize("count", [1, 2, 3, 24])
def test_requests_one_after_the_other_are_n_in_n_of_their_times(count: int) -> None:
    """No fence has a post too many: from the first send to the last end there are n requests and n times between."""
    load = result(*(request(n, 50 * n, [50 * n + 20, 50 * n + 50]) for n in range(count)))
    assert float(load.request_rps) == pytest.approx(1 / 0.05)


@pytest.mark.parametrize("slots, rounds", [(2, 1), (8, 3), (8, 8)])
def test_slots_in_step_are_exact_and_others_too_low_by_what_is_documented(slots: int, rounds: int) -> None:
    """Each slot answers a request in 80 ms; out of step by equal parts of that is the worst that can be."""

    def loop(step_ms: float) -> LoadResult:
        sends = (step_ms * slot + 80 * turn for turn in range(-1, rounds + 1) for slot in range(slots))
        first, last = 0, step_ms * (slots - 1) + 80 * (rounds - 1)
        return result(
            *(
                request(n, at, [at + 40, at + 80], osl=2, phase=_phase(at, first, last))
                for n, at in enumerate(sends, start=1)
            )
        )

    true_rps, n = slots / 0.08, slots * rounds
    assert float(loop(0).request_rps) == pytest.approx(true_rps)
    apart = loop(80 / slots)
    assert float(apart.request_rps) == pytest.approx(true_rps * (1 - (slots - 1) / (n + slots - 1)))
    assert float(apart.output_tps) / 2 == pytest.approx(true_rps, rel=1 / n)


def _phase(at: float, first: float, last: float) -> Phase:
    return Phase.WARMUP if at < first else Phase.COOLDOWN if at > last else Phase.MEASURED


def test_what_the_end_of_a_load_cancelled_did_not_fail() -> None:
    """It is neither good nor failed, in no count and in no reason."""
    load = result(
        request(0, 0, [50, 90]),
        request(1, 10, [60], failure=Failure.CANCELLED),
        request(2, 20, [], failure=Failure.TIMEOUT),
    )
    assert (load.n, load.failed, load.failures) == (1, 1, {"TIMEOUT": 1})
    assert float(load.requests_failed) == 1


def test_single_tokens_have_no_gaps() -> None:
    """One token gives a TTFT and no ITL or TPOT; nothing is made up."""
    load = result(request(0, 0, [5]))
    assert (load.itl_ms.n, load.tpot_ms.n, load.ttft_ms.n) == (0, 0, 1)
    assert "itl_ms" not in {m.name for m in load.measurements()}
    with pytest.raises(InvalidMeasurement):
        _ = load.itl_ms.mean


def test_no_data_is_invalid() -> None:
    """A load without one good request raises, with the reasons."""
    bad = result(request(0, 0, [], failure=Failure.HTTP_STATUS, status=500), request(1, 0, [5], phase=Phase.WARMUP))
    with pytest.raises(InvalidMeasurement, match=r"no request succeeded \(1 of HTTP_STATUS\); HTTP_STATUS 500: boom"):
        bad.require_samples()
    with pytest.raises(InvalidMeasurement, match="none was sent"):
        result().require_samples()
    assert {m.name for m in bad.measurements()} == {"requests_failed"}


def test_unknown_metrics() -> None:
    """A typo is an AttributeError that says where the names are."""
    with pytest.raises(AttributeError, match=r"no metric 'ttft'; did you mean 'ttft_ms'"):
        _ = result().ttft


# numpy.percentile([1, 2, 4, 8, 16, 32], ...) with its default, linear, method
@pytest.mark.parametrize("q, value", [(0.0, 1), (0.5, 6), (0.9, 24), (0.95, 28), (0.99, 31.2), (1.0, 32)])
def test_percentiles_as_numpy(q: float, value: float) -> None:
    """Linear interpolation between ranks."""
    assert percentile([1, 2, 4, 8, 16, 32], q) == pytest.approx(value)


@pytest.mark.parametrize("stat, n", [("p50", 2), ("p90", 10), ("p95", 20), ("p99", 100), ("p999", 1000)])
def test_a_percentile_needs_samples_to_be_reported(stat: str, n: int) -> None:
    """N (1 - q) >= 1, exactly at the boundary."""
    enough, short = (Distribution("x_ms", list(range(size))) for size in (n, n - 1))
    assert stat in enough.summary()
    assert stat not in short.summary()
    with pytest.raises(
        InvalidMeasurement, match=rf"x_ms\.{stat} needs {n} samples, {5 * n} to be compared with, and there are {n - 1}"
    ):
        short.percentile(stat)


@pytest.mark.parametrize("stat, n", [("p50", 10), ("p90", 50), ("p99", 500)])
def test_a_percentile_needs_more_samples_to_be_judged(stat: str, n: int) -> None:
    """N (1 - q) >= 5 for any comparison, in whichever direction."""
    enough, short = (Distribution("x_ms", list(range(size))).percentile(stat) for size in (n, n - 1))
    assert enough < 1e9
    assert enough >= 0
    compares: list[Callable[[Statistic], bool]] = [
        lambda v: v < 1,
        lambda v: v <= 1,
        lambda v: v > 1,
        lambda v: v >= 1,
    ]
    for compare in compares:
        with pytest.raises(InvalidMeasurement, match=f"needs {n}: send more requests"):
            compare(short)


def test_statistics_show_what_they_rest_on() -> None:
    """Value, name and n stand in a failed assertion; means and scalars can be compared at any n."""
    distribution = Distribution("x_ms", [1.0, 2.0, 6.0])
    assert repr(distribution.mean) == "3 (x_ms.mean, n=3)"
    assert distribution.mean < 4
    assert distribution.std == pytest.approx(2.6457513)
    assert [float(distribution.min), float(distribution.max)] == [1, 6]
    assert Statistic(2.0, name="y", n=1) > 1


def test_the_share_above_a_limit() -> None:
    """Values at the limit are not above it, and each counts as often as it occurred."""
    one_each = Distribution("x_ms", [1.0, 2.0, 2.0, 6.0])
    counted = Distribution("x_ms", [1.0, 2.0, 6.0], [1, 2, 1])
    for found in (one_each, counted):
        assert [found.share_above(limit) for limit in (0, 1, 2, 5, 6)] == [1, 0.75, 0.25, 0.25, 0]
    with pytest.raises(InvalidMeasurement, match="needs 1 samples and there are 0"):
        Distribution("x_ms", []).share_above(1)


# Wilson's interval at 95 %, as in Agresti and Coull's tables
@pytest.mark.parametrize(
    "k, n, low, high", [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (39, 50, 0.6476, 0.8725)]
)
def test_wilson(k: int, n: int, low: float, high: float) -> None:
    """Known intervals."""
    assert wilson(k, n) == pytest.approx((low, high), abs=2e-4)


def test_blocks_of_older_runs_can_be_read() -> None:
    """Without the column that says how often a request was sent again: none was."""
    table = RequestTable()
    for n in range(3):
        table.append(request(n, 1, [2, 3]))
    head_size = int.from_bytes(table.to_bytes()[:4], "little")
    head = json.loads(table.to_bytes()[4 : 4 + head_size])
    before = sum(array(code).itemsize * count for _, code, count in head["columns"][:6])
    assert head["columns"][6] == ["retried", "b", 3]
    rest = table.to_bytes()[4 + head_size :]
    del head["columns"][6]
    older = json.dumps(head).encode()
    block = len(older).to_bytes(4, "little") + older + rest[:before] + rest[before + 3 :]
    assert list(RequestTable.from_bytes(block).rows()) == list(table.rows())
    records = Records([block, table.to_bytes()])
    assert list(records["retried"]) == [0] * 6


def test_blocks_come_back_as_they_went() -> None:
    """A table survives its bytes, texts and all; blocks join; other bytes are refused."""
    table = RequestTable()
    table.append(request(0, 1, [2, 3]), text="ü\n")
    table.append(request(1, 1, []))
    other = Records([table.to_bytes(), table.to_bytes()])
    assert len(other) == 4
    assert list(other.rows())[:2] == list(RequestTable.from_bytes(table.to_bytes()).rows())
    assert [list(r.event_ns) for r in other.rows()] == [[2 * MS, 3 * MS], [], [2 * MS, 3 * MS], []]
    assert other.texts == {0: "ü\n"}
    with pytest.raises(ValueError, match="kitt-columns-1"):
        RequestTable.from_bytes(table.to_bytes().replace(b"kitt-columns-1", b"kitt-columns-9"))
