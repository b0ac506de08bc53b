"""Do whole sessions do what users were promised? Real pytest sessions in a folder of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_kitt.cli import app
from tests.made_models import put, safetensors

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1")
OWN_TEST = """
def test_mine(kitt_engine, kitt_load, kitt_measure):
    result = kitt_load("closed:2", "synthetic:16:8", "requests:6")
    assert result.failed == 0
    kitt_measure("answers", 3, unit="count", better="higher", n=6)
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


def kitt(*args: str) -> dict[str, Any]:
    """What a kitt command prints as JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit, match=r"^0$"):
        app.main((*args, "--json"))
    return dict(json.loads(said.getvalue()))


def test_quick_suite_on_the_real_server(pytester: pytest.Pytester) -> None:
    """With nothing named, the quick suite measures llama.cpp with the tiny model, judges it and stores it."""
    pytest.importorskip("xllamacpp")
    result = run(pytester, "--kitt-suite=quick", "--junitxml=j.xml")
    assert result.ret == 0
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*the tiny model is a toy*", "*kitt results*", "llama_cpp-tiny*embedded*"])
    (listed,) = kitt("results", "list")["runs"]
    assert (listed["status"], listed["suite"], listed["toy"], listed["synthetic"]) == ("passed", "quick", True, False)
    shown = kitt("results", "show", listed["id"])
    assert {r["benchmark"] for r in shown["results"]} == {"latency", "throughput", "exact_match"}
    for found in shown["results"]:
        assert found["cell"]["engine"] == "llama_cpp"
        assert found["cell"]["engine_version"]
        assert {"ttft_ms", "output_tps"} <= {m["name"] for m in found["metrics"]}
        assert all(m["n"] >= 1 for m in found["metrics"])
        assert found["samples"]
    (accuracy,) = [m for r in shown["results"] for m in r["metrics"] if m["name"] == "accuracy"]
    assert accuracy["n"] == 50
    assert 0.5 < accuracy["value"] < 1
    properties = {p.get("name") for p in ElementTree.parse(pytester.path / "j.xml").iter("property")}
    assert {"kitt.ttft_ms.p50", "kitt.output_tps", "kitt.cell", "kitt.accuracy"} <= properties


def test_the_tiny_model_gives_the_same_answers_each_time(pytester: pytest.Pytester) -> None:
    """Two runs of the quality item give the same accuracy."""
    pytest.importorskip("xllamacpp")
    found = []
    for _ in range(2):
        assert run(pytester, "--kitt-benchmark=exact_match").ret == 0
        results = kitt("results", "show", "last")["results"]
        found.append([m["value"] for m in results[0]["metrics"] if m["name"].startswith("accuracy")])
    assert found[0] == found[1]


def test_an_engine_alone_runs_the_quick_suite(pytester: pytest.Pytester) -> None:
    """With an engine named and nothing else the quick suite runs; -q shows the table, -v every statistic."""
    quiet = run(pytester, *FAST, "-q")
    quiet.assert_outcomes(passed=4)
    quiet.stdout.fnmatch_lines(["*kitt results*", "*exact_match*100.0 %*PASSED"])
    quiet.stdout.no_fnmatch_line("*ttft_ms: mean*")
    run(pytester, *FAST, "-v", "-k", "latency").stdout.fnmatch_lines(["*ttft_ms: mean * p90 * (n=20)"])


def test_own_benchmark(pytester: pytest.Pytester) -> None:
    """A user's test takes our fixtures, asserts, and its numbers are stored under its function's name."""
    pytester.makepyfile(OWN_TEST)
    result = run(pytester, *FAST, "test_own_benchmark.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*mine*PASSED*", "*answers 3*"])
    (stored,) = kitt("results", "show", "last")["results"]
    assert (stored["benchmark"], stored["version"], stored["category"]) == ("mine", "0", "custom")
    assert stored["cell"]["synthetic"] is True


def test_synthetic_runs_are_listed_only_when_asked_for(pytester: pytest.Pytester) -> None:
    """The list leaves simulated engines out unless --synthetic says otherwise."""
    pytester.makepyfile(OWN_TEST)
    run(pytester, *FAST, "test_synthetic_runs_are_listed_only_when_asked_for.py")
    assert kitt("results", "list")["runs"] == []
    (listed,) = kitt("results", "list", "--synthetic")["runs"]
    assert listed["synthetic"] is True


def test_a_fixture_alone_activates(pytester: pytest.Pytester) -> None:
    """A collected test that uses a kitt fixture is enough; the default cell is measured."""
    pytest.importorskip("xllamacpp")
    pytester.makepyfile("def test_it(kitt_engine):\n    assert kitt_engine.chat('1+1=?', max_tokens=4).output")
    result = run(pytester)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*kitt results*"])


def test_inactive_unless_asked(pytester: pytest.Pytester) -> None:
    """A session without anything of ours prints, stores and imports nothing of ours."""
    pytester.makepyfile(
        """
        import sys
        def test_plain():
            heavy = {"pydantic", "sqlalchemy", "httpx", "orjson", "pytest_kitt.session", "pytest_kitt.conduct"}
            assert not heavy & set(sys.modules)
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*kitt [0-9]*")
    assert list(Path(os.environ["KITT_HOME"]).iterdir()) == []


