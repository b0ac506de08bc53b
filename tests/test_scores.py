"""Are scores told so that a person can read them, with what makes one doubt them, and a sample never for a dataset?"""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_kitt.measure.results import Measurement
from pytest_kitt.report import metrics_csv, scores
from tests.test_html import Store, a_cell


def share(name: str, value: float, n: int = 500, *interval: float, method: str | None = None) -> Measurement:
    """A share, with an interval or without."""
    low, high = interval or (None, None)
    return Measurement(name, "value", value, "share", "higher", n, low, high, method if interval else None)


ACC = share("acc", 0.62, 500, 0.58, 0.658, method="wilson")
ERROR = share("acc_stderr", 0.0217)


def lines(params: dict[str, Any], *metrics: Measurement) -> list[str]:
    """As they are told."""
    told = scores.of(params, metrics)
    return [*told.lines(), *told.more]


def test_a_score_is_one_line() -> None:
    """Value, questions, interval with its method, standard error: each once, in one unit."""
    params = {"scores": {"acc": "hub"}, "questions": 500, "questions_of": 14042}
    assert lines(params, ACC, ERROR) == ["acc 62.0 % (n=500 of 14042; 95 % 58.0 to 65.8 %, wilson; standard error 2.2)"]
    assert lines({"scores": {"acc": "sample"}}, ACC, ERROR) == [
        "acc 62.0 % (sample of 500; 95 % 58.0 to 65.8 %, wilson; standard error 2.2)"
    ]
    clustered = share("acc", 0.5, 40, 0.1, 0.9, method="clustered")
    assert lines({"scores": {"acc": "file"}, "clusters": 8}, clustered) == [
        "acc 50.0 % (n=40 in 8 clusters; 95 % 10.0 to 90.0 %, clustered)"
    ]
    points = Measurement("bleu_max", "value", 21.5, "points", "higher", 9, 1.25, 40.0, "bootstrap")
    assert lines({"scores": {"bleu_max": "hub"}}, points) == [
        "bleu_max 21.50 points (n=9; 95 % 1.25 to 40.00 points, bootstrap)"
    ]


def test_doubts_are_told_where_there_are_any() -> None:
    """Counted, in the order of an answer's way; shares of nothing are no line."""
    empty, cut = share("empty_share", 0.006), share("length_share", 0.024)
    lost, lost_strict = share("extraction_failed_share", 0.01), share("extraction_failed_strict_share", 0.002)
    params = {"scores": {"acc": "hub"}}
    _, told = lines(params, lost_strict, ACC, cut, empty, lost)
    counted = [
        "3 of 500 answers empty",
        "12 cut off at the limit of tokens",
        "1 without an extractable answer (strict)",
    ]
    assert told.split(", ") == [*counted, "5 without an extractable answer"]
    assert lines(params, ACC, share("empty_share", 0.0), lost)[1:] == ["5 of 500 answers without an extractable answer"]
    assert len(lines(params, ACC, share("empty_share", 0.0), share("length_share", 0.0))) == 1


def test_parts_are_counted_and_belong_to_the_longest_name() -> None:
    """A subject of acc_norm is none of acc; what a test recorded itself is no score."""
    norm = share("acc_norm", 0.7, 500, 0.6, 0.8, method="wilson")
    parts = [share(name, 0.5, 9, 0.4, 0.6, method="wilson") for name in ("acc_stem", "acc_norm_stem", "other_stem")]
    told = scores.of({"scores": {"acc": "hub", "acc_norm": "sample"}}, [ACC, norm, *parts, share("acc_own", 0.5)])
    assert [m.name for m in told.parts] == ["acc_stem", "acc_norm_stem"]
    assert told.sample == {"acc_norm", "acc_norm_stem"}
    assert [told.counted(m) for m in parts] == ["n=9", "sample of 9", "n=9"]
    assert list(told.more) == ["2 scores of parts of it: kitt results show"]
    assert {"other_stem", "acc_own"}.isdisjoint(told.names)


@pytest.mark.parametrize("named", [None, {}, "acc", ["acc"], {"gone": "hub"}])
def test_what_names_no_score_has_none(named: object) -> None:
    """Results without questions, and parameters that are none of ours."""
    assert scores.of({"scores": named}, [ACC]) == scores.Scores()
    assert scores.data({"scores": named}) in ("", "hub")


def test_one_sample_among_several_is_enough() -> None:
    """Two evaluations in one test: the word is that of the weaker."""
    assert scores.data({"scores": {"acc": "hub", "exact_match": "sample"}}) == "sample"
    assert scores.data({"scores": {"acc": "hub", "accuracy": ""}}) == "hub"
    assert scores.data({}) == ""


def as_stored(*metrics: Measurement) -> list[dict[str, Any]]:
    """As the reader gives them."""
    return [{field: getattr(m, field) for field in m.__slots__} for m in metrics]


@pytest.mark.parametrize("origin", ["sample", "hub"])
def test_the_page_has_a_table_of_scores(origin: str) -> None:
    """With the subjects in one of their own, and a notice where they are of a sample."""
    part = share("acc_stem", 0.5, 9, 0.4, 0.6, method="wilson")
    metrics = as_stored(ACC, ERROR, part, share("empty_share", 0.004))
    run = Store()
    run.add(cell=a_cell(), category="quality", benchmark="mmlu", params={"scores": {"acc": origin}}, metrics=metrics)
    page = run.page()
    asked = {"sample": "sample of {}", "hub": "n={}"}[origin]
    for text in ("58.0 to 65.8 % (wilson)", asked.format(500), asked.format(9), "2 of 500 answers empty"):
        assert text in page
    assert (scores.SAMPLE_NOTICE in page) == (origin == "sample")
    (cell,) = re.findall(r'<td class="l" data-v="0.62" title="[^"]*">(.*?)</td>', page)  # of the table of all results
    assert cell == "acc 62.0 %" + (" <small>sample of 500</small>" if origin == "sample" else "")
    assert page.count(">acc_stem<") == page.count(">acc_stderr<") + 1 == 1


def test_a_spreadsheet_says_where_the_questions_are_from() -> None:
    """In a column of its own, for scores alone."""
    run = Store()
    metrics = as_stored(ACC, share("own", 0.5))
    run.add(cell=a_cell(), category="quality", params={"scores": {"acc": "sample"}}, metrics=metrics)
    found = {"run": {"id": "r", "status": "passed", "started_at": "t"}, "results": run.results}
    head, first, other = b"".join(metrics_csv.lines(found)).decode().splitlines()
    place = head.split(",").index("data")
    assert [line.split(",")[place] for line in (first, other)] == ["sample", ""]
