"""Can a server that already runs be measured, and is every way to get it wrong one sentence?"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened

KEY = "sk-very-secret"
TEST = """
def test_it(kitt_engine, kitt_load):
    assert kitt_engine.chat("hello", max_tokens=3).completion_tokens == 3
    assert kitt_engine.generate("hello", max_tokens=2).output
    assert len(list(kitt_engine.stream("hello", max_tokens=4))) == 4
    result = kitt_load("closed:2", "synthetic:16:8", "requests:6")
    assert result.failed == 0
    assert result.isl.min == result.isl.max
"""


@pytest.fixture
def served() -> Iterator[str]:
    """The simulated engine, wanting a key."""
    command = [sys.executable, "-m", "pytest_kitt.engine.simulated", "--port", "0", "--ttft-ms", "5", "--itl-ms", "1"]
    env = {**os.environ, "SIM_KEY": KEY}
    with subprocess.Popen([*command, "--api-key-env", "SIM_KEY"], stdout=subprocess.PIPE, env=env) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


@pytest.mark.parametrize("engine", ["openai", "vllm"])
@pytest.mark.parametrize("how", ["env", "file", "header"])
def test_a_running_server(
    pytester: pytest.Pytester, served: str, monkeypatch: pytest.MonkeyPatch, how: str, engine: str
) -> None:
    """The key may come from the environment, a file or a header, and is nowhere to be seen afterwards."""
    pytester.makepyfile(test_it=TEST)
    args = [f"--kitt-url={served}/v1/", f"--kitt-engine={engine}", "--junitxml=j.xml", "-v", "test_it.py"]
    if how == "env":
        monkeypatch.setenv("KITT_API_KEY", KEY)
    elif how == "file":
        (pytester.path / "key").write_text(f"{KEY}\n")
        args.append("--kitt-api-key-file=key")
    else:
        args.append(f"--kitt-header=Authorization: Bearer {KEY}")
    result = run(pytester, *args)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*test_it[[]{engine}-simulated[]]*"])
    left = [result.stdout.str(), result.stderr.str(), (pytester.path / "j.xml").read_text()]
    store = Path(os.environ["KITT_HOME"])
    assert KEY not in "".join(left)
    assert all(KEY.encode() not in path.read_bytes() for path in store.iterdir())


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["n0", "n1"])
def test_a_simulated_engine_that_runs_already_is_no_real_one(
    pytester: pytest.Pytester, served: str, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    """It says who it is: run, cells and the summary are marked, whatever card the user names."""
    if workers:
        pytest.importorskip("xdist")
    monkeypatch.setenv("KITT_API_KEY", KEY)
    pytester.makepyfile(test_it="def test_it(kitt_engine): ...")
    result = run(pytester, f"--kitt-url={served}", "--kitt-engine=vllm", *workers, "test_it.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["Note: the simulated engine makes its tokens up: *"])
    with opened("") as store, store.connect() as connection:
        found = reader.show_run(connection, "last")
    assert found["run"]["synthetic"]
    assert [one["cell"]["synthetic"] for one in found["results"]] == [True]


def test_https_with_a_private_authority(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """A server behind TLS is measured with its CA file, and refused by name without it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    subject = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    subprocess.run([*make, *subject], check=True, capture_output=True)
    pytester.makepyfile(test_it=TEST)
    command = [sys.executable, "-m", "pytest_kitt.engine.simulated", "--port", "0", "--ttft-ms", "5", "--itl-ms", "1"]
    tls = ["--tls-cert", str(cert), "--tls-key", str(key)]
    with subprocess.Popen([*command, *tls], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            good = run(pytester, f"--kitt-url={url}", f"--kitt-ca-file={cert}", "test_it.py")
            bad = run(pytester, f"--kitt-url={url}", "test_it.py")
        finally:
            process.kill()
    good.assert_outcomes(passed=1)
    assert bad.ret == 4
    bad.stderr.fnmatch_lines(["*cannot be reached*certificate*"])


def test_the_url_alone_runs_the_quick_suite(
    pytester: pytest.Pytester, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an address and nothing else the quick suite is what runs."""
    monkeypatch.setenv("KITT_API_KEY", KEY)
    result = run(pytester, f"--kitt-url={served}", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_latency*", "*test_throughput*", "*test_exact_match*"])


def test_a_key_is_wanted(pytester: pytest.Pytester, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 is a sentence that names the cure, with a wrong key as without one."""
    result = run(pytester, f"--kitt-url={served}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*wants an API key (status 401); set KITT_API_KEY or --kitt-api-key-file*"])
    monkeypatch.setenv("KITT_API_KEY", "wrong")
    result = run(pytester, f"--kitt-url={served}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*refuses the API key (status 401)*"])


def test_the_named_model_is_not_there(pytester: pytest.Pytester, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that the server does not list is refused before anything runs."""
    monkeypatch.setenv("KITT_API_KEY", KEY)
    result = run(pytester, f"--kitt-url={served}", "--kitt-model=other")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*the server has no 'other'; it has: simulated*"])


ANSWERS = {
    "several": (
        200,
        {"data": [{"id": "one"}, {"id": "two"}]},
        "*which model? it has 2: one, two; add --kitt-model=NAME*",
    ),
    "none": (200, {"data": []}, "*which model? it does not list its models*"),
    "nonsense": (200, [1, 2], "*which model? it does not list its models*"),
    "not found": (404, {}, "*answers with status 404: no OpenAI-compatible server there?*"),
    "broken": (500, {}, "*answers with status 500*"),
    "hostile": (200, {"data": [{"id": "\x1b[31m" + "x" * 9999}, {"id": "b"}]}, "*it has 2: *b; add --kitt-model*"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_server_may_answer(pytester: pytest.Pytester, name: str) -> None:
    """Whatever /v1/models says, the outcome is one harmless sentence and exit code 4."""
    status, document, sentence = ANSWERS[name]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        result = run(pytester, f"--kitt-url=http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
    assert result.ret == 4
    result.stderr.fnmatch_lines([sentence])
    assert "\x1b[31m" not in result.stderr.str()
    assert len(result.stderr.str()) < 2000


def test_a_ca_file_that_is_none(pytester: pytest.Pytester) -> None:
    """A missing CA file, and one that holds no certificate, are named."""
    result = run(pytester, "--kitt-url=https://127.0.0.1:1", "--kitt-ca-file=nothere.pem")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--kitt-ca-file: nothere.pem is no file*"])
    (pytester.path / "bad.pem").write_text("no certificate")
    result = run(pytester, "--kitt-url=https://127.0.0.1:1", "--kitt-ca-file=bad.pem")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--kitt-ca-file: bad.pem*"])
