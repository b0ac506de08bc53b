"""How fast are 10,000 questions asked and scored? Beside arithmetic, a C client, and the runners of others.

    python -m benchmarks.evaluations [--rounds 5] [--released [NAME ...]]
                                     [--questions 10000] [--concurrency 32] [--answer-ms 20]

The server answers each question after 20 ms, however many are asked, in words that follow from the question: half of
the made-up answers are those words, so a runner that finds any other score than one half ends its round as an error. No
runner can be faster than questions x 20 ms / concurrency. Timed is from the arrival of the first question at the
server, by its log, to the last score in the runner's own process:

    kitt        a pytest session with a card: the last sample row is scored and written to the store
    c           a client that scores nothing: the last token sent; what this machine can do at best
    lm_eval     its command, local-completions: the last ``process_results`` has returned, before means and files
    inspect_ai  its ``eval``, an OpenAI-compatible provider: the last ``match`` has returned, before its log is written

The whole is from the start of the command to its end: imports, reading, rendering, means, files. Ours streams, as does
C; theirs are told each answer at once. In every round each runs in turn, against a server of its own. A round in which
the server itself was late (p99 of 5 ms or more) does not count and is tried again, up to three times as often in all;
those of the others are not, as they take minutes. ``--released`` adds the others, or the named ones; they are installed
first (a gigabyte). Raw rounds lie in benchmarks/results/evaluations.json.

Exit code 0; 1 when ours took more than a tenth longer than the limit, or longer than one of the others; 3 when that is
not judged: fewer than five good rounds, or a miss where the C client misses it too or the server can do no more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest_kitt
from benchmarks.peers import cclient, outcome, runner, runners
from benchmarks.truth import log
from benchmarks.truth.answers import answer
from benchmarks.truth.server import Truth, running

SHARE = 1.1  # of the arithmetic limit
MIN_ROUNDS = 5
SERVER_LATE_MS = 5.0
ROOM = 4  # the server must be able to do so many times what it is asked for
TOKENS = 4
_TRIES = 3
_RESULTS = Path(__file__).with_name("results")
_CARD = """\
name: speed
version: "1"
summary: Made-up questions
dataset: {{path: {questions}}}
prompt: "{{{{ question }}}}"
answer: answer
mode: generate
stop: ["\\n"]
max_tokens: {tokens}
filters:
  "": [{{filter: strip}}]
metrics: [{{metric: exact_match}}]
"""
_TEST = """
def test_speed(kitt_evaluate):
    kitt_evaluate("speed.kitt.yaml", concurrency={concurrency})
"""
_CONFTEST = """
import json, time
import pytest

found = {"n": 0}

@pytest.hookimpl(trylast=True)  # behind the store
def pytest_kitt_samples(samples):
    if samples.codec == "jsonl":
        found["n"] += samples.n
        found["last_score_ns"] = time.perf_counter_ns()

def pytest_kitt_result(result):
    found["score"] = next(m.value for m in result.metrics if m.name == "exact_match")

