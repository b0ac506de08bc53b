"""Does a session say when chats are not asked in the model's own template? By a benchmark, and beside each score."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

NAMED = "different template: from character 0 on the prompt of a chat has '<|im_start|>user"


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session over the benchmark and two evaluations by chat, in a process of its own."""
    asked = ("--kitt-benchmark=chat_template,mmlu_chat,exact_match", "--kitt-offline")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *asked, *args)


def results() -> dict[str, dict[str, Any]]:
    """Those of the last run, by benchmark."""
    with opened("") as engine, engine.connect() as connection:
        return {result["benchmark"]: result for result in reader.show_run(connection, "last")["results"]}


def test_the_models_own_template(pytester: pytest.Pytester) -> None:
    """It passes, with what was counted; both results keep the finding, and no note is made of it."""
    pytest.importorskip("xllamacpp", reason="needs pytest-kitt[embedded]")
    done = run(pytester, "--kitt-engine-arg=threads=1")
    assert done.parseoutcomes()["passed"] == 3
    found = results()
    values = {m["name"]: m["value"] for m in found["chat_template"]["metrics"]}
    assert (values["bos_chat"], values["bos_completions"], values["same_answer"]) == (1, 1, 1)
    assert [one["params"]["chat_template"]["verdict"] for one in found.values()] == ["ok"] * 3
    done.stdout.no_fnmatch_line("*mmlu_chat: a chat has*")


def test_another_template(pytester: pytest.Pytester) -> None:
    """The benchmark fails by its name; the score beside it is shown with the same words: with -q, in HTML, stored."""
    pytest.importorskip("xllamacpp", reason="needs pytest-kitt[embedded]")
    given = ("--kitt-engine-arg=threads=1", "--kitt-engine-arg=--chat-template=chatml")
    done = run(pytester, *given, "-q", "--kitt-html=report.html")
    outcomes = done.parseoutcomes()
    assert outcomes["failed"] + outcomes.get("xfailed", 0) == 2  # what is answered in another template is mostly wrong
    lines = [line.strip() for line in done.outlines]
    for name in ("mmlu_chat", "exact_match"):
        assert any(line.startswith(f"{name}: {NAMED}") for line in lines)
    assert sum("chat_template: " in line and NAMED in line for line in lines) == 1
    for one in results().values():
        assert one["params"]["chat_template"]["verdict"] == "different template"
    page = (pytester.path / "report.html").read_text(encoding="utf-8")
    assert "<b>Prompts:</b> not as the model asks for (3 results): different template: from character 0" in page
    assert page.count('role="note"><code>different template') == 2


def test_an_engine_that_has_none(pytester: pytest.Pytester) -> None:
    """The simulated one makes its tokens up: the benchmark skips with the reason, the evaluation goes on."""
    done = run(pytester, "--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=1", "--kitt-engine-arg=itl_ms=1", "-rs")
    outcomes = done.parseoutcomes()
    assert (outcomes["passed"], outcomes["skipped"]) == (2, 1)
    done.stdout.fnmatch_lines(["SKIPPED*the prompt of a chat cannot be checked: the model's files are not here, and *"])
    assert results()["mmlu_chat"]["params"]["chat_template"]["verdict"] == "unknown"
