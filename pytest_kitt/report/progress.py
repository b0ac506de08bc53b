"""How far is an item, and how fast? From the records that it sends to a line of so many columns; pure."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Any

from pytest_kitt.load.run import Progress
from pytest_kitt.measure.records import Phase
from pytest_kitt.report.terminal import printable, scaled

_WINDOW_S = 2.0
_MIN_WINDOW_S = 0.5  # a rate over less says nothing
_MIN_NAME, _GOOD_NAME = 10, 24  # columns; what is less important than the bar must leave the latter
_BAR_RANK = 3
_MIN_BAR, _MAX_BAR = 8, 24
_FULL, _EMPTY = "━", "┄"
_GAP = "  "
_NOTHING = Progress()
_PHASES = {None: "prepares", Phase.WARMUP: "warm-up", Phase.MEASURED: "", Phase.COOLDOWN: "cool-down"}


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What an item is busy with; one of its loads, or something that has no count.

    Attributes:
        label: of the load, empty for the first.
        word: what it does, where nothing is counted: an engine that starts.
        unit: what is counted: requests, questions, MB.
        total: how many of them end the load, 0 when time does.
        seconds: after which it ends, 0 when a count does.
        warmup: uncounted requests in front.
        now: how far it is.

    """

    label: str = ""
    word: str = ""
    unit: str = "requests"
    total: int = 0
    seconds: float = 0.0
    warmup: int = 0
    now: Progress = _NOTHING

    def to_record(self) -> dict[str, Any]:
        """Plain values, for the way from a worker to the controller."""
        record = dataclasses.asdict(self)
        phase = record["now"]["phase"]
        return record | {"now": record["now"] | {"phase": None if phase is None else int(phase)}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Step:
        """What ``to_record`` gave."""
        phase = record["now"]["phase"]
        now = Progress(**{**record["now"], "phase": None if phase is None else Phase(phase)})
        return cls(**{**record, "now": now})


class Row:
    """One step of one item, with what is needed to say how fast it is.

    Attributes:
        worker: where the item runs, empty without workers.
        nodeid: of the item.
        step: what was heard last.

    """

    def __init__(self, worker: str, nodeid: str, since_s: float) -> None:
        self.worker, self.nodeid, self._since_s = worker, nodeid, since_s
        self.step = Step()
        self._tokens: deque[tuple[float, int]] = deque()

    def take(self, step: Step, at_s: float) -> None:
        """Takes what was heard at a time."""
        self.step = step
        self._tokens.append((at_s, step.now.tokens))
        self._forget(at_s)

    def _forget(self, at_s: float) -> None:
        while len(self._tokens) > 1 and self._tokens[1][0] <= at_s - _WINDOW_S:
            self._tokens.popleft()

    def tps(self, at_s: float) -> float | None:
        """Tokens a second over the last two seconds; None until half a second has passed, and for a download."""
        self._forget(at_s)
        if not self._tokens or self.step.unit == "MB" or at_s - self._tokens[0][0] < _MIN_WINDOW_S:
            return None
        return (self._tokens[-1][1] - self._tokens[0][1]) / (at_s - self._tokens[0][0])

    def said(self, at_s: float) -> str:
        """All of it as a sentence, for a log."""
        step, now = self.step, self.step.now
        who = ": ".join(map(printable, filter(None, (self.worker, self.nodeid, step.label))))
        if step.word:
            return f"{who}: {printable(step.word)}, {at_s - self._since_s:.0f} s so far"
        parts = [_count(step, sentence=True)]
        if now.failed:
            parts.append(f"{now.failed} failed")
        if (tps := self.tps(at_s)) is not None and now.phase is not None:
            parts.append(scaled(tps, "tokens/s"))
        if now.ttft_p50_ms is not None:
            tail = f", p99 {scaled(now.ttft_p99_ms, 'ms')}" if now.ttft_p99_ms is not None else ""
            parts.append(f"TTFT p50 {scaled(now.ttft_p50_ms, 'ms')}{tail}")
        if now.itl_p50_ms is not None:
            parts.append(f"ITL p50 {scaled(now.itl_p50_ms, 'ms')}")
        if (left_s := eta_s(step)) is not None:
            parts.append(f"{clock(left_s)} left")
        return f"{who}: {', '.join(parts)}"

    def line(self, at_s: float, width: int) -> Line:
        """As much of it as fits into so many columns, the most important first."""
        name = " ".join(map(printable, filter(None, (self.worker, _name(self.nodeid), self.step.label))))
        if self.step.word:
            name = " ".join(map(printable, filter(None, (self.worker, self.step.word))))
            return _laid_out(name, None, [f"{at_s - self._since_s:.0f} s"], width)
        now = self.step.now
        wanted = {  # in the order in which they stand, each with its rank
            "count": (0, _count(self.step)),
            "done": (7, f"{now.done} {self.step.unit}" if self.step.seconds and now.phase is not None else ""),
            "failed": (0, f"{now.failed} failed" if now.failed else ""),
            "tps": (2, _shown(self.tps(at_s) if now.phase is not None else None, "tokens/s")),
            "ttft": (4, _percentiles("TTFT", now.ttft_p50_ms, None)),
            "ttft_tail": (6, _percentiles("TTFT", now.ttft_p50_ms, now.ttft_p99_ms)),
            "itl": (5, _percentiles("ITL", now.itl_p50_ms, None)),
            "eta": (1, f"{clock(left_s)} left" if (left_s := eta_s(self.step)) is not None else ""),
        }
        chosen = _chosen(wanted, cells(name), width)
        return _laid_out(name, share(self.step) if "bar" in chosen else None, _texts(wanted, chosen), width)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """What stands on a terminal's line: a name, a bar, and the rest."""

    name: str
    full: str
    empty: str
    rest: str

    def __str__(self) -> str:
        bar = f"{_GAP}{self.full}{self.empty}" if self.full or self.empty else ""
        return f"{self.name}{bar}{_GAP}{self.rest}" if self.rest else f"{self.name}{bar}"


def eta_s(step: Step) -> float | None:
    """How long the load will last yet, at the pace that it had so far; None where nobody can say."""
    now = step.now
    if now.phase is not Phase.MEASURED:
        return None
    if step.seconds:
        return max(0.0, step.seconds - now.measured_s)
    if not now.done or not now.measured_s:
        return None
    return now.measured_s * max(0, step.total - now.done) / now.done


def share(step: Step) -> float:
    """How much of the load is done, 0 to 1."""
    if step.now.phase is Phase.COOLDOWN:
        return 1.0
    done, total = (step.now.measured_s, step.seconds) if step.seconds else (step.now.done, step.total)
    return min(1.0, done / total) if total else 0.0


def clock(seconds: float) -> str:
    """``0:07``, ``12:34``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def cells(text: str) -> int:
    """How many columns a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def _name(nodeid: str) -> str:
    """An item without the path of its module."""
    before, bracket, inside = nodeid.partition("[")
    return f"{before.rpartition('::')[2]}{bracket}{inside}"


def _count(step: Step, *, sentence: bool = False) -> str:
    """How far a step is, in few columns or as a part of a sentence."""
    now, word = step.now, _PHASES[step.now.phase]
    warms = now.phase is Phase.WARMUP
    if now.phase is None or (warms and not step.warmup):
        return word
    of, unit = (" of ", f" {step.unit}") if sentence else ("/", "" if step.unit == "requests" else f" {step.unit}")
    if warms:
        reached = f"{now.warmed}{of}{step.warmup}{unit}"
    elif step.seconds:
        reached = f"{min(now.measured_s, step.seconds):.0f}{of}{step.seconds:g} s"
        reached += f", {now.done}{unit}" if sentence else ""
    else:
        reached = f"{now.done}{of}{step.total}{unit}"
    if sentence:
        return f"{word}, {reached}" if word else reached
    return f"{word} {reached}" if warms else f"{reached} {word}".rstrip()


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else scaled(value, unit)


def _percentiles(name: str, p50_ms: float | None, p99_ms: float | None) -> str:
    """Both only where both are known: the pair takes the place of the first."""
    if p50_ms is None:
        return ""
    return f"{name} {scaled(p50_ms, 'ms')}" + (f" p99 {scaled(p99_ms, 'ms')}" if p99_ms is not None else "")


def _chosen(wanted: Mapping[str, tuple[int, str]], name: int, width: int) -> set[str]:
    """What fits beside a name of so many columns, by rank; the first rank is there in any case."""
    ranked = [(rank, part, cells(text)) for part, (rank, text) in wanted.items() if text]
    chosen: set[str] = set()
    for rank, part, size in sorted([*ranked, (_BAR_RANK, "bar", _MIN_BAR)]):
        more = size - (cells(wanted["ttft"][1]) if part == "ttft_tail" else -len(_GAP))
        if rank and more > width - min(name, _MIN_NAME if rank <= _BAR_RANK else _GOOD_NAME):
            break
        chosen.add(part)
        width -= more
    return chosen - {"ttft"} if "ttft_tail" in chosen else chosen


def _texts(wanted: Mapping[str, tuple[int, str]], chosen: set[str]) -> list[str]:
    return [text for name, (_, text) in wanted.items() if name in chosen]


def _laid_out(name: str, done: float | None, texts: list[str], width: int) -> Line:
    """The name gets what the rest leaves, and the bar what the name leaves."""
    from rich.cells import set_cell_size

    rest = _GAP.join(texts)
    left = width - cells(rest) - len(_GAP)
    bar = _MIN_BAR + len(_GAP) if done is not None else 0
    if cells(name) > left - bar:
        room = max(1, left - bar)
        name = f"{set_cell_size(name, room - 1).rstrip()}…"
    if done is None:
        return Line(name, "", "", rest if left > 0 else set_cell_size(rest, max(0, width - 4)))
    size = max(_MIN_BAR, min(_MAX_BAR, left - cells(name) - len(_GAP)))
    full = round(size * done)
    return Line(name, _FULL * full, _EMPTY * (size - full), rest)
