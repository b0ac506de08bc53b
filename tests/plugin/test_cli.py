"""Does the kitt command do what it should, as a table and as JSON?"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.cli import app
from pytest_kitt.store import reader
from pytest_kitt.store.database import exists, opened
from tests import made_run

FAST = ("-q", "-p", "no:cacheprovider", "--kitt-engine-arg=ttft_ms=1", "--kitt-engine-arg=itl_ms=0.1")

Asked = Callable[..., tuple[int, str, str]]
Kitt = Callable[..., "subprocess.CompletedProcess[str]"]
Stored = Callable[..., None]


def ids(ask: Asked, *filters: str) -> list[str]:
    """Which runs the list shows."""
    code, out, _ = ask("results", "list", "--json", *filters)
    assert code == 0
    return [run["id"] for run in json.loads(out)["runs"]]


# -- run


def test_run_passes_on_pytests_exit_code_and_arguments(pytester: pytest.Pytester, kitt: Kitt, ask: Asked) -> None:
    """Kitt run is pytest with other names for its options."""
    assert pytester.path
    good = kitt("run", "-e", "simulated", "-m", "anything", "-s", "quick", "--", *FAST, "-k", "latency")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1 passed" in good.stdout
    bad = kitt("run", "-s", "nothere")
    assert bad.returncode == 4
    assert "'nothere' is unknown" in bad.stderr
    listed = json.loads(ask("results", "list", "--synthetic", "--json")[1])
    assert listed["schema"] == 1
    (run,) = listed["runs"]
    assert run["suite"] == "quick"
    _, shown, _ = ask("results", "show", run["id"][:15])
    assert "latency on simulated-anything" in shown
    assert "synthetic: these numbers say nothing" in shown
    assert "  closed:1, synthetic:128:64, requests:20, chat; " in shown
    assert run["id"] in ask("results", "list", "--synthetic")[1]


RUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing": ((), ("--kitt-suite=quick", "--kitt-output=./kitt-results/{run}")),
    "all": (
        (
            *("-m", "a", "-m", "b", "-e", "c", "-r", "process", "-s", "d", "-o", "out", "--runs", "3"),
            *("--config", "f.yaml", "--skip-warmup", "--auto-pull"),
        ),
        (
            *("--kitt-suite=d", "--kitt-model=a", "--kitt-model=b", "--kitt-engine=c", "--kitt-runtime=process"),
            *("--kitt-engine-config=f.yaml", "--kitt-output=out", "--kitt-runs=3", "--kitt-skip-warmup"),
            "--kitt-auto-pull",
        ),
    ),
    "benchmark": (("-b", "latency", "-o", ""), ("--kitt-benchmark=latency",)),
    "both": (("-b", "x", "-s", "y", "-o", ""), ("--kitt-suite=y", "--kitt-benchmark=x")),
    "url": (("--url", "http://h", "-o", ""), ("--kitt-suite=quick", "--kitt-url=http://h")),
    "pytest": (("-o", "", "--", "-k", "a b", "--", "t.py"), ("--kitt-suite=quick", "-k", "a b", "--", "t.py")),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_each_flag_of_run_is_one_of_pytest(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The process becomes pytest with these arguments, and no place to import from but the installed ones."""
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, argv: became.append(argv))
    given, expected = RUNS[name]
    with pytest.raises(SystemExit):
        app.main(("run", *given))
    (argv,) = became
    assert argv[1:] == ["-P", "-m", "pytest", *expected]