def test_failed_assertion_names_the_evidence(pytester: pytest.Pytester) -> None:
    """A missed threshold fails the test, shows value and n, and is stored as failed with the reason."""
    pytester.makepyfile(
        """
        def test_slow(kitt_load):
            result = kitt_load("closed:1", "synthetic:8:4", "requests:12")
            assert result.ttft_ms.p50 < 0.001
        """
    )
    result = run(pytester, *FAST, "test_failed_assertion_names_the_evidence.py")
    assert result.ret == 1
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert * (ttft_ms.p50, n=12) < 0.001*"])
    (stored,) = kitt("results", "show", "last")["results"]
    assert stored["outcome"] == "failed"
    assert "ttft_ms.p50" in stored["reason"]
    assert kitt("results", "list", "--synthetic")["runs"][0]["status"] == "failed"


def test_too_few_samples_are_an_error_never_a_pass(pytester: pytest.Pytester) -> None:
    """A percentile of too few requests makes the test invalid: an error in pytest, JUnit and the store."""
    pytester.makepyfile(
        """
        def test_few(kitt_load):
            result = kitt_load("closed:1", "synthetic:8:4", "requests:10")
            assert result.ttft_ms.p99 < 1e9
        """
    )
    result = run(pytester, *FAST, "--junitxml=j.xml", "test_too_few_samples_are_an_error_never_a_pass.py")
    assert result.ret == 1
    result.assert_outcomes(errors=1)
    suite = ElementTree.parse(pytester.path / "j.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    (stored,) = kitt("results", "show", "last")["results"]
    assert stored["outcome"] == "invalid"


def test_nothing_passes_on_no_data(pytester: pytest.Pytester) -> None:
    """When every request fails the load is invalid, with the server's own words."""
    pytester.makepyfile("def test_dead(kitt_load):\n    kitt_load('closed:1', 'synthetic:8:4', 'requests:5')")
    result = run(pytester, *FAST, "--kitt-engine-arg=error_rate=1", "test_nothing_passes_on_no_data.py")
    assert result.ret == 1
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no request succeeded (5 of HTTP_STATUS)*HTTP_STATUS 500*"])


def test_a_load_that_ends_early_is_invalid(pytester: pytest.Pytester) -> None:
    """When so much fails that a load is given up, what was measured so far is no measurement."""
    pytester.makepyfile(
        test_fails="""
        def test_fails(kitt_load):
            kitt_load("closed:2", "synthetic:8:4", "requests:100000,errors:20%")
        """
    )
    result = run(pytester, *FAST, "--kitt-engine-arg=error_rate=0.5", "test_fails.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the load ended after * good requests: * of * requests failed*"])
    (stored,) = kitt("results", "show", "last")["results"]
    assert stored["outcome"] == "invalid"


