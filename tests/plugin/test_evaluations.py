"""Do evaluations run as tests: asked, scored, stored, gone on with, and refused where they cannot be right?"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pytest_kitt import evaluating, shipped
from pytest_kitt.cards import load_engines
from pytest_kitt.cli.app import app
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, prompts
from pytest_kitt.evals.prompts import Question
from pytest_kitt.load.spec import Adaptive, Closed
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.stats import student_t, wilson
from pytest_kitt.model.reference import ModelRef
from pytest_kitt.report import scores
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tests.doubles.running import running
from tests.doubles.tokens import KNOWS_ENV
from tests.test_load_client import double

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=1", "--kitt-engine-arg=itl_ms=1")
BUSY = "--kitt-engine-arg=max_concurrent={} --kitt-engine-arg=max_waiting=0"
NAMES = cards.shipped_names()
ENDINGS = {"gsm8k_cot": "The answer is {}.", "mmlu_chat": "Answer: {}", "gsm8k": "#### {}"}
CAPITALS = """
name: capitals
summary: Capitals of the world
dataset: {path: capitals.jsonl}
prompt: "Country: {{ country }}\\nCapital:"
answer: capital
mode: generate
stop: ["\\n"]
max_tokens: 8
filters: {"": [{filter: strip}]}
metrics: [{metric: exact_match}]
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *FAST, *args)


def shown() -> dict[str, Any]:
    """The last run."""
    with opened("") as engine, engine.connect() as connection:
        return reader.show_run(connection, "last")


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What is stored of each question of a result."""
    with opened("") as engine, engine.connect() as connection:
        return [dict(row) for row in reader.read_rows(connection, result["id"])]


def values(result: dict[str, Any]) -> dict[str, float]:
    """A result's single numbers."""
    return {m["name"]: m["value"] for m in result["metrics"] if m["stat"] == "value"}


def asked(name: str) -> list[Question]:
    """A card's questions on its sample."""
    card = cards.read(cards.find(name))
    return prompts.ask(card, data.sample(card, shipped.DATASETS).subsets, name)


def knowing(pytester: pytest.Pytester, facts: Iterable[tuple[str, str]]) -> str:
    """An engine that answers so."""
    path = pytester.path / "facts.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in facts), encoding="utf-8")
    return f"--kitt-engine-arg=answers={path}"


def right(name: str, question: Question) -> tuple[str, str]:
    """What an engine must know to answer rightly: a prompt, and what follows."""
    if question.choices:
        context, continuation = question.pairs[question.gold[0]]
        return context, continuation.strip()
    return question.prompt, ENDINGS.get(name, "{}").format(question.references[0].rpartition("#### ")[2])


def suite(pytester: pytest.Pytester, names: Iterable[str], tell: Callable[[str, Question], tuple[str, str]]) -> Any:
    """One session over several shipped evaluations, on their samples."""
    names = list(names)
    facts = [tell(name, question) for name in names for question in asked(name)]
    return run(pytester, "--kitt-offline", f"--kitt-benchmark={','.join(names)}", knowing(pytester, facts))


def test_choices_that_are_compared_yield_speed_too(pytester: pytest.Pytester) -> None:
    """Of the requests that said how likely they are; nothing was written, so no metric says how fast that was."""
    suite(pytester, ["arc_easy"], right)
    (one,) = shown()["results"]
    found = values(one)
    assert found["request_rps"] > 0
    assert found["input_tps"] > found["request_rps"]
    assert not {"ttft_ms", "itl_ms", "osl", "output_tps"} & {m["name"] for m in one["metrics"]}
    assert one["params"]["path"] == "/v1/completions"
    assert "lag_p99_ms" in one["params"]["certificate"]
    stored = rows(one)
    assert len(stored) == one["params"]["questions"]
    assert all(row["e2e_ms"] > 0 for row in stored)


