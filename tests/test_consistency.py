"""Are the answers of a run's cells compared question by question, and shown so that it can be read?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from pytest_kitt.measure.consistency import Answers, Matrix, matrices
from pytest_kitt.measure.paired import Verdict
from pytest_kitt.measure.results import Block
from pytest_kitt.report import agreement
from pytest_kitt.report.terminal import table
from tests.test_html import Store, a_cell

Row = dict[str, Any]


def answers(name: str, said: str, benchmark: str = "b") -> Answers:
    """A letter a question: the right answer is always "y", and "-" says nothing."""
    verdicts = {str(n): Verdict(None if letter == "-" else letter, letter == "y") for n, letter in enumerate(said)}
    return Answers(benchmark, name, verdicts)


def test_every_two_sets_are_compared() -> None:
    """Ten questions, three sets: agreement, losses and gains by hand; a set that stands alone is compared with none."""
    sets = [answers("one", "yyyyyyyynn"), answers("two", "yyyyyynxyn"), answers("three", "--yyyyyynn")]
    (matrix,) = matrices([sets[0], answers("alone", "y", "other"), *sets[1:]])
    assert [s.name for s in matrix.sets] == ["one", "two", "three"]
    assert [s.accuracy for s in matrix.sets] == [0.8, 0.7, 0.6]
    second = matrix.with_reference(1)
    assert second is not None
    assert (second.n, second.same, second.lost, second.gained) == (10, 7, 2, 1)
    assert second.p_value == 1.0  # two of three flips in one direction: 2 * (1 + 3) / 8
    assert [matrix.agreement(place, 2) for place in range(3)] == [0.8, 0.5, 1.0]
    assert matrix.agreement(2, 0) == matrix.agreement(0, 2)
    assert matrix.with_reference(0) is None
    assert matrices([]) == matrices(sets[:1]) == []


def test_the_demand_is_judged_by_the_reference() -> None:
    """As many as demanded is enough; fewer is a sentence with the numbers, and so are no questions in common."""
    sets = [
        answers("one", "yyyyyyyyyn"),
        answers("two", "yyyyyyyyyy"),
        Answers("b", "three", {"x": Verdict("y", True)}),
    ]
    (matrix,) = matrices(sets)
    assert matrix.too_different(0.9) == ["three shares no question of b with one"]
    assert matrix.too_different(0.91) == [
        "two answers 9 of 10 questions of b as one does: 0.9 is less than 0.91",
        "three shares no question of b with one",
    ]
    assert matrix.agreement(0, 2) is None


def stored(number: int, cell: str, rows: Iterable[Row | str], variant: str = "", **more: Any) -> tuple[Row, Block]:
    """A result as the store has it, and the block of its answers."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    block = Block("jsonl", len(lines), "\n".join(lines).encode())
    inside = f"{cell}-{variant}" if variant else cell
    known = {"id": number, "cell": {"id": cell, "key": cell}, "benchmark": "b", "version": "1", "outcome": "passed"}
    sample = {"seq": 0, "codec": "jsonl", "n": len(lines), "bytes": len(block.data)}
    return {**known, "nodeid": f"t.py::test_b[{inside}]", "samples": [sample], **more}, block


def row(number: int, response: str | None, *, correct: bool = False, **more: Any) -> Row:
    """A question as an evaluation stores it."""
    known = {"id": str(number), "task": "t", "question": f"{number}?", "response": response, "correct": correct}
    return {**known, **more}


def read(*found: tuple[Row, Block]) -> list[Any]:
    """The matrices of such results."""
    blocks = {result["id"]: block for result, block in found}

    def read_blocks(result_id: int, seqs: Sequence[int]) -> list[Block]:
        assert list(seqs) == [0]
        return [blocks[result_id]]

    return agreement.read([result for result, _ in found], read_blocks)


def test_answers_are_compared_as_they_were_scored() -> None:
    """What was extracted, a choice as it is, a text without its trimmings; what is no answer counts for nothing."""
    one = [row(1, " Yes.\nBecause"), row(2, "x 7", extracted={"strict": "7"}), row(3, "A. b", logprobs=[-1, -2])]
    two = [row(1, "yes"), row(2, "it is 7", extracted={"strict": "7"}), row(3, "a. b", logprobs=[-1, -2])]
    hostile = ["no json", "[]", "7", json.dumps({"id": "1"}), json.dumps(row(1, "yes") | {"response": 5})]
    (matrix,) = read(stored(1, "a", one), stored(2, "b", [*two, *hostile]))
    (found,) = matrix.pairs.values()
    assert (found.n, found.same) == (3, 2)


def test_questions_of_one_number_but_other_texts_are_others() -> None:
    """By the prompt's hash where there is one: another few-shot prompt is another question."""
    one, two, three = (row(1, "yes", prompt_sha256=digest) for digest in ("x", "y", "x"))
    (matrix,) = read(stored(1, "a", [one]), stored(2, "b", [two]), stored(3, "c", [three]))
    assert [matrix.pairs[0, place].n for place in (1, 2)] == [0, 1]


def test_variants_have_names_where_there_are_several() -> None:
    """A cell alone is its name; levels and runs tell themselves apart; what cannot be trusted is left out."""
    rows = [row(1, "yes", correct=True)]
    (matrix,) = read(stored(1, "a", rows), stored(2, "b", rows))
    assert [s.name for s in matrix.sets] == ["a", "b"]
    (matrix,) = read(
        stored(1, "a", rows, "c1"),
        stored(2, "a", rows, "c8", outcome="failed"),
        stored(3, "a", rows, "c16", outcome="invalid"),
        (stored(4, "a", rows, "c32")[0] | {"cell": None}, Block("jsonl", 0, b"")),
    )
    assert [s.name for s in matrix.sets] == ["a c1", "a c8"]
    assert read(stored(1, "a", rows), stored(2, "b", rows, version="2")) == []