@pytest.mark.parametrize("choice, outcomes, code", [("xfail", {"xfailed": 1}, 0), ("fail", {"failed": 1}, 1)])
def test_inconclusive(pytester: pytest.Pytester, choice: str, outcomes: dict[str, int], code: int) -> None:
    """Evidence that straddles the threshold has an outcome of its own."""
    pytester.makepyfile(
        """
        from pytest_kitt import Inconclusive
        def test_maybe(kitt_engine):
            raise Inconclusive("between 1 and 3, threshold 2")
        """
    )
    result = run(pytester, *FAST, f"--kitt-inconclusive={choice}", "test_inconclusive.py")
    assert result.ret == code
    result.assert_outcomes(**outcomes)
    (stored,) = kitt("results", "show", "last")["results"]
    assert stored["outcome"] == "inconclusive"


def test_collect_only_starts_nothing(pytester: pytest.Pytester) -> None:
    """--collect-only lists items, cells and the reason of each skip, and touches no server."""
    model = put(pytester.path / "weights", {"config.json": {}, "model.safetensors": safetensors()})
    result = run(
        pytester, "--collect-only", "--kitt-suite=quick", "--kitt-engine=llama_cpp,simulated", f"--kitt-model={model}"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*kitt matrix*", "llama_cpp-weights*SKIP: llama_cpp loads gguf*", "simulated-*4 items"]
    )
    unreachable = run(pytester, "--collect-only", "--kitt-url=http://127.0.0.1:1", "--kitt-suite=quick")
    assert unreachable.ret == 0