def test_each_question_is_stored_with_what_was_made_of_it(pytester: pytest.Pytester) -> None:
    """Speed and quality come from the same responses."""
    suite(pytester, ["gsm8k"], right)
    (one,) = shown()["results"]
    first, question = next(row for row in rows(one) if row["id"] == "0"), asked("gsm8k")[0]
    assert first["prompt_sha256"] == question.prompt_sha256
    assert (first["response"], first["correct"], first["finish"]) == ("#### 34", True, "stop")
    assert first["extracted"] == {"strict": "34", "flexible": "34"}
    assert first["scores"] == {"exact_match_strict": 1.0, "exact_match_flexible": 1.0}
    assert first["tokens"] > 0
    assert first["e2e_ms"] > 0
    found = values(one)
    assert found["output_tps"] > 0
    assert found["empty_share"] == found["length_share"] == found["extraction_failed_strict_share"] == 0
    assert one["params"]["evaluation_version"] == "1"


@pytest.mark.parametrize("verbosity", ["-q", "-v"])
def test_a_sample_is_called_one_wherever_its_score_is(pytester: pytest.Pytester, verbosity: str) -> None:
    """In the terminal however quiet, in each file that a session leaves, and in what is asked of the store later."""
    files = ("--kitt-output=out", "--junitxml=own.xml")
    done = run(pytester, "--kitt-offline", "--kitt-benchmark=mmlu", verbosity, *files)
    lines = ["*mmlu: acc * % (sample of 12; 95 % *, wilson; standard error *)", "*mmlu: 5 scores of parts of it: *"]
    done.stdout.fnmatch_lines([*lines, f"Note: {scores.SAMPLE_NOTICE}."])
    assert ("    acc_astronomy: " in done.stdout.str()) == (verbosity == "-v")
    assert "_stderr" not in done.stdout.str() or verbosity == "-v"
    (one,) = shown()["results"]
    assert one["params"]["scores"] == {"acc": "sample"}
    out = pytester.path / "out"
    for name in ("summary.md", "report.html"):
        assert scores.SAMPLE_NOTICE in (out / name).read_text(encoding="utf-8")
        assert "sample of 12" in (out / name).read_text(encoding="utf-8")
    for path in (pytester.path / "own.xml", out / "junit.xml"):
        assert '<property name="kitt.data" value="sample"' in path.read_text(encoding="utf-8")
    told = CliRunner().invoke(app, ["results", "show", "last"]).output
    assert "acc 8.3 % (sample of 12; " in told
    assert f"sample: {scores.SAMPLE_NOTICE}" in told
    assert re.search(r"acc_astronomy +value +0.0 % +0.0 % to 49.0 % \(wilson\) +sample of 4\n", told)
    table = CliRunner().invoke(app, ["results", "export", "last", "--format", "csv"]).output.splitlines()
    assert all(row["data"] == "sample" for row in csv.DictReader(table))


def test_one_sample_of_two_evaluations_is_still_one(pytester: pytest.Pytester) -> None:
    """Each score knows where its questions are from; the result as a whole is of the weaker."""
    _capitals(pytester)
    pytester.makepyfile(
        test_it='def test_it(kitt_evaluate):\n    kitt_evaluate("mmlu")\n    kitt_evaluate("capitals.kitt.yaml")\n'
    )
    done = run(pytester, "--kitt-offline", "test_it.py", "-q", "--junitxml=own.xml")
    done.stdout.fnmatch_lines(
        ["*it: acc * % (sample of 12; *", "*it: exact_match * % (n=2; *", "Note: a score of a sample *"]
    )
    (one,) = shown()["results"]
    assert one["params"]["scores"] == {"acc": "sample", "exact_match": "file"}
    text = (pytester.path / "own.xml").read_text(encoding="utf-8")
    assert re.findall(r'name="kitt.data" value="(\w+)"', text) == ["sample"]


def test_choices_that_a_server_refuses_are_told_with_its_words(pytester: pytest.Pytester) -> None:
    """The probe's texts are short; some of the questions are longer than the context."""
    with _ways(pytester, "echo"):
        result = run(pytester, "--kitt-offline", "--kitt-benchmark=mmlu", "--kitt-engine-arg=context=215")
    result.assert_outcomes(errors=1, deselected=44)
    result.stdout.fnmatch_lines(
        ["*invalid: mmlu: ' A' cannot be scored: echo: *status 400*; 4 of 48 requests failed *"]
    )
    result.stdout.fnmatch_lines(["*invalid: mmlu: *maximum context length is 215 tokens*"])


