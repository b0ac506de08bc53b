"""What does a session do with a load that its client cannot vouch for? Real sessions, real disturbances."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.truth.server import available, running
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

needs_truth = pytest.mark.skipif(not available(), reason="needs gcc to build the truth server")


def run(pytester: pytest.Pytester, url: str, *args: str) -> pytest.RunResult:
    """A session in a process of its own, against a server that runs."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", f"--kitt-url={url}", *args, "test_it.py")


def shown() -> list[dict[str, Any]]:
    """The last run's results."""
    with opened("") as engine, engine.connect() as connection:
        return [dict(result) for result in reader.show_run(connection, "last")["results"]]


def stored() -> dict[str, Any]:
    """The last run's only result."""
    (result,) = shown()
    return result


@needs_truth
def test_bundled_tokens_are_invalid_unless_accepted(pytester: pytest.Pytester) -> None:
    """Eight tokens in one chunk: there is no time between tokens; who says so goes without it."""
    pytester.makepyfile(
        test_it="""
        import pytest
        from pytest_kitt import InvalidMeasurement

        def test_refused(kitt_load):
            kitt_load("closed:2", "synthetic:16:32", "requests:20", api="completions")

        def test_accepted(kitt_load):
            result = kitt_load("closed:2", "synthetic:16:32", "requests:20", api="completions", bundled=True)
            assert result.certificate.holds
            assert result.tpot_ms.p50 > 1
            with pytest.raises(InvalidMeasurement, match="compare tpot_ms instead"):
                result.itl_ms.p50
    """
    )
    with running("--ttft-ms", "20", "--itl-ms", "5", "--fault", "merge:8") as server:
        result = run(pytester, server.url, "--kitt-certify=require", "--junitxml=j.xml", "-v")
        again = run(pytester, server.url, "--kitt-certify=require", "--kitt-bundled", "--kitt-resume=last")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*in one chunk with the one before*Next: --kitt-bundled (kitt_load(...*"])
    again.assert_outcomes(passed=1, deselected=1)
    refused = next(found for found in shown() if found["benchmark"] == "refused")
    assert (refused["outcome"], refused["attempt"], refused["params"]["bundled"]) == ("passed", 2, True)
    assert {"tpot_ms", "ttft_ms"} < {metric["name"] for metric in refused["metrics"]}
    assert not {"itl_ms"} & {metric["name"] for metric in refused["metrics"]}
    junit = (pytester.path / "j.xml").read_text()
    assert '<property name="kitt.certified" value="false"' in junit
    assert '<property name="kitt.certified" value="true"' in junit


@needs_truth
def test_a_client_that_was_held_up_is_invalid(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is stopped half of the time: invalid by default, said and stored where that is asked for."""
    pytester.makepyfile(
        test_it="""
        import os, signal, threading, time
        from benchmarks.trials import clients

        def hold_up():
            while True:
                time.sleep(0.05)
                for pid in clients():
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.05)
                    os.kill(pid, signal.SIGCONT)

        def test_held_up(kitt_load):
            threading.Thread(target=hold_up, daemon=True).start()
            result = kitt_load("closed:8", "synthetic:16:16", "requests:80", api="completions")
            assert not result.certificate.holds
    """
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with running("--ttft-ms", "10", "--itl-ms", "3") as server:
        refused = run(pytester, server.url, "--kitt-certify=require")
        assert stored()["outcome"] == "invalid"
        recorded = run(pytester, server.url, "--kitt-certify=record")
    refused.assert_outcomes(errors=1)
    refused.stdout.fnmatch_lines(["*Next: this machine had other work*--kitt-certify=record*"])
    recorded.assert_outcomes(passed=1)
    recorded.stdout.fnmatch_lines(["*held_up*NOT CERTIFIED (*"])
    assert stored()["params"]["certificate"]["broken"]


@needs_truth
def test_open_loops_and_several_clients(pytester: pytest.Pytester) -> None:
    """Rates and clients are stored as asked for; counts are exact."""
    pytester.makepyfile(
        test_it="""
        def test_rates(kitt_load):
            result = kitt_load("poisson:50/s", "synthetic:16:8", "requests:40", api="completions", clients=2)
            assert (result.n, result.failed) == (40, 0)
            assert result.params["rate_rps"] == 50
            assert result.params["clients"] == 2
            assert result.isl.max == 16
            assert 25 < result.certificate.rate_asked_rps < 100
    """
    )
    with running("--ttft-ms", "10", "--itl-ms", "3") as server:
        run(pytester, server.url).assert_outcomes(passed=1)
        wrong = run(pytester, server.url, "--kitt-clients=0")
    assert stored()["params"]["load"] == "poisson:50/s"
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.fnmatch_lines(["*--kitt-clients: 0 is not between 1 and 64*"])


def test_more_clients_than_requests(pytester: pytest.Pytester) -> None:
    """One sentence."""
    pytester.makepyfile(test_it="def test_it(kitt_load):\n    kitt_load('closed:2', stop='requests:9', clients=3)")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kitt-engine=simulated", "test_it.py")
    result.stdout.fnmatch_lines(["*3 clients cannot share closed:2 until requests:9: each needs a slot and a request*"])


@needs_truth
def test_an_interrupted_item_is_kept(pytester: pytest.Pytester) -> None:
    """Ctrl-C in mid-load: the item is an error, with the requests that had ended."""
    pytester.makepyfile(test_it="def test_long(kitt_load):\n    kitt_load('closed:4', 'synthetic:16:8', 'seconds:60')")
    with running("--ttft-ms", "10", "--itl-ms", "3") as server:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--kitt-url={server.url}", "test_it.py"]
        with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 30
            while not _answered(server.url) and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(0.3)
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(20) == pytest.ExitCode.INTERRUPTED
    result = stored()
    assert (result["outcome"], result["reason"][:11]) == ("error", "interrupted")
    assert sum(sample["n"] for sample in result["samples"]) > 10
    assert result["params"]["load"] == "closed:4"
    assert next(m["n"] for m in result["metrics"] if m["name"] == "ttft_ms") > 10
    assert next(m["value"] for m in result["metrics"] if m["name"] == "requests_failed") == 0
    assert "the load was ended before its stop: cancelled" in result["params"]["certificate"]["broken"]


def _answered(url: str) -> bool:
    import urllib.request

    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    return int(text.partition("\ntruth_requests_total ")[2].split()[0]) > 20


def test_a_proxy_of_the_environment(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server elsewhere is reached through the proxy that the environment names; one that is not http is refused."""
    pytester.makepyfile(test_it="def test_it(kitt_load):\n    pass")
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    refused = run(pytester, "http://engine.example:8000")
    refused.stderr.fnmatch_lines(["*HTTP_PROXY names a proxy that is not http://*NO_PROXY=engine.example*"])
    monkeypatch.setenv("http_proxy", "http://me:hush@127.0.0.1:1")
    gone = run(pytester, "http://engine.example:8000")
    gone.stderr.fnmatch_lines(["*http://engine.example:8000 cannot be reached through the proxy 127.0.0.1:1*"])
    assert "hush" not in gone.stderr.str() + gone.stdout.str()