def test_without_docker_and_gpu_a_matrix_is_shown(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """--collect-only and a dry run need neither: image and reasons are told, and the cure for what is absent."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    absent = "*Docker is not there: no /nonexistent/docker.sock; *--kitt-runtime=*embedded*"
    named = "kitt image: llama_cpp in mine:1 (--kitt-image)"
    flags = ("--kitt-suite=quick", "--kitt-engine=llama_cpp,exllamav2,simulated", "--kitt-image=llama_cpp=mine:1")
    shown = (("--collect-only", "simulated-*4 items", 0), ("--kitt-dry-run", f"llama_cpp-tiny{absent}", 1))
    for first, last, code in shown:
        result = run(pytester, first, *flags, "--kitt-model=tiny")
        assert result.ret == code
        result.stdout.fnmatch_lines([named])
        result.stdout.fnmatch_lines(["exllamav2-tiny*SKIP: exllamav2 loads exl2 or gptq *"])
        result.stdout.fnmatch_lines([last])
    alone = run(pytester, "--kitt-suite=quick", "--kitt-engine=llama_cpp")
    assert alone.ret == pytest.ExitCode.USAGE_ERROR
    alone.stderr.fnmatch_lines([absent])


def test_impossible_cells_are_skipped(pytester: pytest.Pytester) -> None:
    """In a matrix an impossible cell is a skip with its reason, and the rest runs."""
    pytester.makepyfile(OWN_TEST)
    put(pytester.path / "w", {"config.json": {}, "model.safetensors": safetensors()})
    result = run(
        pytester,
        "--kitt-engine=llama_cpp,simulated",
        "--kitt-model=w",
        "test_impossible_cells_are_skipped.py",
    )
    result.assert_outcomes(passed=1, skipped=1)
    outcomes = {r["cell"]["engine"]: r["outcome"] for r in kitt("results", "show", "last")["results"]}
    assert outcomes == {"llama_cpp": "skipped", "simulated": "passed"}


def test_one_start_per_cell_and_eager_stop(pytester: pytest.Pytester) -> None:
    """All items of a cell share one engine, and it is gone before the next cell's first item runs."""
    pytester.makepyfile(
        """
        import os
        seen = {}
        def test_a(kitt_engine):
            seen.setdefault(kitt_engine.cell.id, set()).add(kitt_engine.pid)
        def test_b(kitt_engine):
            seen.setdefault(kitt_engine.cell.id, set()).add(kitt_engine.pid)
            assert all(len(pids) == 1 for pids in seen.values())
            for cell, (pid,) in ((c, tuple(p)) for c, p in seen.items()):
                alive = os.path.exists(f"/proc/{pid}")
                assert alive == (cell == kitt_engine.cell.id)
        """
    )
    result = run(
        pytester, "--kitt-engine=simulated", "--kitt-model=one,two", "-v", "test_one_start_per_cell_and_eager_stop.py"
    )
    result.assert_outcomes(passed=4)


def test_engine_that_does_not_start(pytester: pytest.Pytester) -> None:
    """A failed start is one error at set-up with class and log tail; the cell's other tests skip at once."""
    pytest.importorskip("xllamacpp")
    good = Path(__file__).resolve().parents[2] / "datasets" / "tiny" / "tiny.gguf"
    (pytester.path / "odd.gguf").write_bytes(good.read_bytes().replace(b"llama", b"lhama"))
    result = run(pytester, "--kitt-model=odd.gguf", "--kitt-suite=quick")
    assert result.ret == 1
    result.assert_outcomes(errors=1, skipped=3)
    result.stdout.fnmatch_lines(["*EngineStartError*cannot load the model*", "*end of the engine's log*"])


BAD_INPUT = {
    "engine": (("--kitt-engine=vlm",), "*--kitt-engine: 'vlm' is unknown; did you mean 'vllm'?*"),
    "suite": (("--kitt-suite=quik",), "*--kitt-suite: 'quik' is unknown; did you mean 'quick'?*"),
    "benchmark": (("--kitt-benchmark=latencey",), "*--kitt-benchmark: 'latencey' is unknown; did you mean 'latency'?*"),
    "value": (("--kitt-suite=quick", "--kitt-seed=x"), "*--kitt-seed: 'x' is not a number*"),
    "runtime": (("--kitt-engine=simulated", "--kitt-runtime=embedded"), "*cannot run as embedded*process*"),
    "argument": (
        ("--kitt-engine=simulated", "--kitt-engine-arg=ttft=1"),
        "*no argument 'ttft'; did you mean 'ttft_ms'?*",
    ),
    "pair": (("--kitt-engine-arg=1", "--kitt-suite=quick"), "*'1' is not KEY=VALUE*"),
    "url": (("--kitt-url=nonsense",), "*'nonsense' is no address; expected http://HOST:PORT*"),
    "unreachable": (("--kitt-url=http://127.0.0.1:1",), "*http://127.0.0.1:1 cannot be reached*port right?*"),
    "credentials": (("--kitt-url=http://me:hush@127.0.0.1:1",), "*leave name and password out*"),
    "no model": (("--kitt-model=nothere.gguf",), "*'nothere.gguf': there is no such file*"),
    "endpoint": (("--kitt-engine=openai",), "*measured where it already runs: add --kitt-url*"),
    "xdist": (("--kitt-suite=quick", "-n2", "--dist=loadscope"), "*--dist=loadscope would start*leave --dist out*"),
    "resume": (("--kitt-suite=quick", "--kitt-resume"), "*--kitt-resume: there is no store yet*"),
    "gpus": (("--kitt-engine=simulated", "--kitt-cell-gpus=x=many"), "*--kitt-cell-gpus: 'x=many' is not N or CELL=N*"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_sentence(pytester: pytest.Pytester, name: str) -> None:
    """A user's mistake is one sentence with the cure and exit code 4; nothing starts, nothing is stored."""
    args, sentence = BAD_INPUT[name]
    result = run(pytester, *args)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: kitt: {sentence}"])
    assert "Traceback" not in result.stderr.str()
    assert "hush" not in result.stdout.str() + result.stderr.str()
    assert not (Path(os.environ["KITT_HOME"]) / "kitt.db").exists()


def test_bad_files(pytester: pytest.Pytester) -> None:
    """A file that is no model, a bad card, a bad config and a marker typo are named with file and key."""
    (pytester.path / "no.gguf").write_bytes(b"PK\x03\x04 this is a zip")
    home = Path(os.environ["KITT_HOME"])
    result = run(pytester, "--kitt-model=no.gguf")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*no.gguf is no GGUF file*"])
    good = Path(__file__).resolve().parents[2] / "datasets" / "tiny" / "tiny.gguf"
    (pytester.path / "cut.gguf").write_bytes(good.read_bytes()[:200_000])
    result = run(pytester, "--kitt-model=cut.gguf")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*cut.gguf is cut off: it has 200000 bytes of at least *; fetch it again*"])
    (home / "config.yaml").write_text("sede: 3\n")
    result = run(pytester, "--kitt-suite=quick")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*config.yaml: unknown key 'sede'; did you mean 'seed'?*"])
    (home / "config.yaml").unlink()
    (home / "engines").mkdir()
    (home / "engines" / "mine.yaml").write_text("name: mine\ndescription: x\nhelth: /h\n")
    result = run(pytester, "--kitt-engine=simulated", "--kitt-suite=quick")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*mine.yaml:3: unknown key 'helth'; did you mean 'health'?*"])
    (home / "engines" / "mine.yaml").unlink()
    pytester.makepyfile("import pytest\n@pytest.mark.kitt(nam='x')\ndef test_x(kitt_engine):\n    pass")
    result = run(pytester, *FAST, "test_bad_files.py")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*no keyword 'nam'; did you mean 'name'?*"])


def test_usage_error_from_a_collected_fixture(pytester: pytest.Pytester) -> None:
    """A bad setting that is found only because a test uses our fixture is exit code 4 as well."""
    pytester.makeini("[pytest]\nkitt_engine = vlm\n")
    pytester.makepyfile("def test_x(kitt_engine):\n    pass")
    result = run(pytester)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: kitt: *'vlm' is unknown*"])


def test_selection(pytester: pytest.Pytester) -> None:
    """-k, -m, --kitt-benchmark and the user's own arguments work together."""
    pytester.makepyfile(test_own=OWN_TEST)
    listed = ("--collect-only", "-q", *FAST)
    both = run(pytester, *listed, "--kitt-suite=quick", "test_own.py")
    both.stdout.fnmatch_lines(["test_own.py::test_mine*", "*::test_latency*"])
    one = run(pytester, *listed, "--kitt-suite=quick", "-k", "latency")
    assert re.findall(r"::(\w+)", one.stdout.str()) == ["test_latency"]
    named = run(pytester, *listed, "--kitt-benchmark=throughput")
    assert set(re.findall(r"::(\w+)", named.stdout.str())) == {"test_throughput"}
    own = run(pytester, *listed, "--kitt-benchmark=mine")
    assert re.findall(r"::(\w+)", own.stdout.str()) == ["test_mine"]
    marked = run(pytester, *listed, "--kitt-suite=quick", "-m", "not kitt")
    assert marked.ret == 5


@pytest.mark.parametrize("quiet", ["-q", "-qq"])
def test_each_skip_leaves_its_reason(pytester: pytest.Pytester, quiet: str) -> None:
    """In one line of our own table, however quiet pytest is, whoever skips, and at whichever line the reason begins."""
    pytester.makepyfile(
        test_them="""
        import pytest

        @pytest.fixture
        def needed():
            pytest.skip("the fixture lacks something")

        def test_inside(kitt_engine):
            pytest.skip("\\n  no log-probabilities\\nand more of it")

        def test_before(kitt_engine, needed): ...

        @pytest.mark.skip(reason="not today")
        def test_marked(kitt_engine): ...
        """
    )
    put(pytester.path / "w", {"config.json": {}, "model.safetensors": safetensors()})
    result = run(pytester, quiet, "--kitt-engine=llama_cpp,simulated", "--kitt-model=w", "test_them.py")
    assert result.ret == 0
    reasons = [line.strip() for line in result.stdout.lines if ": skipped: " in line]
    unfit = "skipped: llama_cpp loads gguf and w is safetensors"
    assert reasons == [
        *(f"inside: {unfit}", f"before: {unfit}", "marked: skipped: not today"),
        "inside: skipped: no log-probabilities",
        "before: skipped: the fixture lacks something",
        "marked: skipped: not today",
    ]


def test_conftest_overrides_fixtures_and_implements_hooks(pytester: pytest.Pytester) -> None:
    """A rootdir conftest may replace a fixture of ours and gets each result."""
    pytester.makeconftest(
        """
        import pytest
        @pytest.fixture
        def kitt_measure():
            return lambda *a, **k: print("mine instead")
        def pytest_kitt_result(result):
            print(f"HOOK {result.benchmark} {result.outcome} {len(result.metrics)}")
        """
    )
    pytester.makepyfile(OWN_TEST)
    result = run(pytester, *FAST, "-s", "test_conftest_overrides_fixtures_and_implements_hooks.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*mine instead*", "*HOOK mine passed *"])


def test_options_from_env_ini_and_file(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from everywhere in their order, and the header names each origin, secrets masked."""
    (Path(os.environ["KITT_HOME"]) / "config.yaml").write_text("request_timeout: 60\nseed: 1\n")
    pytester.makeini("[pytest]\nkitt_seed = 2\nkitt_start_timeout = 50\n")
    monkeypatch.setenv("KITT_SEED", "3")
    monkeypatch.setenv("KITT_API", "completions")
    result = run(
        pytester, "--collect-only", "--kitt-engine=simulated", "--kitt-header=X-Key: hush", "--kitt-suite=quick"
    )
    line = next(line for line in result.stdout.lines if line.startswith("kitt settings:"))
    for part in ("engine=simulated (cli)", "seed=3 (env)", "api=completions (env)", "start_timeout=50.0 (ini)"):
        assert part in line
    assert "request_timeout=60.0 (file)" in line
    assert "hush" not in result.stdout.str()


def test_synthetic_prompts_have_the_asked_length(pytester: pytest.Pytester) -> None:
    """Each prompt has exactly the tokens that were asked for, by the engine's own count; answers have theirs."""
    pytester.makepyfile(
        test_lengths="""
        def test_lengths(kitt_load):
            result = kitt_load("closed:2", "synthetic:50:7", "requests:20", api="completions")
            assert set(result.isl.values) == {50}
            assert set(result.osl.values) == {7}
            assert result.params["prompt_length_by"] == "tokenizer"
        def test_prompts(kitt_load, tmp_path):
            file = tmp_path / "prompts.txt"
            file.write_text("one two\\nthree four\\n")
            result = kitt_load("closed:1", f"prompts:{file}", "requests:3", api="completions", warmup=0)
            assert result.params["prompts_repeat"] is True
            assert set(result.isl.values) == {2}
        """
    )
    run(pytester, *FAST, "test_lengths.py").assert_outcomes(passed=2)


def test_interrupt_stops_the_engine_and_keeps_what_was_measured(pytester: pytest.Pytester) -> None:
    """SIGTERM ends a session like Ctrl-C: exit code 2, the engine gone, earlier results stored."""
    pytester.makepyfile(
        test_long="""
        def test_first(kitt_load):
            kitt_load("closed:1", "synthetic:8:4", "requests:3")
        def test_second(kitt_load):
            print("SECOND", flush=True)
            kitt_load("closed:1", "synthetic:8:4", "seconds:300")
        """
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", *FAST, "test_long.py"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "SECOND" in line:
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(30) == 2
    assert kitt("results", "list", "--synthetic")["runs"][0]["status"] == "interrupted"
    outcomes = [r["outcome"] for r in kitt("results", "show", "last")["results"]]
    assert outcomes[0] == "passed"


def test_kill_leaves_nothing(pytester: pytest.Pytester) -> None:
    """After kill -9 of pytest the engine is gone within seconds, and the store has what was recorded."""
    pytester.makepyfile(
        test_long="""
        def test_first(kitt_load):
            kitt_load("closed:1", "synthetic:8:4", "requests:3")
        def test_second(kitt_engine, kitt_load):
            print("PID", kitt_engine.pid, flush=True)
            kitt_load("closed:1", "synthetic:8:4", "seconds:300")
        """
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", *FAST, "test_long.py"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = next(int(line.split()[-1]) for line in process.stdout if "PID" in line)
        time.sleep(0.5)
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert kitt("results", "list", "--synthetic")["runs"][0]["status"] == "interrupted"
    assert [r["outcome"] for r in kitt("results", "show", "last")["results"]] == ["passed", "error"]
