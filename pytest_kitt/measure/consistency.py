"""Do the cells of a run answer alike? Every two sets of answers to one benchmark's questions are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import combinations

from pytest_kitt.measure.paired import Comparison, Verdict, compare


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """What one result answered.

    Attributes:
        benchmark: whose questions they are, with its version; sets of one benchmark are compared.
        name: of the cell, and of the variant where there are several.
        verdicts: by question.

    """

    benchmark: str
    name: str
    verdicts: Mapping[str, Verdict]

    @property
    def accuracy(self) -> float:
        """Share of right answers; 0 of none."""
        return sum(v.correct for v in self.verdicts.values()) / len(self.verdicts) if self.verdicts else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """All sets of answers to the questions of one benchmark, the first of which is the reference.

    Attributes:
        benchmark: whose questions they are.
        sets: at least two, in the order of the results.
        pairs: each set with each later one, by their places.

    """

    benchmark: str
    sets: tuple[Answers, ...]
    pairs: Mapping[tuple[int, int], Comparison]

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


def _matrix(benchmark: str, sets: list[Answers]) -> Matrix:
    numbered = combinations(enumerate(sets), 2)
    pairs = {(i, j): compare(one.verdicts, other.verdicts) for (i, one), (j, other) in numbered}
    return Matrix(benchmark, tuple(sets), pairs)
