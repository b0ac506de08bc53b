"""How is it shown whether the cells of a run answer alike? Its stored answers as matrices, and these as tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from pytest_kitt.evals.exact_match import normal
from pytest_kitt.measure.consistency import Answers, Matrix, matrices
from pytest_kitt.measure.paired import Comparison, Verdict
from pytest_kitt.measure.repeats import MEASURED
from pytest_kitt.measure.results import SAMPLE, Samples, label
from pytest_kitt.report import scores

MAX_SETS = 12  # of a table; the gate looks at all
_MAX_ANSWER = 2000
_RIGHT = "right"

Blocks = Callable[[int, Sequence[int]], Iterable[Samples]]  # the id of a result, and which of its blocks


def read(results: Iterable[Mapping[str, Any]], blocks: Blocks) -> list[Matrix]:
    """The answers of a run's results, as the store has them, compared; results that cannot be trusted are left out."""
    asked = [one for one in results if one["cell"] and one["outcome"] in MEASURED and _stored(one)]
    asked.sort(key=_cell_number)
    variants = {(one["benchmark"], one["version"]): Counter[str]() for one in asked}
    for one in asked:
        variants[one["benchmark"], one["version"]][_variant(one)] += 1
    groups = Counter((one["benchmark"], one["version"]) for one in asked)
    return matrices(_answers(one, blocks, variants) for one in asked if groups[one["benchmark"], one["version"]] > 1)


def _cell_number(one: Mapping[str, Any]) -> int:
    """The place of its cell in the session: the first is the reference, whichever worker was done first."""
    number = one.get("params", {}).get("cell_number")
    return number if isinstance(number, int) else 0


def rows(matrix: Matrix) -> list[list[str]]:
    """A table: for each set its accuracy, how it compares with the first, and its agreement with each."""
    shown = matrix.sets[:MAX_SETS]
    numbers = [f"with {place}" for place in range(1, len(shown) + 1)]
    title = f"{matrix.benchmark} (sample)" if matrix.data == SAMPLE else matrix.benchmark
    head = [title, _measure(matrix), "questions", "lost", "gained", "McNemar p", "difference", *numbers]
    return [head, *(_row(matrix, place, len(shown)) for place in range(len(shown)))]


def left_out(matrix: Matrix) -> int:
    """How many sets the table has no room for."""
    return max(0, len(matrix.sets) - MAX_SETS)


def _row(matrix: Matrix, place: int, others: int) -> list[str]:
    mine, found = matrix.sets[place], matrix.with_reference(place)
    right = f"{mine.accuracy:.1%}".replace("%", " %") if _measure(matrix) == _RIGHT else f"{mine.score:.4g}"
    compared = [f"{mine.questions}", "", "", "reference", ""]
    if found is not None:
        p_value = f"{found.p_value:.3g}" if found.n else "-"
        compared = [f"{found.n}", f"{found.lost}", f"{found.gained}", p_value, _difference(found, _measure(matrix))]
    agreements = [_share(matrix.agreement(place, other)) for other in range(others)]
    return [f"{place + 1} {mine.name}", right, *compared, *agreements]


def _measure(matrix: Matrix) -> str:
    """What the sets are measured by: the share that is right, or else the mean score."""
    return _RIGHT if all(math.isclose(one.score, one.accuracy, abs_tol=1e-12) for one in matrix.sets) else "score"


def _difference(found: Comparison, measure: str) -> str:
    """How much more the set scores than the reference, with its 95 % interval: of shares in percent."""
    if found.interval is None:
        return "-"
    low, high = found.interval
    if measure == _RIGHT:
        return f"{100 * found.difference:+.1f} % [{100 * low:+.1f} to {100 * high:+.1f} %]"
    return f"{found.difference:+.4g} [{low:+.4g} to {high:+.4g}]"


def _share(value: float | None) -> str:
    """Never rounded up to all of them: 99.97 % is not 100 %."""
    if value is None:
        return "-"
    return "100 %" if value == 1 else f"{min(value, 0.9999):.2%}".replace("%", " %")


def _answers(one: Mapping[str, Any], blocks: Blocks, variants: Mapping[tuple[str, str], Mapping[str, int]]) -> Answers:
    several = len(variants[one["benchmark"], one["version"]]) > 1
    name = f"{one['cell']['id']} {_variant(one)}" if several else str(one["cell"]["id"])
    verdicts, origin = dict(_verdicts(one, blocks)), scores.data(one.get("params", {}))
    return Answers(str(one["benchmark"]), name.strip(), verdicts, str(one["cell"]["key"]), origin)


def _variant(one: Mapping[str, Any]) -> str:
    """What tells the variants of a benchmark on one cell apart: ``c8``, ``run2``."""
    return label("", one["nodeid"], one["cell"]["id"]).strip("[]")


def _stored(one: Mapping[str, Any]) -> list[int]:
    return [sample["seq"] for sample in one["samples"] if sample["codec"] == "jsonl"]


def _verdicts(one: Mapping[str, Any], blocks: Blocks) -> Iterator[tuple[str, Verdict]]:
    """Each question, by what identifies it, with the answer as it was compared; of a question asked twice the last."""
    for block in blocks(one["id"], _stored(one)):
        for line in block.data.splitlines():
            try:
                row = orjson.loads(line)
                yield (
                    _question(row),
                    Verdict(_answer(row), row["correct"] is True, _score(row), str(row.get("cluster", ""))),
                )
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                continue


def _question(row: Mapping[str, Any]) -> str:
    """Its id, and its text as a prompt or as it is: two files may number their questions alike."""
    return f"{row['task']}\0{row['id']}\0{row.get('prompt_sha256') or row['question']}"


def _score(row: Mapping[str, Any]) -> float | None:
    """Its first score, where an evaluation gave several kinds."""
    scores = row.get("scores")
    first = next(iter(scores.values()), None) if isinstance(scores, Mapping) else None
    return float(first) if isinstance(first, int | float) and math.isfinite(first) else None


def _answer(row: Mapping[str, Any]) -> str | None:
    """What was extracted from the response, else the response: choices as they are, a text as it is compared."""
    extracted = row.get("extracted")
    if isinstance(extracted, Mapping) and extracted:
        return str(next(iter(extracted.values())))[:_MAX_ANSWER]
    response = row["response"]
    return response if response is None or "logprobs" in row else normal(response)[:_MAX_ANSWER]
