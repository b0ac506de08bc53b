"""Do the cells of a run answer alike? Every two sets of answers to one benchmark's questions are compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from pytest_kitt.measure.paired import Comparison, Verdict, compare
from pytest_kitt.measure.results import SAMPLE


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """What one result answered.

    Attributes:
        benchmark: whose questions they are, with its version; sets of one benchmark are compared.
        name: of the cell, and of the variant where there are several.
        verdicts: by question.
        cell: its key.
        data: where the questions are from, such as sample; empty where nothing is said.

    """

    benchmark: str
    name: str
    verdicts: Mapping[str, Verdict]
    cell: str = ""
    data: str = ""

    def counted(self) -> Counted:
        """How many there are, and how good."""
        points = [verdict.points for verdict in self.verdicts.values()]
        score = math.fsum(points) / len(points) if points else 0.0
        return Counted(self.name, self.cell, len(points), sum(v.correct for v in self.verdicts.values()), score)


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """A set of answers without the answers.

    Attributes:
        name: as of its answers.
        cell: key.
        questions: how many it answers.
        right: how many of them rightly.
        score: the mean of its scores; that of right answers is their share.

    """

    name: str
    cell: str
    questions: int
    right: int
    score: float

    @property
    def accuracy(self) -> float:
        """Share of right answers; 0 of none."""
        return self.right / self.questions if self.questions else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """All sets of answers to the questions of one benchmark, the first of which is the reference.

    Attributes:
        benchmark: whose questions they are.
        sets: at least two, in the order of the results.
        pairs: each set with each later one, by their places.
        data: where the questions are from; sample where those of any set are.

    """

    benchmark: str
    sets: tuple[Counted, ...]
    pairs: Mapping[tuple[int, int], Comparison]
    data: str = ""

    def to_json(self) -> dict[str, Any]:
        """As files and exports have it: ``first`` and ``second`` of a pair count from 0 in ``sets``."""
        return {
            "benchmark": self.benchmark,
            "data": self.data or None,
            "sets": [dataclasses.asdict(one) for one in self.sets],
            "pairs": [_plain(first, second, found) for (first, second), found in self.pairs.items()],
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Matrix:
        """What ``to_json`` made."""
        return cls(
            said["benchmark"],
            tuple(Counted(**one) for one in said["sets"]),
            {(pair["first"], pair["second"]): _comparison(pair) for pair in said["pairs"]},
            said["data"] or "",
        )

    def with_reference(self, place: int) -> Comparison | None:
        """How a set compares with the reference; None for the reference itself."""
        return self.pairs[0, place] if place else None

    def agreement(self, one: int, other: int) -> float | None:
        """The agreement of two sets; None where they have no question in common."""
        if one == other:
            return 1.0
        found = self.pairs[min(one, other), max(one, other)]
        return found.agreement if found.n else None

    def too_different(self, least: float) -> list[str]:
        """A sentence for each set whose agreement with the reference is less than that, or that shares no question."""
        sentences = []
        for place, other in enumerate(self.sets[1:], start=1):
            found, agreement = self.pairs[0, place], self.agreement(0, place)
            if agreement is None:
                sentences.append(f"{other.name} shares no question of {self.benchmark} with {self.sets[0].name}")
            elif agreement < least:
                sentences.append(
                    f"{other.name} answers {found.same} of {found.n} questions of {self.benchmark} as "
                    f"{self.sets[0].name} does: {agreement:.4g} is less than {least:g}"
                )
        return sentences


def matrices(found: Iterable[Answers]) -> list[Matrix]:
    """One for each benchmark that has at least two sets of answers."""
    groups: dict[str, list[Answers]] = {}
    for answers in found:
        groups.setdefault(answers.benchmark, []).append(answers)
    return [_matrix(benchmark, sets) for benchmark, sets in groups.items() if len(sets) > 1]


def _plain(first: int, second: int, found: Comparison) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {
        "first": first,
        "second": second,
        "n": found.n,
        "same": found.same,
        "agreement": found.agreement if found.n else None,
        "lost": found.lost,
        "gained": found.gained,
        "p_value": found.p_value if found.n else None,
        "difference": found.difference if found.n else None,
        "ci_low": low,
        "ci_high": high,
    }


def _comparison(pair: Mapping[str, Any]) -> Comparison:
    found = Comparison(pair["n"], pair["same"], pair["lost"], pair["gained"], 1.0)
    if not found.n:
        return found
    interval = (pair["ci_low"], pair["ci_high"])
    return dataclasses.replace(found, p_value=pair["p_value"], difference=pair["difference"], interval=interval)


def _matrix(benchmark: str, sets: list[Answers]) -> Matrix:
    numbered = combinations(enumerate(sets), 2)
    pairs = {(i, j): compare(one.verdicts, other.verdicts) for (i, one), (j, other) in numbered}
    origins = {answers.data for answers in sets}
    data = SAMPLE if SAMPLE in origins else ", ".join(sorted(origins - {""}))
    return Matrix(benchmark, tuple(answers.counted() for answers in sets), pairs, data)