@contextlib.contextmanager
def _ways(pytester: pytest.Pytester, ways: str) -> Iterator[None]:
    """The simulated engine's card has these ways to say log-probabilities."""
    home = pytester.path / "home" / "engines"
    home.mkdir(parents=True)
    text = (shipped.ENGINES / "simulated.yaml").read_text(encoding="utf-8")
    (home / "simulated.yaml").write_text(text.replace("loglikelihood: [echo, echo_text]", f"loglikelihood: [{ways}]"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KITT_HOME", str(home.parent))
        yield


def test_an_engine_without_log_probabilities_skips_with_the_reason(pytester: pytest.Pytester) -> None:
    """Never chance in place of a score; what is written needs none."""
    with _ways(pytester, ""):
        result = run(pytester, "--kitt-offline", "--kitt-benchmark=hellaswag,gsm8k", "-q")
    result.stdout.fnmatch_lines(["  hellaswag: skipped: hellaswag needs log-probabilities: engine simulated cannot*"])
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["skipped"]) == (1, 1)


def test_an_estimate_has_a_name_of_its_own(pytester: pytest.Pytester) -> None:
    """Ollama says the likeliest first tokens alone: enough for letters, for nothing longer; prompts go as they are."""
    knows = {KNOWS_ENV: json.dumps({"of France is": " Paris", "Answer:": " B"})}
    with running("ollama", pytester.path / "double", env=knows) as served:
        where = ("--kitt-engine=ollama", f"--kitt-url={served.url}", "--kitt-offline", "-p", "no:cacheprovider")
        done = pytester.runpytest_subprocess(*where, "--kitt-benchmark=mmlu,hellaswag,gsm8k", "-rs")
        bodies = served.asked("/api/generate")
    done.stdout.fnmatch_lines(["SKIPPED*hellaswag needs log-probabilities: *it is an estimate*"])
    found = {one["benchmark"]: one for one in shown()["results"]}
    letters = [question.gold == (1,) for question in asked("mmlu")]
    assert values(found["mmlu"])["acc_first_token"] == sum(letters) / len(letters)
    assert "acc" not in values(found["mmlu"])
    assert found["gsm8k"]["outcome"] == "passed"
    written = [body for body in bodies if body["prompt"] == asked("gsm8k")[0].prompt]
    assert written[0]["raw"] is True
    assert written[0]["options"]["stop"] == cards.read(cards.find("gsm8k")).stop
    assert all(body["options"]["seed"] == 0 for body in bodies)


def test_cards_are_asked_in_the_tongue_of_the_session(pytester: pytest.Pytester) -> None:
    """TGI's own where the card's form is no chat, with its stops and limit; OpenAI's chat where it is one."""
    with running("tgi", pytester.path / "double", "--max-total-tokens=4096") as served:
        where = ("--kitt-engine=tgi", f"--kitt-url={served.url}", "--kitt-api=tgi", "--kitt-offline")
        names = "--kitt-benchmark=mmlu_generative,mmlu_chat"
        done = pytester.runpytest_subprocess(*where, "-p", "no:cacheprovider", names)
        done.assert_outcomes(passed=2, deselected=done.parseoutcomes().get("deselected", 0))
        written, chats = served.asked("/generate_stream"), served.asked("/v1/chat/completions")
    assert sorted(body["inputs"] for body in written) == sorted(one.prompt for one in asked("mmlu_generative"))
    card = cards.read(cards.find("mmlu_generative"))
    assert all(body["parameters"]["stop"] == card.stop for body in written)
    assert all(body["parameters"]["max_new_tokens"] == card.max_tokens for body in written)
    found = sorted(body["messages"][-1]["content"] for body in chats)
    assert found == sorted(one.prompt for one in asked("mmlu_chat"))
    assert {one["benchmark"]: one["params"]["api"] for one in shown()["results"]} == {
        "mmlu_generative": "tgi",
        "mmlu_chat": "chat",
    }


def test_a_limit_asks_some_of_each_part(pytester: pytest.Pytester) -> None:
    """And the result says of how many."""
    run(pytester, "--kitt-offline", "--kitt-benchmark=mmlu_generative", "--kitt-limit=4")
    (one,) = shown()["results"]
    assert (one["params"]["questions"], one["params"]["questions_of"]) == (4, 12)
    assert sorted(row["task"] for row in rows(one)) == [
        "astronomy",
        "high_school_mathematics",
        "high_school_mathematics",
        "world_religions",
    ]


def test_questions_that_cannot_be_had_are_an_error(pytester: pytest.Pytester) -> None:
    """With the cure; the other evaluations are not touched by it."""
    blocked = 'import sys\nsys.modules["datasets"] = None\n'
    pytester.makeconftest(blocked)
    pytester.makepyfile(test_it='def test_it(kitt_evaluate):\n    kitt_evaluate("gsm8k")\n')
    result = run(pytester, "test_it.py")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*UserError: gsm8k: its dataset openai/gsm8k needs*pytest-kitt?datasets?*--kitt-offline*"]
    )


