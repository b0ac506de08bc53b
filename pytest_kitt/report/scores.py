"""How good were the answers, in words? A line for each score of a result, and of its doubts where there are any."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_kitt.measure.results import SAMPLE, Measurement

SAMPLE_NOTICE = (
    "a score of a sample is of the few questions that ship with its evaluation, none of them of the dataset itself: it "
    "says nothing about that"
)
_CUT, _EMPTY, _LOST = "length_share", "empty_share", "extraction_failed"
_SHARE = "_share"


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """One metric over all questions of an evaluation.

    Attributes:
        number: the mean, with its interval.
        stderr: its standard error in the same unit; None where it is not known.
        asked: of how many questions, in words.

    """

    number: Measurement
    stderr: Measurement | None
    asked: str

    @property
    def text(self) -> str:
        """All that is known of it, in one line."""
        interval = f"; 95 % {between(self.number)}, {self.number.method}" if self.number.ci_low is not None else ""
        error = f"; standard error {bare(self.stderr.value, self.stderr.unit)}" if self.stderr else ""
        return f"{self.number.name} {written(self.number)} ({self.asked}{interval}{error})"


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """What a result says of answers; empty for one that asked no questions.

    Attributes:
        whole: each metric over all questions.
        parts: the same by group and by subject.
        doubts: shares of answers that are empty, cut off, or hold nothing to compare.
        sample: names of those in ``whole`` and ``parts`` that are of a sample.

    """

    whole: tuple[Score, ...] = ()
    parts: tuple[Measurement, ...] = ()
    doubts: tuple[Measurement, ...] = ()
    sample: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Of all metrics that are told here."""
        of_whole = {name for one in self.whole for name in (one.number.name, f"{one.number.name}_stderr")}
        return frozenset(of_whole | {m.name for m in (*self.parts, *self.doubts)})

    def lines(self) -> Iterator[str]:
        """A line for each score, and one of what makes one doubt them."""
        for one in self.whole:
            yield one.text
        if self.doubted:
            yield self.doubted

    @property
    def more(self) -> Iterator[str]:
        """Where the scores are that have no line."""
        if self.parts:
            yield f"{len(self.parts)} scores of parts of it: kitt results show"

    @property
    def doubted(self) -> str:
        """What makes one doubt the scores, counted; empty where there is nothing."""
        found = [(m, round(m.value * m.n)) for m in self.doubts]
        first, *others = [f"{count} {_doubt(m.name)}" for m, count in found if count] or [""]
        if not first:
            return ""
        number, _, words = first.partition(" ")
        return ", ".join([f"{number} of {self.doubts[0].n} answers {words}", *others])

    def counted(self, m: Measurement) -> str:
        """On how many questions or requests a number of the result rests."""
        return f"sample of {m.n}" if m.name in self.sample else f"n={m.n}"


def of(params: Mapping[str, Any], metrics: Iterable[Measurement]) -> Scores:
    """The scores among a result's numbers; its parameter ``scores`` names them, and where their questions are from."""
    named = params.get("scores")
    numbers = {m.name: m for m in metrics if m.stat == "value"}
    origins = {name: origin for name, origin in named.items() if name in numbers} if isinstance(named, Mapping) else {}
    if not origins:
        return Scores()
    mains = {m.name: _main(m.name, origins) for m in numbers.values() if m.method}
    parts = {name: main for name, main in mains.items() if main not in ("", name)}
    sample = [name for name in (*origins, *parts) if origins[parts.get(name, name)] == SAMPLE]
    return Scores(
        tuple(_score(numbers, name, params, sample) for name in origins),
        tuple(numbers[name] for name in parts),
        tuple(m for m in sorted(numbers.values(), key=_rank) if _doubt(m.name)),
        frozenset(sample),
    )


def data(params: Mapping[str, Any]) -> str:
    """Where the questions of a result's scores are from: hub, file or, if only some are, sample; else empty."""
    named = params.get("scores")
    origins = sorted({str(origin) for origin in named.values() if origin}) if isinstance(named, Mapping) else []
    return SAMPLE if SAMPLE in origins else ", ".join(origins)


def is_sample(params: Mapping[str, Any]) -> bool:
    """Whether any score of a result is of a sample."""
    return data(params) == SAMPLE


def written(m: Measurement) -> str:
    """A score with its unit: shares in percent."""
    return f"{bare(m.value, m.unit)} {'%' if m.unit == 'share' else m.unit}"


def between(m: Measurement) -> str:
    """The interval of a score, with its unit; empty where there is none."""
    if m.ci_low is None or m.ci_high is None:
        return ""
    return f"{bare(m.ci_low, m.unit)} to {bare(m.ci_high, m.unit)} {'%' if m.unit == 'share' else m.unit}"


def bare(value: float, unit: str) -> str:
    """A number without its unit."""
    return f"{100 * value:.1f}" if unit == "share" else f"{value:.2f}"


def _score(numbers: Mapping[str, Measurement], name: str, params: Mapping[str, Any], sample: Sequence[str]) -> Score:
    m = numbers[name]
    asked = f"sample of {m.n}" if name in sample else f"n={m.n}"
    most, clusters = params.get("questions_of"), params.get("clusters")
    if isinstance(most, int) and most > m.n == params.get("questions") and name not in sample:
        asked += f" of {most}"
    if isinstance(clusters, int) and m.method == "clustered":
        asked += f" in {clusters} cluster{'s' if clusters > 1 else ''}"
    return Score(m, numbers.get(f"{name}_stderr"), asked)


def _main(name: str, mains: Iterable[str]) -> str:
    """The metric that a name is, or is a part of: ``acc_norm`` of ``acc_norm_stem``; empty for another."""
    found = [main for main in mains if name == main or name.startswith(f"{main}_")]
    return max(found, key=len, default="")


def _rank(m: Measurement) -> int:
    """Doubts in the order of an answer's way."""
    return (_EMPTY, _CUT).index(m.name) if m.name in (_EMPTY, _CUT) else 2


def _doubt(name: str) -> str:
    """What a share counts, in words; empty for what is no doubt."""
    words = {_EMPTY: "empty", _CUT: "cut off at the limit of tokens"}
    if name in words:
        return words[name]
    if not (name.startswith(_LOST) and name.endswith(_SHARE)):
        return ""
    by = name.removeprefix(_LOST).removesuffix(_SHARE).strip("_")
    return f"without an extractable answer{f' ({by})' if by else ''}"