def test_suite_and_folder_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What kitt run names by itself gives way to a variable."""
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, argv: became.append(argv))
    monkeypatch.setenv("KITT_SUITE", "mine")
    monkeypatch.setenv("KITT_OUTPUT", "there")
    with pytest.raises(SystemExit):
        app.main(("run",))
    assert became[0][-2:] == ["--kitt-suite=mine", "--kitt-output=there"]


def test_skip_warmup(pytester: pytest.Pytester, ask: Asked) -> None:
    """No uncounted request is sent in front whatever the test says; it is stored, shown, and another question."""
    pytester.makepyfile(
        """
        def test_it(kitt_load):
            kitt_load("closed:2", "synthetic:8:4", "requests:6", warmup=3, hold=False)
            kitt_load("constant:20/s", "synthetic:8:4", "requests:6", label="open", hold=False)
        """
    )
    keys, sent = [], []
    for extra in ([], ["--kitt-skip-warmup"]):
        done = pytester.runpytest_subprocess(*FAST, "--kitt-engine=simulated", *extra, "test_skip_warmup.py")
        done.assert_outcomes(passed=1)
        (result,) = json.loads(ask("results", "show", "last", "--json")[1])["results"]
        keys.append(result["key"])
        sent.append(sum(block["n"] for block in result["samples"]))
        params = result["params"]
    assert (params["warmup"], params["open.warmup"]) == (0, 0)
    assert sent[0] > sent[1] == 12
    assert keys[0] != keys[1]
    assert "closed:2, synthetic:8:4, requests:6, chat, no warm-up; " in ask("results", "show", "last")[1]


def test_a_living_run(pytester: pytest.Pytester, ask: Asked, command: tuple[str, ...]) -> None:
    """What is being measured is running, not an error, and not to be deleted; Ctrl-C ends it as it ends pytest."""
    pytester.makepyfile("def test_long(kitt_load):\n    kitt_load('closed:1', 'synthetic:8:4', 'seconds:60')")
    argv = [
        *command,
        "run",
        "-e",
        "simulated",
        "-o",
        "",
        "-s",
        "quick",
        "--",
        *FAST,
        "-k",
        "long",
        "test_a_living_run.py",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not _outcomes() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert _outcomes() == ["running"]
            (run,) = json.loads(ask("results", "list", "--synthetic", "--json")[1])["runs"]
            assert (run["status"], run["results"]) == ("running", {"running": 1})
            assert re.search(r"^long on .* RUNNING$", ask("results", "show", "last")[1], re.MULTILINE)
            code, _, said = ask("results", "delete", "last", "--yes")
            assert (code, "is still running" in said) == (4, True)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 2
    assert "Traceback" not in out
    assert "= kitt results =" in out  # the session ended in order
    (run,) = json.loads(ask("results", "list", "--synthetic", "--json")[1])["runs"]
    assert (run["status"], run["results"]) == ("interrupted", {"error": 1})


def _outcomes() -> list[str]:
    if not exists(""):
        return []
    with opened("") as engine, engine.connect() as connection:
        runs = reader.list_runs(connection, synthetic=True)
        return [r["outcome"] for r in reader.show_run(connection, "last")["results"]] if runs else []


# -- results


def test_nothing_yet(private_home: Path, ask: Asked) -> None:
    """Without a store there is no result, and no store is made by asking."""
    assert ask("results", "list", "--json") == (0, '{\n  "schema": 1,\n  "runs": []\n}\n', "")
    assert "no runs yet" in ask("results", "list")[1]
    code, _, said = ask("results", "show", "last")
    assert code == 4
    assert "run a benchmark first" in said
    assert list(private_home.iterdir()) == []


FILTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "none": ((), "dcb"),
    "synthetic": (("--synthetic",), "dcba"),
    "engine": (("--engine", "vllm"), "dc"),
    "model": (("--model", "Qwen3-8B"), "c"),
    "pattern": (("--model", "Qwen*"), "dc"),
    "suite": (("--suite", "mine"), "d"),
    "one of two suites": (("--suite", "quick"), "dcb"),
    "status": (("--status", "failed"), "c"),
    "day": (("--since", "2026-01-03"), "dc"),
    "time": (("--since", "2026-01-03T00:00:01"), "d"),
    "zone": (("--since", "2026-01-03T01:00:00+02:00"), "dc"),
    "ago": (("--since", "1h"), ""),
    "long ago": (("--since", "5000w"), "dcb"),
    "several": (("--engine", "vllm", "--status", "passed"), "d"),
    "hidden": (("--engine", "simulated"), ""),
    "limit behind filters": (("--engine", "llama_cpp", "--limit", "1"), "b"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(ask: Asked, name: str, stored: Stored) -> None:
    """Each filter keeps what fits, and all of them what fits all."""
    stored("20260101-a", engine="simulated")
    stored("20260102-b")
    stored("20260103-c", engine="vllm", model="Qwen3-8B", status="failed")
    stored("20260104-d", engine="vllm", model="Qwen3-4B", suite="quick,mine")
    filters, expected = FILTERS[name]
    assert [run_id[-1] for run_id in ids(ask, *filters)] == list(expected)
    _, out, _ = ask("results", "list", *filters)
    hidden = "1 run on a simulated engine is not shown: --synthetic shows it" in out
    assert hidden == (name in ("none", "hidden", "long ago", "one of two suites"))


def test_delete(ask: Asked, stored: Stored) -> None:
    """What is named is shown and deleted with all that hangs on it, and nothing else."""
    for run_id in ("20260101-a", "20260102-b", "20260103-c"):
        stored(run_id)
    code, out, _ = ask("results", "delete", "20260103-c", "20260101", "20260101-a", "--yes")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["run", "20260103-c", "20260101-a", "deleted"]
    assert ids(ask) == ["20260102-b"]
    with opened("") as engine, engine.connect() as connection:
        for table in ("results", "metrics", "cells"):
            assert connection.exec_driver_sql(f"select count(*) from {table}").scalar() == 1


def test_delete_all_or_nothing(ask: Asked, stored: Stored) -> None:
    """One name that is not clear, and nothing is deleted; a running one is when forced."""
    stored("20260101-a")
    stored("20260102-b", status="running")
    assert ask("results", "delete", "20260101-a", "nothere", "--yes")[0] == 4
    assert ask("results", "delete", "20260101-a", "20260102-b", "--yes")[0] == 4
    assert len(ids(ask)) == 2
    assert ask("results", "delete", "20260102-b", "--yes", "--force")[0] == 0
    assert ids(ask) == ["20260101-a"]


def test_what_is_stored_cannot_steer_the_terminal(ask: Asked, stored: Stored) -> None:
    """Control characters are spelt out, and a command can be copied."""
    stored("20260101-a")
    _, out, _ = ask("results", "show", "last")
    assert "\x1b" not in out
    assert r"\x1b[31massert 3 < 2" in out
    assert "reproduce: pytest --kitt-suite=quick --kitt-engine=llama_cpp -k 'not slow and" in out


def test_a_run_says_which_engine_was_measured(ask: Asked) -> None:
    """Version and image of each cell; a cell whose engine was changed in mid-run is two, and results say which."""
    digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    old = dataclasses.replace(
        made_run.CELL, runtime="container", image="e/server:1.2", image_digest=f"e/server@{digest}"
    )
    new = dataclasses.replace(old, engine_version="1.3", image_digest=digest.replace("0123", "fedc"))
    never = dataclasses.replace(made_run.CELL, key="0" * 12, engine_version="")
    results = [made_run.result(name, cell=cell) for name, cell in (("a", old), ("b", old), ("c", new), ("d", never))]
    with opened("") as store:
        made_run.write(store, *((result, ()) for result in results))
    lines = ask("results", "show", "last")[1].splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("cell "))
    assert [line.split() for line in lines[at : at + 5]] == [
        ["cell", "engine", "version", "runs", "as", "image", "key"],
        ["e-m", "e", "1.2", "container", "e/server:1.2", "(sha256:0123456789ab)", "abcdef012345"],
        ["e-m", "e", "1.3", "container", "e/server:1.2", "(sha256:fedc456789ab)", "abcdef012345"],
        ["e-m", "e", "-", "process", "-", "000000000000"],
        [],
    ]
    assert "b[c8] on e-m (1.2, container, sha256:0123456789ab, abcdef012345)  PASSED" in lines
    assert "c[c8] on e-m (1.3, container, sha256:fedc456789ab, abcdef012345)  PASSED" in lines
    assert "d[c8] on e-m (process, 000000000000)  PASSED" in lines
    assert "e 1.2/1.3 m-7B" in ask("results", "list")[1]
    (run,) = json.loads(ask("results", "list", "--json")[1])["runs"]
    assert run["engine_versions"] == {"e": ["1.2", "1.3"]}


# -- engines, test, models


def test_engines(ask: Asked) -> None:
    """Engines are listed, for people and for programs."""
    engines = json.loads(ask("engines", "list", "--json")[1])["engines"]
    assert {"llama_cpp", "openai", "simulated"} <= {engine["name"] for engine in engines}
    assert "llama.cpp's own HTTP server" in ask("engines", "list")[1]
    assert ask("--version")[1].startswith("kitt 0.")


def test_suites_and_benchmarks(monkeypatch: pytest.MonkeyPatch, kitt: Kitt) -> None:
    """Both are listed whatever is set for sessions; one function is one benchmark, and a category narrows it down."""
    monkeypatch.setenv("KITT_ENGINE", "nothere")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--kitt-suite=nothere")
    found = json.loads(kitt("test", "list", "--json").stdout)
    assert {"quick", "standard", "performance"} <= {suite["name"] for suite in found["suites"]}
    by_name = {benchmark["name"]: benchmark for benchmark in found["benchmarks"]}
    assert {"latency", "throughput", "exact_match"} <= by_name.keys()
    latency = by_name["latency"]
    assert (latency["category"], "quick" in latency["suites"]) == ("performance", True)
    assert by_name["throughput"]["suites"] == ["quick", "standard", "performance"]  # the last two by variants of it
    assert latency["description"].startswith("The time to the first token")
    table = kitt("test", "list", "-c", "quality").stdout
    assert "exact_match" in table
    assert "performance" not in table
    bad = kitt("test", "list", "-c", "qualty")
    assert (bad.returncode, "did you mean 'quality'?" in bad.stderr) == (4, True)


def test_a_broken_module_is_named_and_the_rest_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kitt: Kitt
) -> None:
    """A suite that cannot be imported does not hide the others."""
    (tmp_path / "suites.yaml").write_text("theirs: {description: d, benchmarks: [good, bad]}")
    (tmp_path / "test_good.py").write_text("def test_good(kitt_load): 'Good.'")
    (tmp_path / "test_bad.py").write_text("import nothere_at_all")
    (tmp_path / "theirs_plugin.py").write_text(
        "from pathlib import Path\ndef pytest_kitt_suites():\n    return Path(__file__).parent"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYTEST_PLUGINS", "theirs_plugin")
    done = kitt("test", "list", "--json", cwd=tmp_path)
    found: dict[str, Any] = json.loads(done.stdout)
    assert {"good", "latency"} <= {benchmark["name"] for benchmark in found["benchmarks"]}
    assert re.fullmatch(r"kitt: .*test_bad\.py could not be collected: .*nothere_at_all.*\n", done.stderr)


def test_new_tests_pass_as_they_are(pytester: pytest.Pytester, kitt: Kitt) -> None:
    """What kitt test new writes passes at once with the command that it prints, and is well-formed Python or a card."""
    written = [kitt("test", "new", "test_fast"), kitt("test", "new", "right", "-c", "quality", "-o", "a/b")]
    assert [done.returncode for done in written] == [0, 0]
    commands = [done.stdout.splitlines()[-1] for done in written]
    assert commands[0].startswith("pytest test_fast.py --kitt-engine=")
    assert commands[1].startswith("pytest a/b/right.kitt.yaml --kitt-engine=")
    again = kitt("test", "new", "fast")
    assert (again.returncode, "test_fast.py is there already" in again.stderr) == (4, True)
    card = kitt("test", "new", "right", "-c", "quality", "-o", "a/b")
    assert (card.returncode, "right.kitt.yaml is there already" in card.stderr) == (4, True)
    taken = kitt("test", "new", "latency")
    assert (taken.returncode, "benchmark 'latency' already (in suite " in taken.stderr) == (4, True)
    if ruff := shutil.which("ruff"):
        for check in (["check"], ["format", "--check"]):
            subprocess.run([ruff, *check, "--isolated", "test_fast.py"], check=True)
    engines = [
        "--kitt-engine=simulated",
        *(["--kitt-runtime=embedded"] if importlib.util.find_spec("xllamacpp") else []),
    ]
    for engine in engines:
        both = (engine, "--kitt-model=tiny", "test_fast.py", "a/b/right.kitt.yaml")
        pytester.runpytest_subprocess(*both).assert_outcomes(passed=2)


def test_models(ask: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named folder, else KITT_MODEL_DIR, else the user's; what is broken says why; the tiny model is offered."""
    from pytest_kitt import shipped

    assert "kitt run -m tiny" in ask("models", "list")[1]
    monkeypatch.setenv("KITT_MODEL_DIR", str(tmp_path))
    shutil.copy(shipped.TINY_MODEL, tmp_path / "one.gguf")
    (tmp_path / "two.gguf").write_bytes(b"GGUF\3")
    (Path(os.fsdecode(bytes(tmp_path) + b"/\xff\x1b[31m.gguf"))).write_bytes(b"")  # a name that is no text
    _, table, _ = ask("models", "list")
    assert re.search(r"^one\.gguf +gguf +llama +F16 +583 k +1\.2 MB$", table, re.MULTILINE)
    assert re.search(r"^two\.gguf cannot be used: is a damaged GGUF file", table, re.MULTILINE)
    found = json.loads(ask("models", "list", str(tmp_path), "--json")[1])
    assert [model["problem"] is None for model in found["models"]] == [True, False, False]
    assert found["models"][-1]["path"].endswith("/\\xff\x1b[31m.gguf")
    assert "\x1b" not in table


def test_fingerprint(ask: Asked) -> None:
    """The key is that of the runs, in every form; --verbose says all that the JSON says."""
    from pytest_kitt.hardware import fingerprint

    facts = json.loads(ask("fingerprint", "--json")[1])["fingerprint"]
    assert facts["key"] == fingerprint.read()["key"]
    assert facts["key"] in ask("fingerprint")[1]
    assert len(ask("fingerprint", "--verbose")[1].splitlines()) == 1 + len(facts)


# -- pipes


@pytest.mark.parametrize("args", [("results", "show", "last"), ("results", "list", "--json"), ("run", "--help")])
def test_a_closed_pipe_is_no_trouble(args: tuple[str, ...], stored: Stored, command: tuple[str, ...]) -> None:
    """Who has read enough may go: no traceback, no complaint."""
    stored("20260101-a")
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen([*command, *args], stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        assert process.communicate(timeout=60)[1] == ""