@pytest.mark.parametrize(
    "name, options",
    [
        ("gsm8k", ["--kitt-engine-arg=ttft_ms=300", "--kitt-eval-concurrency=1"]),
        ("gsm8k", ["--kitt-engine-arg=ttft_ms=300", *BUSY.format(1).split()]),
        ("arc_easy", ["--kitt-engine-arg=ttft_ms=100", "--kitt-eval-concurrency=1"]),
    ],
    ids=["written", "adaptive", "compared"],
)
def test_a_run_that_was_killed_goes_on_at_the_next_question(
    pytester: pytest.Pytester, name: str, options: list[str]
) -> None:
    """Kill -9 in the middle: what was answered is not asked again, and all of it is scored."""
    questions = asked(name)
    know = knowing(pytester, [right(name, question) for question in questions])
    pytester.makepyfile(test_it=f'def test_it(kitt_evaluate):\n    kitt_evaluate("{name}")\n')
    slow = ["--kitt-engine=simulated", know, "--kitt-offline", *options]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *slow, "test_it.py"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while _answered() < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = _answered()
    done = subprocess.run([*command, "--kitt-resume"], cwd=pytester.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (one,) = shown()["results"]
    assert one["params"]["questions_resumed"] == before
    stored = rows(one)
    first = cards.read(cards.find(name)).metric_names[0]
    assert (values(one)[first], sorted(int(row["id"]) for row in stored)) == (1.0, list(range(len(questions))))
    sent = sum(s["n"] for s in one["samples"] if s["codec"] == "kitt-columns-1")
    pairs = {question.id: max(1, len(question.pairs)) for question in questions}
    assert sent == sum(pairs[row["id"]] for row in stored[before:])


def test_a_server_that_takes_few_at_a_time_answers_all(pytester: pytest.Pytester) -> None:
    """What it refuses with 429 is asked again; what was found out is stored, and said under -v."""
    know = knowing(pytester, [right("gsm8k", question) for question in asked("gsm8k")])
    slow = ("--kitt-engine-arg=ttft_ms=400", *BUSY.format(3).split())
    result = run(pytester, "--kitt-offline", "--kitt-benchmark=gsm8k", know, "-v", *slow)
    result.stdout.fnmatch_lines(["*gsm8k: *: * requests at a time found, * under way on average, sent*"])
    (one,) = shown()["results"]
    assert (values(one)["exact_match_strict"], len(rows(one))) == (1.0, 10)
    assert values(one)["requests_failed"] == 0
    params = one["params"]
    assert (params["load"], params["concurrency_most"], params["retries"]) == ("adaptive:8:10", 10, evaluating.RETRIES)
    assert 1 <= params["concurrency_found"] <= 3
    assert params["certificate"]["retried"] >= 1
    assert params["certificate"]["in_flight_target"] == 0


def test_how_many_questions_are_asked_at_a_time_can_be_said(pytester: pytest.Pytester) -> None:
    """By the option, and for one test by its argument; nothing is found out then."""
    pytester.makepyfile(
        test_it='def test_one(kitt_evaluate):\n    kitt_evaluate("gsm8k")\n'
        'def test_two(kitt_evaluate):\n    kitt_evaluate("gsm8k", concurrency=2)\n'
    )
    run(pytester, "--kitt-offline", "--kitt-eval-concurrency=5", "test_it.py").assert_outcomes(passed=2)
    found = [one["params"] for one in shown()["results"]]
    assert [params["load"] for params in found] == ["closed:5", "closed:2"]
    assert not any("concurrency_found" in params for params in found)
    result = run(pytester, "--kitt-offline", "--kitt-eval-concurrency=0", "test_it.py")
    result.stderr.fnmatch_lines(["*--kitt-eval-concurrency: 0 is neither auto nor at least 1*"])


class Unavailable(http.server.BaseHTTPRequestHandler):
    """It names its model, and takes no request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Its models."""
        self._say(200, b'{"object": "list", "data": [{"id": "m", "object": "model"}]}')

    def do_POST(self) -> None:
        """Anything else."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(503, b'{"error": {"message": "come back tomorrow"}}')

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_server_that_takes_no_question_makes_it_invalid(pytester: pytest.Pytester) -> None:
    """After the retries of a question, with the server's own words."""
    pytester.makeconftest("from pytest_kitt import evaluating\nevaluating.RETRIES = 1\n")
    pytester.makepyfile(test_it='def test_it(kitt_evaluate):\n    kitt_evaluate("gsm8k")\n')
    with double(Unavailable) as url:
        result = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", f"--kitt-url={url}", "--kitt-offline", "test_it.py"
        )
    result.stdout.fnmatch_lines(["*InvalidMeasurement: *HTTP_STATUS 503: come back tomorrow*"])
    (one,) = shown()["results"]
    assert one["outcome"] == "invalid"
    assert "the server took no request for" in one["params"]["certificate"]["broken"][1]


