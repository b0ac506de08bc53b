"""How far is an item, and how fast? Scripted clocks and known answers."""

from __future__ import annotations

import dataclasses
import os
import pty
from collections.abc import Iterator

import pytest

from pytest_kitt.load.run import Progress
from pytest_kitt.measure.records import Phase
from pytest_kitt.report.live import Lines, Screen
from pytest_kitt.report.progress import Row, Step, cells, clock, eta_s, share

MEASURED = Progress(
    done=40,
    failed=2,
    tokens=4000,
    in_flight=8,
    phase=Phase.MEASURED,
    measured_s=20.0,
    ttft_p50_ms=10.0,
    ttft_p99_ms=31.25,
    itl_p50_ms=0.5,
)
COUNT, TIMES = "40/100  2 failed", "TTFT 10.0 ms p99 31.2 ms  ITL 0.50 ms"
STEP = Step(total=100, warmup=8, now=MEASURED)


def row(step: Step, worker: str = "gw1", nodeid: str = "a/t.py::test_long[llama-c8]") -> Row:
    """A row that has heard of 1000 tokens at 0 s and of the step's at 1 s."""
    made = Row(worker, nodeid, 0.0)
    made.take(dataclasses.replace(step, now=dataclasses.replace(step.now, tokens=1000)), 0.0)
    made.take(step, 1.0)
    return made


def test_tokens_a_second_over_the_last_two() -> None:
    """The pace is that of the last two seconds, falls to nothing when nothing comes, and is not told too early."""
    made = Row("", "t", 0.0)
    assert made.tps(0.0) is None
    for tenth in range(41):
        tokens = 100 * tenth if tenth <= 20 else 2000 + 300 * (tenth - 20)
        made.take(Step(now=Progress(tokens=tokens)), tenth / 10)
        if tenth == 4:
            assert made.tps(0.4) is None
        if tenth == 20:
            assert made.tps(2.0) == pytest.approx(1000)
        if tenth == 30:
            assert made.tps(3.0) == pytest.approx(2000)
    assert made.tps(4.0) == pytest.approx(3000)
    assert made.tps(5.0) == pytest.approx(1500)
    assert made.tps(10.0) == 0


@pytest.mark.parametrize(
    "step, left_s, done",
    [
        (STEP, 30.0, 0.4),
        (dataclasses.replace(STEP, total=0, seconds=60.0), 40.0, 1 / 3),
        (dataclasses.replace(STEP, total=0, seconds=15.0), 0.0, 1.0),
        (dataclasses.replace(STEP, now=Progress()), None, 0.0),
        (dataclasses.replace(STEP, now=Progress(done=0, phase=Phase.MEASURED, measured_s=9.0)), None, 0.0),
        (dataclasses.replace(STEP, now=Progress(warmed=3, phase=Phase.WARMUP)), None, 0.0),
        (dataclasses.replace(STEP, now=dataclasses.replace(MEASURED, done=100, phase=Phase.COOLDOWN)), None, 1.0),
    ],
    ids=["requests", "seconds", "overtime", "prepares", "none done", "warm-up", "cool-down"],
)
def test_how_long_yet(step: Step, left_s: float | None, done: float) -> None:
    """The time left follows from the pace since measuring began, or from the clock; nobody guesses outside of that."""
    assert eta_s(step) == left_s
    assert share(step) == pytest.approx(done)


def test_clock() -> None:
    """Seconds as a clock shows them."""
    assert [clock(s) for s in (0.4, 7.0, 59.6, 3599.0, 3723.0)] == ["0:00", "0:07", "1:00", "59:59", "1:02:03"]


@pytest.mark.parametrize(
    "width, line",
    [
        (140, f"gw1 test_long[llama-c8]  {'━' * 10}{'┄' * 14}  {COUNT}  3000 tok/s  {TIMES}  0:30 left"),
        (100, f"gw1 test_long[llama-c8]  {'━' * 8}{'┄' * 12}  {COUNT}  3000 tok/s  TTFT 10.0 ms  0:30 left"),
        (80, f"gw1 test_long[llama-c8]  {'━' * 6}{'┄' * 8}  {COUNT}  3000 tok/s  0:30 left"),
        (40, f"gw1 test_l…  {COUNT}  0:30 left"),
        (20, f"g…  {COUNT}"),
        (5, "…  4"),
    ],
)
def test_a_line_holds_what_fits(width: int, line: str) -> None:
    """The most important first: count and failures, time left, pace, bar, TTFT, ITL; never wider than asked for."""
    said = str(row(STEP).line(1.0, width))
    assert cells(said) <= width
    assert said == line


@pytest.mark.parametrize(
    "now, said",
    [
        (Progress(), "prepares"),
        (Progress(warmed=3, phase=Phase.WARMUP), "warm-up 3/8"),
        (Progress(done=100, phase=Phase.COOLDOWN, measured_s=9.0), "100/100 cool-down"),
    ],
)
def test_phases_are_named(now: Progress, said: str) -> None:
    """Before the first request, warm-up and cool-down have their words; the measured part has none."""
    assert said in str(row(dataclasses.replace(STEP, now=now)).line(1.0, 100))
    assert not {"warm-up", "cool-down", "prepares"} & set(str(row(STEP).line(1.0, 200)).split())


def test_questions_seconds_labels_and_engines() -> None:
    """What is counted has its name, a load its label, and an engine that starts its seconds."""
    assert "  12/50 questions" in str(
        row(Step(unit="questions", total=50, now=Progress(done=12, phase=Phase.MEASURED))).line(1.0, 100)
    )
    assert "  20/60 s  40 requests" in str(row(dataclasses.replace(STEP, total=0, seconds=60.0)).line(1.0, 150))
    assert str(row(dataclasses.replace(STEP, label="second")).line(1.0, 200)).startswith(
        "gw1 test_long[llama-c8] second  "
    )
    assert str(row(Step(word="llama-tiny starts")).line(12.0, 80)) == "gw1 llama-tiny starts  12 s"