def test_the_first_cell_of_the_session_is_the_reference() -> None:
    """Whichever worker was done first; sets of one cell stay in the order of their results."""
    rows = [row(1, "yes", correct=True)]
    found = [(cell, variant, number) for cell, number in (("b", 1), ("a", 0)) for variant in ("c1", "c8")]
    results = [
        stored(place, cell, rows, variant, params={"cell_number": number})
        for place, (cell, variant, number) in enumerate(found)
    ]
    (matrix,) = read(*results)
    assert [s.name for s in matrix.sets] == ["a c1", "a c8", "b c1", "b c8"]


def test_the_table() -> None:
    """One row a set: against the reference, and with each; almost all is not all."""
    sets = [answers("one", "y" * 20_000), answers("two", "y" * 19_999 + "n"), Answers("b", "three", {})]
    (matrix,) = matrices(sets)
    assert table(agreement.rows(matrix)) == [
        "b          right  questions  lost  gained  McNemar p               difference   with 1   with 2  with 3",
        "1 one    100.0 %      20000                reference                             100 %  99.99 %       -",
        "2 two    100.0 %      20000     1       0          1  -0.0 % [-0.0 to +0.0 %]  99.99 %    100 %       -",
        "3 three    0.0 %          0     0       0          -                        -        -        -   100 %",
    ]
    (wide,) = matrices(answers(str(n), "y") for n in range(30))
    assert len(agreement.rows(wide)) == 1 + agreement.MAX_SETS
    assert agreement.left_out(wide) == 30 - agreement.MAX_SETS


def test_scores_that_are_no_shares_have_their_mean() -> None:
    """As stored with each question; the first of several kinds. What is no number counts as right or wrong."""
    one = [row(n, "x", correct=False, scores={"mc2": 0.2 * n, "other": 9.0}) for n in range(1, 5)]
    two = [row(n, "x", correct=False, scores={"mc2": 0.2 * n + 0.1, "other": 0.0}) for n in range(1, 5)]
    (matrix,) = read(stored(1, "a", one), stored(2, "b", two))
    assert [line[:7] for line in agreement.rows(matrix)] == [
        ["b", "score", "questions", "lost", "gained", "McNemar p", "difference"],
        ["1 a", "0.5", "4", "", "", "reference", ""],
        ["2 b", "0.6", "4", "0", "0", "1", "+0.1 [-0.4389 to +0.5409]"],
    ]
    odd = [row(1, "x", correct=True, scores="none"), row(2, "x", scores={"mc2": "much"})]
    (matrix,) = read(stored(1, "a", odd), stored(2, "b", odd))
    assert [one.score for one in matrix.sets] == [0.5, 0.5]


def test_questions_that_belong_together_are_compared_so() -> None:
    """Two passages of which one was lost whole: less is known than of six single flips."""
    rows = [[row(n, "x", correct=right or n < 6, cluster=n // 6) for n in range(12)] for right in (True, False)]
    (matrix,) = read(stored(1, "a", rows[0]), stored(2, "b", rows[1]))
    found = matrix.with_reference(1)
    assert found is not None
    assert (found.difference, found.interval) == (-0.5, (-1.0, 1.0))


def test_a_sample_is_called_one_in_the_table_too() -> None:
    """A share of right answers is a score."""
    rows = [row(1, "yes", correct=True)]
    sampled = stored(1, "a", rows, params={"scores": {"acc": "sample"}})
    (matrix,) = read(sampled, stored(2, "b", rows))
    assert (agreement.rows(matrix)[0][0], matrix.benchmark, matrix.to_json()["data"]) == ("b (sample)", "b", "sample")


def test_a_matrix_is_json_and_back() -> None:
    """With sets that share no question, too."""
    sets = [answers("one", "yyyyyyyynn"), answers("two", "yyyyyynxyn"), Answers("b", "three", {}, "c" * 12)]
    (matrix,) = matrices(sets)
    plain = json.loads(json.dumps(matrix.to_json()))
    assert Matrix.from_json(plain) == matrix
    assert plain["sets"][0] == {"name": "one", "cell": "", "questions": 10, "right": 8, "score": 0.8}
    first, second, _ = plain["pairs"]
    counts = {"first": 0, "second": 1, "n": 10, "same": 7, "agreement": 0.7, "lost": 2, "gained": 1, "p_value": 1.0}
    assert first.items() >= counts.items()
    assert (first["difference"], second["difference"], second["agreement"]) == (pytest.approx(-0.1), None, None)


@pytest.mark.parametrize("cells", [1, 2])
def test_the_html_report_has_the_table_where_there_is_something_to_compare(cells: int) -> None:
    """With names that play no tricks."""
    run = Store()
    for number in range(cells):
        rows = [row(1, "yes", correct=True), row(2, "no" if number else "yes")]
        _, block = stored(number, "", rows)
        cell = a_cell() | {"id": f"<b>cell{number}"}
        run.add(block, cell=cell, category="quality", benchmark="b", nodeid=f"t.py::test_b[<b>cell{number}]")
    page = run.page()
    assert ("Do the answers agree?" in page) == (cells == 2)
    assert ("2 &lt;b&gt;cell1" in page) == (cells == 2)