@pytest.mark.parametrize(
    "engine, options, questions, load",
    [
        ("llama_cpp", (), 1000, Adaptive(8, 256)),
        ("llama_cpp", ("parallel=4",), 1000, Adaptive(4, 256)),
        ("vllm", (), 1000, Adaptive(32, 256)),
        ("vllm", ("parallel=16",), 10, Adaptive(10, 10)),
        ("simulated", (), 1000, Adaptive(8, 256)),
    ],
)
def test_questions_begin_with_the_engines_own_slots(
    engine: str, options: tuple[str, ...], questions: int, load: Adaptive
) -> None:
    """As the cell says them; where it does not, and where somebody else has started the engine, with eight."""
    known = load_engines()
    given = tuple(tuple(option.split("=")) for option in options)
    cell = Cell(engine, ModelRef(ref="m", name="m"), "process", overrides=given)  # type: ignore[arg-type]  # pairs
    access = Access("http://nowhere:1")
    with access.client() as http:
        started = RunningEngine(cell, known[engine], access, http=http)
        foreign = RunningEngine(dataclasses.replace(cell, runtime="endpoint"), known[engine], access, http=http)
    assert evaluating.load_for(started, None, questions) == load
    assert evaluating.load_for(foreign, None, 1000) == Adaptive(8, 256)
    assert evaluating.load_for(started, 5, 1000) == Closed(5)
    assert evaluating.load_for(started, 5, 3) == Closed(3)


def _answered() -> int:
    """How many answers are in the store."""
    if not (Path(os.environ["KITT_HOME"]) / "kitt.db").exists():
        return 0
    with opened("") as engine, engine.connect() as connection:
        if not reader.list_runs(connection, synthetic=True):
            return 0
    return sum(len(rows(one)) for one in shown()["results"])


