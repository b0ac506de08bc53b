"""Does our llama-server take what llama.cpp's own takes, serve as it does, and end as it does?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_kitt import cards, shipped
from pytest_kitt.engine.start import Place, started
from pytest_kitt.matrix import build
from pytest_kitt.settings import Settings

PROGRAM = (sys.executable, "-P", str(shipped.ENGINES / "llama_cpp" / "llama_server.py"))
TINY = str(shipped.TINY_MODEL)


@contextlib.contextmanager
def up(tmp_path: Path, *flags: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Such a server on a port of its own choice, and a client of it."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*PROGRAM, "--port", "0", "-t", "1", *flags], stdout=output, stderr=output, env={**os.environ, **env}
        )
    try:
        with httpx.Client(base_url=announced(server, log), timeout=60, trust_env=False) as http:
            yield server, http
    finally:
        server.kill()
        server.wait()


def announced(server: subprocess.Popen[bytes], log: Path) -> str:
    """The address on a line of its own."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith('{"url":'):
                return str(json.loads(line)["url"])
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The program to its end."""
    return subprocess.run(
        [*PROGRAM, *argv], capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **env}
    )


def get(http: httpx.Client, path: str) -> Any:
    """A JSON answer."""
    return http.get(path).raise_for_status().json()


def test_it_serves_with_the_flags_of_llama_server(tmp_path: Path) -> None:
    """The whole context is split among the slots, the alias is the model's name, and what is asked for is served."""
    flags = ("-m", TINY, "-a", "alias", "-c", "4096", "-np", "4", "-s", "7", "--metrics", "--jinja", "-ngl", "auto")
    with up(tmp_path, *flags, "--no_webui", "-fa", "off", "-ctk", "f32") as (_, http):
        assert get(http, "/health") == {"status": "ok"}
        assert [model["id"] for model in get(http, "/v1/models")["data"]] == ["alias"]
        assert get(http, "/props")["default_generation_settings"]["n_ctx"] == 1024
        assert len(get(http, "/slots")) == 4
        assert "llamacpp:" in http.get("/metrics").text
        asked = {"prompt": "12+34=", "max_tokens": 3, "ignore_eos": True}
        assert http.post("/v1/completions", json=asked).json()["usage"]["completion_tokens"] == 3


def test_what_is_switched_off_is_not_served(tmp_path: Path) -> None:
    """Without --metrics and with --no-slots both paths say so; the key that a variable holds is asked for."""
    with up(tmp_path, "--no-slots", LLAMA_ARG_MODEL=TINY, LLAMA_API_KEY="secret") as (_, http):
        assert http.get("/slots").status_code == 401
        http.headers["Authorization"] = "Bearer secret"
        assert http.get("/slots").status_code == 501
        assert http.get("/metrics").status_code == 501


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """As a server that was asked to stop: exit code 0."""
    with up(tmp_path, "-m", TINY) as (server, http):
        get(http, "/health")
        server.send_signal(number)
        assert server.wait(timeout=30) == 0


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--nope", "1"], "error: invalid argument: --nope"),
        (["--ctx-size=4096"], "error: invalid argument: --ctx-size=4096"),
        (["-c"], 'error while handling argument "-c": expected value for argument'),
        (["-c", "many"], 'error while handling argument "-c": invalid literal'),
        (["-fa", "perhaps"], "expected one of on, off, auto, not 'perhaps'"),
        ([], "error: --model is required"),
        (["-m", "/none.gguf", "--port", "0"], "failed to load model"),
    ],
)
def test_what_it_refuses(argv: list[str], said: str) -> None:
    """Exit code 1, and the reason on standard error."""
    done = run(*argv)
    assert done.returncode == 1
    assert said in done.stderr
    assert not done.stdout


def test_a_variable_that_cannot_be_read() -> None:
    """It is named."""
    done = run("-m", TINY, LLAMA_ARG_ENDPOINT_METRICS="maybe")
    assert done.returncode == 1
    assert "\"LLAMA_ARG_ENDPOINT_METRICS\": expected on or off, not 'maybe'" in done.stderr


def test_it_tells_its_flags_and_its_version() -> None:
    """Every flag stands in the help, and the version is the wheel's."""
    assert "-c, --ctx-size VALUE" in run("--help").stdout
    assert run("--version").stderr.startswith("version: xllamacpp 20")


def test_the_process_runtime_runs_what_is_on_the_path(llama_server: Path, tmp_path: Path) -> None:
    """A command of that name is started with the card's flags and is gone afterwards."""
    arguments = (("context", "512"), ("parallel", "2"), ("threads", "1"))
    settings = Settings(engine=("llama_cpp",), runtime="process", engine_arg=arguments)
    found = cards.load_engines()
    (cell,) = build(settings, found)
    with started(cell, found["llama_cpp"], settings, Place(tmp_path, "test-llama-server")) as engine:
        assert engine.argv[0] == llama_server.name
        assert get(engine._http, "/props")["default_generation_settings"]["n_ctx"] == 512
        assert len(get(engine._http, "/slots")) == 2
