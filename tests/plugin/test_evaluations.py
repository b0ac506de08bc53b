"""Do evaluations run as tests: asked, scored, stored, gone on with, and refused where they cannot be right?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, prompts
from pytest_kitt.evals.prompts import Question
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tests.doubles.running import running
from tests.doubles.tokens import KNOWS_ENV

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=1", "--kitt-engine-arg=itl_ms=1")
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


def wrong(name: str, question: Question) -> tuple[str, str]:
    """What an engine believes that answers wrongly."""
    if question.choices:
        place = (question.gold[0] + 1) % len(question.choices)
        context, continuation = question.pairs[place]
        return context, continuation.strip()
    if question.wrong:
        return question.prompt, question.wrong[0]
    answer = "ABCD"[("ABCD".index(question.references[0]) + 1) % 4] if name.startswith("mmlu") else "none of it"
    return question.prompt, ENDINGS.get(name, "{}").format(answer)


def suite(pytester: pytest.Pytester, names: Iterable[str], tell: Callable[[str, Question], tuple[str, str]]) -> Any:
    """One session over several shipped evaluations, on their samples."""
    names = list(names)
    facts = [tell(name, question) for name in names for question in asked(name)]
    return run(pytester, "--kitt-offline", f"--kitt-benchmark={','.join(names)}", knowing(pytester, facts))


# the same prompts with other answers: an engine knows one of them
GROUPS = (
    (
        *("gsm8k", "gsm8k_cot", "hellaswag", "arc_easy", "arc_challenge", "winogrande", "piqa", "mmlu_chat"),
        "truthfulqa_gen",
    ),
    ("mmlu", "mmlu_generative", "truthfulqa_mc1"),
)


@pytest.mark.parametrize("names", GROUPS)
def test_an_oracle_scores_one(pytester: pytest.Pytester, names: tuple[str, ...]) -> None:
    """By the first metric of each evaluation, all the way through a server; the note says that it was a sample."""
    result = suite(pytester, names, right)
    result.assert_outcomes(passed=len(names), deselected=result.parseoutcomes().get("deselected", 0))
    result.stdout.fnmatch_lines([f"*kitt: {names[0]}: * questions of the sample that ships with its card, none of *"])
    for one in shown()["results"]:
        first = cards.read(cards.find(one["benchmark"])).metric_names[0]
        assert values(one)[first] == 1, one["benchmark"]
        assert one["params"]["data"] == "sample"
        assert len(rows(one)) == one["params"]["questions"] == len(asked(one["benchmark"]))


@pytest.mark.parametrize("names", GROUPS)
def test_an_always_wrong_engine_scores_zero(pytester: pytest.Pytester, names: tuple[str, ...]) -> None:
    """By the first metric of each evaluation."""
    result = suite(pytester, names, wrong)
    result.assert_outcomes(passed=len(names), deselected=result.parseoutcomes().get("deselected", 0))
    for one in shown()["results"]:
        first = cards.read(cards.find(one["benchmark"])).metric_names[0]
        assert values(one)[first] == 0, one["benchmark"]


def test_each_question_is_stored_with_what_was_made_of_it(pytester: pytest.Pytester) -> None:
    """Speed and quality come from the same responses."""
    suite(pytester, ["gsm8k"], right)
    (one,) = shown()["results"]
    first, question = rows(one)[0], asked("gsm8k")[0]
    assert (first["id"], first["prompt_sha256"]) == ("0", question.prompt_sha256)
    assert (first["response"], first["correct"], first["finish"]) == ("#### 34", True, "stop")
    assert first["extracted"] == {"strict": "34", "flexible": "34"}
    assert first["scores"] == {"exact_match_strict": 1.0, "exact_match_flexible": 1.0}
    assert first["tokens"] > 0
    assert first["e2e_ms"] > 0
    found = values(one)
    assert found["output_tps"] > 0
    assert found["empty_share"] == found["length_share"] == found["extraction_failed_strict_share"] == 0
    assert one["params"]["evaluation_version"] == "1"


def test_an_engine_without_log_probabilities_skips_with_the_reason(pytester: pytest.Pytester) -> None:
    """Never chance in place of a score; what is written needs none."""
    home = pytester.path / "home" / "engines"
    home.mkdir(parents=True)
    text = (shipped.ENGINES / "simulated.yaml").read_text(encoding="utf-8")
    (home / "simulated.yaml").write_text(text.replace("loglikelihood: [echo, echo_text]", "loglikelihood: []"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KITT_HOME", str(home.parent))
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


def test_a_run_that_was_killed_goes_on_at_the_next_question(pytester: pytest.Pytester) -> None:
    """Kill -9 in the middle: what was answered is not asked again, and all of it is scored."""
    know = knowing(pytester, [right("gsm8k", question) for question in asked("gsm8k")])
    pytester.makepyfile(test_it='def test_it(kitt_evaluate):\n    kitt_evaluate("gsm8k", concurrency=1)\n')
    slow = ["--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=300", know, "--kitt-offline"]
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
    assert (values(one)["exact_match_strict"], len(rows(one))) == (1.0, 10)
    assert sum(s["n"] for s in one["samples"] if s["codec"] == "kitt-columns-1") == 10 - before


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


def test_a_card_with_a_typo_ends_the_collection(pytester: pytest.Pytester) -> None:
    """With file, line and the nearest key, and without a traceback."""
    _capitals(pytester, CAPITALS.replace("answer:", "anser:"))
    result = run(pytester, "capitals.kitt.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*capitals.kitt.yaml:6: unknown key 'anser'; did you mean 'answer'*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_the_versions_of_shipped_benchmarks_are_those_of_their_cards(pytester: pytest.Pytester) -> None:
    """So that a result's key changes with its card."""
    run(pytester, "--kitt-offline", "--kitt-benchmark=piqa,winogrande")
    for one in shown()["results"]:
        assert one["version"] == cards.read(cards.find(one["benchmark"])).version