def _capitals(pytester: pytest.Pytester, card: str = CAPITALS) -> None:
    (pytester.path / "capitals.kitt.yaml").write_text(card)
    lines = [{"country": "France", "capital": "Paris"}, {"country": "Peru", "capital": "Lima"}]
    (pytester.path / "capitals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_card_of_ones_own_is_an_item(pytester: pytest.Pytester) -> None:
    """It has a cell, can be named, and needs no Python."""
    _capitals(pytester)
    know = knowing(pytester, [("Country: France\nCapital:", "Paris"), ("Country: Peru\nCapital:", "Cusco")])
    result = run(pytester, know, "capitals.kitt.yaml", "--kitt-benchmark=capitals", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["capitals.kitt.yaml::test_capitals?simulated-simulated? PASSED*"])
    (one,) = shown()["results"]
    assert (one["benchmark"], one["category"]) == ("capitals", "quality")
    assert values(one)["exact_match"] == 0.5


def test_questions_that_belong_together_are_stored_so(pytester: pytest.Pytester) -> None:
    """Whole continents right or wrong: two clusters, of which much less is known than of six questions."""
    _capitals(pytester, f"{CAPITALS}cluster: continent\n")
    known = {
        "France": "Paris",
        "Spain": "Madrid",
        "Italy": "Rome",
        "Peru": "Lima",
        "Chile": "Santiago",
        "Cuba": "Havana",
    }
    lines = [
        {"country": country, "capital": capital, "continent": "Europe" if n < 3 else "America"}
        for n, (country, capital) in enumerate(known.items())
    ]
    (pytester.path / "capitals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = [(f"Country: {one['country']}\nCapital:", one["capital"] if n < 3 else "-") for n, one in enumerate(lines)]
    result = run(pytester, knowing(pytester, facts), "capitals.kitt.yaml")
    result.assert_outcomes(passed=1)
    (one,) = shown()["results"]
    assert {row["id"]: row["cluster"] for row in rows(one)} == {
        str(n): line["continent"] for n, line in enumerate(lines)
    }
    assert one["params"]["clusters"] == 2
    (score,) = [m for m in one["metrics"] if m["name"] == "exact_match"]
    assert (score["value"], score["n"], score["method"]) == (0.5, 6, "clustered")
    assert (score["ci_low"], score["ci_high"]) == pytest.approx(wilson(0.5, 1, student_t(1)))
    assert values(one)["exact_match_stderr"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "at_least, outcome, words",
    [
        (0.05, "passed", "*1 passed*"),
        (0.4, "inconclusive", "*too few questions to tell: exact_match 0.500*n=2), asked for 0.4*"),
        (0.95, "failed", "*too low: exact_match 0.500*n=2), asked for 0.95*"),
    ],
)
def test_a_card_says_when_it_passes(pytester: pytest.Pytester, at_least: float, outcome: str, words: str) -> None:
    """By the interval: below it fails, above it passes, else it is inconclusive."""
    _capitals(pytester, f"{CAPITALS}passes: {{at_least: {at_least}}}\n")
    know = knowing(pytester, [("Country: France\nCapital:", "Paris"), ("Country: Peru\nCapital:", "Cusco")])
    result = run(pytester, know, "capitals.kitt.yaml", "-rx")
    result.stdout.fnmatch_lines([words])
    (one,) = shown()["results"]
    assert one["outcome"] == outcome


@pytest.mark.parametrize(
    "change, words",
    [
        (("name: capitals", "name: mmlu"), "mmlu is a shipped evaluation, and results of both would mix; rename it"),
        (("capitals.jsonl", "nowhere.jsonl"), "nowhere.jsonl is not there; check dataset.path in its card"),
        (("{{ country }}", "{{ country"), "prompt: "),
    ],
)
def test_what_can_be_seen_in_a_card_is_told_before_anything_starts(
    pytester: pytest.Pytester, change: tuple[str, str], words: str
) -> None:
    """Its name, its file, its templates."""
    _capitals(pytester, CAPITALS.replace(*change))
    result = run(pytester, "capitals.kitt.yaml", "--kitt-dry-run")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert words in result.stdout.str()


def test_two_cards_of_one_name_would_mix(pytester: pytest.Pytester) -> None:
    """In the table, and in the store."""
    _capitals(pytester)
    (pytester.path / "more.kitt.yaml").write_text(CAPITALS)
    result = run(pytester, "capitals.kitt.yaml", "more.kitt.yaml")
    result.stdout.fnmatch_lines(["*more.kitt.yaml: capitals is the name of *capitals.kitt.yaml, too; rename one*"])


def test_a_negative_limit_is_refused(pytester: pytest.Pytester) -> None:
    """It would take all but the last ones."""
    pytester.makepyfile(test_it='def test_it(kitt_evaluate):\n    kitt_evaluate("gsm8k", limit=-1)\n')
    result = run(pytester, "--kitt-offline", "test_it.py")
    result.stdout.fnmatch_lines(["*UserError: kitt_evaluate: limit=-1: it is a number of questions, 0 for all*"])


def test_a_metric_that_there_is_not_is_told(pytester: pytest.Pytester) -> None:
    """With the nearest."""
    pytester.makepyfile(test_it='def test_it(kitt_evaluate):\n    kitt_evaluate("arc_easy")["ac"]\n')
    result = run(pytester, "--kitt-offline", "test_it.py")
    result.stdout.fnmatch_lines(["*arc_easy has no metric 'ac'; *acc*"])


def test_a_few_questions_do_not_say_what_all_would_cost(pytester: pytest.Pytester) -> None:
    """A plan takes what the same number of questions cost."""
    run(pytester, "--kitt-offline", "--kitt-benchmark=hellaswag", "--kitt-limit=2").assert_outcomes(
        passed=1, deselected=44
    )
    few = run(pytester, "--kitt-offline", "--kitt-benchmark=hellaswag", "--kitt-limit=2", "--kitt-dry-run")
    few.stdout.fnmatch_lines(["*hellaswag *last run*"])
    every = run(pytester, "--kitt-offline", "--kitt-benchmark=hellaswag", "--kitt-dry-run")
    every.stdout.no_fnmatch_line("*hellaswag *last run*")


def test_a_card_with_a_typo_ends_the_collection(pytester: pytest.Pytester) -> None:
    """With file, line and the nearest key, and without a traceback."""
    _capitals(pytester, CAPITALS.replace("answer:", "anser:"))
    result = run(pytester, "capitals.kitt.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*capitals.kitt.yaml:6: unknown key 'anser'; did you mean 'answer'*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_what_stands_in_rows_reaches_no_terminal(pytester: pytest.Pytester) -> None:
    """Control characters are asked as they are; a row that cannot be asked is a sentence, without a traceback."""
    _capitals(pytester)
    hostile = {"country": "\x1b[2J\0Fr\u202eance", "capital": "\x1b]0;Paris\a"}
    lines = (pytester.path / "capitals.jsonl").read_text().splitlines()
    (pytester.path / "capitals.jsonl").write_text("\n".join([*lines, json.dumps(hostile)]))
    (pytester.path / "broken.kitt.yaml").write_text(
        CAPITALS.replace("capitals", "broken").replace("answer: capital", 'answer: "[capital] + more"')
    )
    (pytester.path / "broken.jsonl").write_text("\n".join([*lines, json.dumps(hostile)]))
    result = run(pytester, "capitals.kitt.yaml", "broken.kitt.yaml", "-rA")
    result.assert_outcomes(passed=1, errors=1)
    text = result.stdout.str() + result.stderr.str()
    assert not {*"\x1b\0\a\u202e"} & {*text}
    assert "Traceback" not in text
    result.stdout.fnmatch_lines(["*UserError: *broken.jsonl, row 1: *broken.kitt.yaml: answer: 'more' is undefined*"])
    found = {one["benchmark"]: one for one in shown()["results"]}
    (third,) = (row for row in rows(found["capitals"]) if row["id"] == "2")
    assert third["question"] == f"Country: {hostile['country']}\nCapital:"


def test_the_versions_of_shipped_benchmarks_are_those_of_their_cards(pytester: pytest.Pytester) -> None:
    """So that a result's key changes with its card."""
    run(pytester, "--kitt-offline", "--kitt-benchmark=piqa,winogrande")
    for one in shown()["results"]:
        assert one["version"] == cards.read(cards.find(one["benchmark"])).version
