"""Is an engine started as a process found ready or dead, and ended to its last child?"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pytest_kitt import cards
from pytest_kitt.cards import EngineCard, RuntimeCard
from pytest_kitt.engine.ready import classify, log_tail
from pytest_kitt.engine.runtime.process import running
from pytest_kitt.engine.start import Place, command, missing, started
from pytest_kitt.errors import EngineStartError
from pytest_kitt.matrix import build
from pytest_kitt.settings import Settings

MARK = "test-process"
GRANDCHILD = (
    "import subprocess, sys, time\n"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    "print(p.pid, flush=True)\ntime.sleep(60)\n"
)
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)\n"
)


def gone(pid: int) -> bool:
    """Whether a process ends within seconds."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def said(log: Path) -> str:
    """What a process printed first, as soon as it did."""
    deadline = time.monotonic() + 20
    while not log.read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.02)
    return log.read_text().strip()


def test_a_grandchild_in_a_session_of_its_own_is_killed(tmp_path: Path) -> None:
    """Whoever inherited the mark ends with the engine."""
    log = tmp_path / "log"
    with running([sys.executable, "-c", GRANDCHILD], env={}, log=log, mark=MARK) as process:
        grandchild = int(said(log))
        assert Path(f"/proc/{grandchild}").exists()
    assert gone(process.pid)
    assert gone(grandchild)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grace ends."""
    monkeypatch.setattr("pytest_kitt.engine.runtime.process._GRACE_S", 0.2)
    log = tmp_path / "log"
    with running([sys.executable, "-c", STUBBORN], env={}, log=log, mark=MARK) as process:
        assert said(log) == "up"
    assert gone(process.pid)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    """The sentence names the command."""
    context = running(["kitt-no-such-command"], env={}, log=tmp_path / "log", mark=MARK)
    with pytest.raises(EngineStartError, match="kitt-no-such-command is not installed") as caught, context:
        pass
    assert caught.value.kind == "missing"


def card(program: str, **changes: object) -> EngineCard:
    """A card of a program in Python."""
    runtime = RuntimeCard(command=["{python}", "-c", program, "{port}"])
    return EngineCard(name="mine", description="x", runtimes={"process": runtime}, default_model="m", **changes)  # type: ignore[arg-type]


def start(program: str, tmp_path: Path, timeout_s: float = 20) -> None:
    """Starts and stops such an engine."""
    mine = card(program, failures={"model": ["no such weights"]})
    settings = Settings(engine=("mine",), start_timeout=timeout_s)
    (cell,) = build(settings, {"mine": mine})
    with started(cell, mine, settings, Place(tmp_path, MARK)):
        pass


SERVE = (
    "import http.server, sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
)


def test_a_command_on_a_port_of_ours_becomes_ready(tmp_path: Path) -> None:
    """A command that takes {port} is ready when its health path answers 200."""
    start(SERVE, tmp_path)


@pytest.mark.parametrize(
    "program, kind, sentence",
    [
        ("print('no such weights'); raise SystemExit(3)", "model", "ended with exit code 3 .* cannot load the model"),
        ("import nosuchmodule", "module", "a Python module is missing"),
        ("raise MemoryError('Cannot allocate memory')", "memory", "there is not enough memory"),
        ("import os; os.kill(os.getpid(), 9)", "died", "was killed by signal 9"),
    ],
)
def test_early_death_is_found_with_its_class_and_log(tmp_path: Path, program: str, kind: str, sentence: str) -> None:
    """An engine that dies is an error at once, with what it said last."""
    with pytest.raises(EngineStartError, match=sentence) as caught:
        start(program, tmp_path)
    assert caught.value.kind == kind


def test_an_engine_that_never_becomes_ready(tmp_path: Path) -> None:
    """Time is limited, and the sentence names the option."""
    with pytest.raises(EngineStartError, match=r"not ready after 0.5 s.*--kitt-start-timeout"):
        start("import time; time.sleep(60)", tmp_path, timeout_s=0.5)


def test_the_log_tail_is_bounded_and_harmless(tmp_path: Path) -> None:
    """Escape sequences are gone, lines and their length are limited."""
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[31mred\x1b[0m\x07\n" + b"x" * 10_000 + b"\n" + b"line\n" * 100)
    assert log_tail(log).splitlines() == ["line"] * 15
    log.write_bytes(b"\x1b[31mred\x1b[0m\x07\n" + b"x" * 10_000)
    assert log_tail(log).splitlines() == ["red", "x" * 300]
    assert log_tail(tmp_path / "none") == ""


def test_the_cards_own_patterns_come_first() -> None:
    """A card can tell its failures better than the general table."""
    assert classify("CUDA out of memory", {"vram": ["CUDA out of memory"]}) == "vram"
    assert classify("CUDA out of memory", {}) == "memory"
    assert classify("???", {}) == "died"


def test_every_argument_is_passed_explicitly() -> None:
    """Defaults of the card are on the command line, overrides replace them, raw flags follow."""
    settings = Settings(engine=("simulated",), engine_arg=(("itl_ms", "7"), ("--api-key-env", "X")))
    found = cards.load_engines()
    (cell,) = build(settings, found)
    argv = command(cell, found["simulated"], found["simulated"].runtimes["process"], 0)
    joined = " ".join(argv)
    assert "--ttft-ms 20" in joined
    assert "--itl-ms 7" in joined
    assert argv[-2:] == ["--api-key-env", "X"]


def test_an_absent_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without xllamacpp the sentence says what to install."""
    found = cards.load_engines()
    (cell,) = build(Settings(), found)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert missing(cell, found["llama_cpp"]).endswith("pip install 'pytest-kitt[embedded]'")


def test_no_environment_is_lost(tmp_path: Path) -> None:
    """A card's variables are added to the user's own."""
    log = tmp_path / "log"
    show = "import os; print(os.environ['MINE'], 'PATH' in os.environ, flush=True); import time; time.sleep(30)"
    with running([sys.executable, "-c", show], env={"MINE": "yes"}, log=log, mark=MARK):
        assert said(log) == "yes True"
    assert "MINE" not in os.environ