def pytest_unconfigure():
    with open("found.json", "w") as file:
        json.dump(found, file)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What everybody has to do.

    Attributes:
        questions: how many.
        concurrency: requests under way.
        answer_ms: from a question to its answer.

    """

    questions: int
    concurrency: int
    answer_ms: float

    @property
    def limit_s(self) -> float:
        """No one can be faster."""
        return self.questions * self.answer_ms / 1e3 / self.concurrency

    @property
    def rate_rps(self) -> float:
        """Answers per second at the limit."""
        return self.concurrency / self.answer_ms * 1e3


Row = dict[str, float]
Rounds = dict[str, list[Row]]


def main() -> int:
    """Runs the rounds, prints the table and the verdicts, keeps the raw rounds."""
    asked = _asked()
    load = Load(asked.questions, asked.concurrency, asked.answer_ms)
    released = () if asked.released is None else asked.released or runners.RUNNERS
    versions = {"kitt": pytest_kitt.__version__, "c": cclient.prepare()}
    versions |= {name: runners.prepare(name) for name in released}
    most_rps = _most_rps(load)
    print(f"the server answers {most_rps:,.0f} requests/s to a C client; {load.rate_rps:,.0f}/s are asked of it")
    rounds = _rounds(load, list(versions), asked.rounds)
    raw = {"versions": versions, "load": dataclasses.asdict(load), "server_most_rps": most_rps, "rounds": rounds}
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "evaluations.json").write_text(json.dumps(raw, indent=1))
    print(table(load, rounds, versions))
    verdicts = judge(load, rounds, most_rps)
    print("\n".join(f"{verdict:10} {what}" for verdict, what in verdicts))
    found = {verdict for verdict, _ in verdicts}
    return 1 if "FAIL" in found else 3 if "not judged" in found else 0


def judge(load: Load, rounds: Rounds, most_rps: float) -> list[tuple[str, str]]:
    """Verdict and sentence of each limit: against arithmetic, and against each of the others."""
    limit = SHARE * load.limit_s
    c_s, ours_s = _median(rounds["c"], "timed_s"), _median(rounds["kitt"], "timed_s")
    able = most_rps >= ROOM * load.rate_rps and c_s <= limit
    good = ours_s <= limit
    enough = all(len(counted(rounds[name])) >= MIN_ROUNDS for name in ("kitt", "c"))
    verdict = "not judged" if not enough or not (good or able) else "pass" if good else "FAIL"
    said = f"from the first request to the last score {ours_s:.2f} s"
    found = [(verdict, f"{said}, at most {SHARE:g} x {load.limit_s:.2f} s: {limit:.2f} s")]
    for name in (name for name in rounds if name in runners.RUNNERS):
        theirs_s = _median(rounds[name], "timed_s")
        enough = all(len(counted(rounds[one])) >= MIN_ROUNDS for one in ("kitt", name))
        verdict = "not judged" if not enough else "pass" if ours_s <= theirs_s else "FAIL"
        found.append((verdict, f"at most that of {name}: {ours_s:.2f} s, {theirs_s:.2f} s"))
    return found


def counted(rows: Sequence[Row]) -> list[Row]:
    """The rounds in which the server kept its own timetable."""
    return [row for row in rows if row["server_late_p99_ms"] < SERVER_LATE_MS]


def table(load: Load, rounds: Rounds, versions: dict[str, str]) -> str:
    """Medians of the good rounds; of all, in brackets, where none was good."""
    titles = f"{'good':>7} {'timed s':>9} {'least':>8} {'x limit':>8} {'rps':>7} {'whole s':>8} {'CPU s':>7}"
    lines = [
        f"{load.questions:,} questions, {load.answer_ms:g} ms each, {load.concurrency} under way: {load.limit_s:.2f} s",
        f"{'runner':11} {'version':11} {titles}",
    ]
    for name, rows in rounds.items():
        good = counted(rows)
        timed, whole, cpu = (_median(rows, key) for key in ("timed_s", "whole_s", "cpu_s"))
        least = min((row["timed_s"] for row in good or rows), default=float("nan"))
        shown = f"{timed:.2f}" if good else f"({timed:.2f})"
        line = f"{name:11} {versions[name]:11} {f'{len(good)}/{len(rows)}':>7} {shown:>9} {least:>8.2f} "
        line += f"{timed / load.limit_s:>8.3f} {load.questions / timed:>7.0f} {whole:>8.1f} {cpu:>7.1f}"
        lines.append(line)
    return "\n".join(lines)


def _median(rows: Sequence[Row], key: str) -> float:
    values = [row[key] for row in counted(rows) or rows]
    return statistics.median(values) if values else float("nan")


def _rounds(load: Load, names: Sequence[str], number: int) -> Rounds:
    rounds: Rounds = {name: [] for name in names}
    for turn in range(_TRIES * number):
        for name in names:
            if len(counted(rounds[name])) >= number or (turn >= number and name in runners.RUNNERS):
                continue
            try:
                row = _round(load, name)
            except RuntimeError as error:
                print(f"{name}: {str(error)[:600]}", file=sys.stderr)
                continue
            rounds[name].append(row)
            shown = " ".join(f"{key} {value:.2f}" for key, value in row.items())
            print(f"  round {turn + 1}, {name}: {shown}", flush=True)
    return rounds


def _round(load: Load, name: str) -> Row:
    """One runner, once; RuntimeError when it did not ask everything, or found the wrong score."""
    with tempfile.TemporaryDirectory(prefix="evaluations-") as kept, _serving(load.answer_ms) as server:
        folder = Path(kept)
        questions = folder / "questions.jsonl"
        expected = _write_questions(questions, load.questions)
        work = runner.Work(server.url, questions, load.concurrency, TOKENS)
        cpu_s, began = _children_cpu_s(), time.perf_counter()
        found = _RUN.get(name, _theirs(name))(server, work, folder)
        whole_s, cpu_s = time.perf_counter() - began, _children_cpu_s() - cpu_s
        served = log.read(server.log)
    answered = [one for one in served if one.status == 200 and not one.aborted]
    if found.n != load.questions or len(answered) != load.questions:
        raise RuntimeError(f"{name} scored {found.n} questions, and {len(answered)} requests were answered")
    if name != "c" and abs(found.score - expected) > 1e-9:
        raise RuntimeError(f"{name} found a score of {found.score}, and it is {expected}")
    first_ns = min(one.arrive_ns for one in answered)
    return {
        "timed_s": (found.last_score_ns - first_ns) / 1e9,
        "whole_s": whole_s,
        "cpu_s": cpu_s,
        "server_late_p99_ms": log.late_p99_ms(answered),
    }


def _serving(answer_ms: float) -> Any:
    return running("--by-prompt", "--ttft-ms", f"{answer_ms:g}", "--itl-ms", "0")


def _write_questions(path: Path, number: int) -> float:
    """Questions and answers, every other one of which the server will not give; the share that it will."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(number):
            question = f"Question {n}: which words come to mind when one reads the number {n * 7919}? Answer:"
            right = answer(question, TOKENS)
            file.write(json.dumps({"question": question, "answer": f"not {right}" if n % 2 else right}) + "\n")
    return (number + 1) // 2 / number