def test_hostile_names_steer_nothing() -> None:
    """Control and bidirectional characters of a name or a label become dots; brackets stay, wide letters count two."""
    step = dataclasses.replace(STEP, label="[red]\x1b[2Jx\u202e\n")
    said = str(row(step, nodeid="t.py::test_\x07[\u6f22\u5b57]").line(1.0, 200))
    assert said.startswith("gw1 test_·[\u6f22\u5b57] [red]·[2Jx··  ")
    assert said.isprintable()
    assert cells(str(row(step, nodeid="t.py::test_" + "\u6f22" * 100).line(1.0, 60))) <= 60
    assert row(step).said(1.0).isprintable()


def test_a_record_brings_back_the_step() -> None:
    """What goes from a worker to the controller is plain values, and means the same there."""
    for step in (STEP, Step(word="x starts")):
        record = step.to_record()
        assert Step.from_record(record) == step
        assert type(record["now"]["phase"]) in (int, type(None))


def test_a_line_at_intervals() -> None:
    """In a log: not at once, then one per interval and item, with worker, label, counts, pace and percentiles."""
    said: list[str] = []
    lines = Lines(said.append, every_s=15.0)
    step = dataclasses.replace(STEP, label="x")
    rows = {("t.py::a", "x"): Row("gw1", "t.py::a", 0.0), ("t.py::b", ""): Row("", "t.py::b", 0.0)}
    rows["t.py::b", ""].take(Step(word="llama-tiny starts"), 0.0)
    for at_s, tokens in ((0.0, 0), (5.0, 1000), (15.0, 3000), (16.0, 3200), (30.0, 4000)):
        rows["t.py::a", "x"].take(dataclasses.replace(step, now=dataclasses.replace(MEASURED, tokens=tokens)), at_s)
        lines.show(rows, at_s)
        if at_s == 16.0:
            del rows["t.py::b", ""]
    whole = "40 of 100 requests, 2 failed, {} tok/s, TTFT p50 10.0 ms, p99 31.2 ms, ITL p50 0.50 ms, 0:30 left"
    assert said == [
        f"gw1: t.py::a: x: {whole.format(200)}",
        "t.py::b: llama-tiny starts, 15 s so far",
        f"gw1: t.py::a: x: {whole.format('57.1')}",
    ]


class Writer:
    """What pytest writes with."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, text: str, *, flush: bool = False) -> None:
        """Writes at once, if asked to."""
        assert flush
        os.write(self._fd, text.encode())

    def markup(self, text: str, **_: bool) -> str:
        """Colours nothing."""
        return text


@pytest.fixture
def screen() -> Iterator[tuple[Screen, Writer, int]]:
    """Bars on a terminal of nobody's, and what is read at its other end."""
    leader, follower = pty.openpty()
    own = os.dup(follower)
    writer = Writer(own)
    made = Screen(writer, follower, "ascii")
    yield made, writer, leader
    for fd in (own, leader):
        os.close(fd)


def test_others_write_where_they_were(screen: tuple[Screen, Writer, int]) -> None:
    """Whatever is written first erases the bars, the cursor never leaves its place, and the end is as the beginning."""
    shown, writer, leader = screen
    plain = Writer(-1).write
    rows = {("t.py::a", ""): row(STEP)}
    shown.show(rows, 1.0)
    drawn = os.read(leader, 65536).decode()
    assert drawn.startswith("\x1b[J\x1bD\x1b[1A\x1b7\r\r\ngw1 test_long")
    assert drawn.endswith("left\x1b8")
    assert "###" in drawn, "a terminal without such characters gets others"
    shown.show(rows, 1.05)
    writer.write("dot", flush=False)
    assert os.read(leader, 65536) == b"\x1b[Jdot", "a bar that was just drawn is not drawn again"
    shown.show({}, 2.0)
    shown.close()
    writer.write("end", flush=True)
    assert os.read(leader, 65536) == b"end"
    assert getattr(writer.write, "__func__", None) is getattr(plain, "__func__", "")


def test_more_bars_than_lines(screen: tuple[Screen, Writer, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A low terminal shows the first ones, and says how many more there are."""
    shown, _, leader = screen
    monkeypatch.setenv("LINES", "5")
    shown.show({(f"t.py::{n}", ""): row(STEP, nodeid=f"t.py::n{n}") for n in range(9)}, 1.0)
    drawn = os.read(leader, 65536).decode()
    assert [word in drawn for word in ("n0", "n2", "n3", "and 6 more")] == [True, True, False, True]
    assert drawn.count("\x1bD") == 4
    shown.close()


def test_a_download() -> None:
    """In MB, with what is left at the pace so far, and no tokens."""
    row = Row("", "t.py::test_x[e-m]", 0.0)
    now = Progress(done=1200, phase=Phase.MEASURED, measured_s=12.0)
    for at_s in (0.0, 1.0):
        row.take(Step(label="m.gguf", unit="MB", total=4800, now=now), at_s)
    assert row.said(1.0) == "t.py::test_x[e-m]: m.gguf: 1200 of 4800 MB, 0:36 left"
    assert str(row.line(1.0, 80)).startswith("test_x[e-m] m.gguf  ━━━━━━┄┄┄")
    assert str(row.line(1.0, 80)).endswith("1200/4800 MB  0:36 left")
