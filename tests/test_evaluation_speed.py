"""Does the benchmark of the speed of evaluations judge rightly? With made-up rounds, and a few real questions."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import time
import urllib.request
from array import array
from pathlib import Path
from typing import Any

import pytest

from benchmarks import evaluations
from benchmarks.evaluations import Load, Row
from benchmarks.peers import runner
from benchmarks.truth import log, server
from benchmarks.truth.answers import answer

LOAD = Load(questions=10_000, concurrency=32, answer_ms=20)
MUCH = 100_000.0
needs_gcc = pytest.mark.skipif(not server.available(), reason="the truth server is compiled by gcc")


def rows(*timed_s: float, late_ms: float = 0.1) -> list[Row]:
    """Rounds that took so long."""
    return [{"timed_s": t, "whole_s": t + 2, "cpu_s": 1.5, "server_late_p99_ms": late_ms} for t in timed_s]


def verdicts(kitt: list[Row], c: list[Row], most_rps: float = MUCH, **others: list[Row]) -> list[str]:
    """What the benchmark makes of rounds."""
    found = evaluations.judge(LOAD, {"kitt": kitt, "c": c, **others}, most_rps)
    return [verdict for verdict, _ in found]


def test_the_limit_is_arithmetic() -> None:
    """10,000 answers of 20 ms, 32 at a time."""
    assert LOAD.limit_s == pytest.approx(6.25)
    assert LOAD.rate_rps == pytest.approx(1600)


def test_a_tenth_above_the_limit_passes_and_more_fails() -> None:
    """The median of five rounds counts, whatever the others are."""
    c = rows(*[6.3] * 5)
    assert verdicts(rows(6.4, 6.5, 6.87, 9.0, 9.0), c) == ["pass"]
    assert verdicts(rows(6.4, 6.5, 6.88, 9.0, 9.0), c) == ["FAIL"]
    _, said = evaluations.judge(LOAD, {"kitt": rows(*[6.5] * 5), "c": c}, MUCH)[0]
    assert said == "from the first request to the last score 6.50 s, at most 1.1 x 6.25 s: 6.88 s"


def test_a_late_server_does_not_count() -> None:
    """Neither for us nor for the C client; four good rounds are too few."""
    good, late = rows(*[6.5] * 4), rows(*[9.0] * 3, late_ms=5)
    c = rows(*[6.3] * 5)
    assert verdicts(good + late, c) == ["not judged"]
    assert verdicts(good + rows(6.5) + late, c) == ["pass"]
    assert verdicts(good + rows(6.5), c[:4]) == ["not judged"]
    assert verdicts([], c) == ["not judged"]


def test_a_miss_of_the_machine_is_not_ours() -> None:
    """Where a C client misses the limit too, or the server is near its end, nothing is said; a pass is one."""
    slow, good, c = rows(*[7.5] * 5), rows(*[6.5] * 5), rows(*[6.3] * 5)
    assert verdicts(slow, rows(*[7.0] * 5)) == ["not judged"]
    assert verdicts(slow, c, most_rps=6399) == ["not judged"]
    assert verdicts(slow, c, most_rps=6400) == ["FAIL"]
    assert verdicts(good, rows(*[7.0] * 5)) == ["pass"]


def test_we_are_no_slower_than_the_others() -> None:
    """One line for each of them, in order; one with too few rounds is not judged."""
    c = rows(*[6.3] * 5)
    found = verdicts(rows(*[6.5] * 5), c, lm_eval=rows(*[6.4] * 5), inspect_ai=rows(*[90.0] * 5))
    assert found == ["pass", "FAIL", "pass"]
    assert verdicts(rows(*[6.5] * 5), c, lm_eval=rows(10.0)) == ["pass", "not judged"]


def test_the_table_shows_medians_and_the_least() -> None:
    """Of the good rounds; in brackets what no good round stands for; a dash of a number where there is none."""
    rounds = {"kitt": rows(6.5, 6.6, 6.9) + rows(99.0, late_ms=7), "c": rows(8.0, late_ms=7), "lm_eval": []}
    shown = evaluations.table(LOAD, rounds, {"kitt": "0.1.0", "c": "gcc 12", "lm_eval": "0.4.13"}).splitlines()
    assert shown[0] == "10,000 questions, 20 ms each, 32 under way: 6.25 s"
    assert shown[2].split() == ["kitt", "0.1.0", "3/4", "6.60", "6.50", "1.056", "1515", "8.6", "1.5"]
    assert shown[3].split() == ["c", "gcc", "12", "0/1", "(8.00)", "8.00", "1.280", "1250", "10.0", "1.5"]
    assert shown[4].split()[:4] == ["lm_eval", "0.4.13", "0/0", "(nan)"]


def test_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else, all others or the named ones."""
    for given, expected in ([], None), (["--released"], []), (["--released", "lm_eval"], ["lm_eval"]):
        monkeypatch.setattr(sys, "argv", ["evaluations", *given])
        asked = evaluations._asked()
        assert asked.released == expected
        assert (asked.rounds, asked.questions, asked.concurrency, asked.answer_ms) == (5, 10_000, 32, 20.0)