def _ours(server: Truth, work: runner.Work, folder: Path) -> runner.Found:
    card = _CARD.format(questions=json.dumps(str(work.questions)), tokens=work.tokens)
    (folder / "speed.kitt.yaml").write_text(card, encoding="utf-8")
    (folder / "test_speed.py").write_text(_TEST.format(concurrency=work.concurrency), encoding="utf-8")
    (folder / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    env = {**os.environ, "KITT_HOME": str(folder / "home")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_speed.py"]
    command += [f"--kitt-url={server.url}", "--kitt-api=completions"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"our own session failed: {done.stdout[-2000:]}{done.stderr[-500:]}")
    return runner.told(folder)


def _c(server: Truth, work: runner.Work, _: Path) -> runner.Found:
    with work.questions.open(encoding="utf-8") as file:
        number = sum(1 for _ in file)
    cclient.measure(server, outcome.Load(work.concurrency, number, work.tokens))
    served = log.read(server.log)
    return runner.Found(max(one.sent_ns[-1] for one in served), float("nan"), len(served))


def _theirs(name: str) -> Callable[[Truth, runner.Work, Path], runner.Found]:
    return lambda _, work, folder: runners.measure(name, work, folder)


_RUN: dict[str, Callable[[Truth, runner.Work, Path], runner.Found]] = {"kitt": _ours, "c": _c}


def _most_rps(load: Load) -> float:
    """What the server can do at most: a C client asks it, and it waits for nothing."""
    with _serving(0) as server:
        told = cclient.measure(server, outcome.Load(load.concurrency, load.questions, TOKENS))
    return load.questions / told.wall_s


def _children_cpu_s() -> float:
    """CPU time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluations")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS)
    parser.add_argument("--released", nargs="*", choices=runners.RUNNERS, metavar="NAME")
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--answer-ms", type=float, default=20.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