def test_a_runner_is_told_and_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work and outcome cross the command line and a file unchanged."""
    work = runner.Work("http://127.0.0.1:1", tmp_path / "questions.jsonl", 32, 4)
    monkeypatch.setattr(sys, "argv", ["script", *runner.arguments(work)])
    assert runner.work() == work
    found = runner.Found(1 << 60, 0.5, 10_000)
    runner.tell(found, tmp_path)
    assert runner.told(tmp_path) == found


def test_the_last_end_of_a_function_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each end anew, by the monotonic clock."""
    clock = iter([5, 9])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(clock))
    stamp = runner.Stamp()
    double = stamp.after(lambda x: 2 * x)
    assert (double(2), stamp.ns) == (4, 5)
    assert (double(3), stamp.ns) == (6, 9)


def test_lateness_is_against_the_timetable() -> None:
    """101 tokens, of which one is 10 ms late, then two; what has no due time is no evidence."""
    due = array("Q", [1_000_000] * 101)
    for late, p99_ms in (1, 0), (2, 10):
        sent = array("Q", [1_000_000] * (101 - late) + [11_000_000] * late)
        assert log.late_p99_ms([log.Served("", 0, 0, 200, False, sent, due)]) == pytest.approx(p99_ms)
    assert log.late_p99_ms([log.Served("", 0, 0, 200, False, array("Q", [7]), array("Q", [0]))]) == 0
    assert log.late_p99_ms([]) == 0


def _say(url: str, path: str, body: dict[str, Any]) -> str:
    request = urllib.request.Request(f"{url}{path}", json.dumps({"max_tokens": 4, **body}).encode())
    with urllib.request.urlopen(request) as response:
        text = response.read().decode()
    pieces = re.findall(r'"(?:content|text)":"([^"]*)"', text)
    return "".join(pieces).strip()


@needs_gcc
def test_the_server_says_what_is_foretold() -> None:
    """By completions and chat, whole and in a stream, however often; of a conversation the last message counts."""
    asked = "Which words? Answer:"
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}]}
    with server.running("--by-prompt", "--ttft-ms", "1", "--itl-ms", "0") as truth:
        for stream in (False, True, False):
            assert _say(truth.url, "/v1/completions", {"prompt": asked, "stream": stream}) == answer(asked, 4)
            assert _say(truth.url, "/v1/chat/completions", {**chat, "stream": stream}) == answer(asked, 4)
        assert _say(truth.url, "/v1/completions", {"prompt": "Others?"}) == answer("Others?", 4) != answer(asked, 4)


@needs_gcc
@pytest.mark.parametrize("name", ["kitt", "c"])
def test_a_round_asks_everything_and_scores_it(name: str) -> None:
    """A real session, and the C client: each question once, with the score that it must have."""
    row = evaluations._round(Load(questions=65, concurrency=8, answer_ms=1), name)
    assert row.keys() == {"timed_s", "whole_s", "cpu_s", "server_late_p99_ms"}
    assert 65 / 8 * 1e-3 < row["timed_s"] < row["whole_s"]
    assert all(map(math.isfinite, row.values()))


@needs_gcc
def test_a_wrong_score_is_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a wrong score nor questions that were not asked."""

    def wrong(truth: server.Truth, work: runner.Work, folder: Path) -> runner.Found:
        return dataclasses.replace(evaluations._c(truth, work, folder), score=0.75)

    monkeypatch.setitem(evaluations._RUN, "kitt", wrong)
    with pytest.raises(RuntimeError, match=r"kitt found a score of 0\.75, and it is 0\.5"):
        evaluations._round(Load(4, 2, 1), "kitt")
    monkeypatch.setitem(evaluations._RUN, "kitt", lambda *_: runner.Found(1, 0.5, 4))
    with pytest.raises(RuntimeError, match="kitt scored 4 questions, and 0 requests were answered"):
        evaluations._round(Load(4, 2, 1), "kitt")
