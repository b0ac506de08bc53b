"""Is an engine started as a process found ready or dead, and ended to its last child?"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_kitt import cards
from pytest_kitt.cards import EngineCard, RuntimeCard, Startable
from pytest_kitt.engine import command, lease
from pytest_kitt.engine.ready import classify, diagnosed, log_tail
from pytest_kitt.engine.runtime.process import running
from pytest_kitt.engine.start import Place, missing, started
from pytest_kitt.errors import EngineStartError
from pytest_kitt.matrix import Cell, build
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


ANNOUNCING = (
    "import json, sys, time\n"
    "sys.stderr.write('0.01 I load: ')\n"
    "print(json.dumps({'url': 'http://127.0.0.1:9'}), flush=True)\n"
    'sys.stderr.write(\'done\\n{"url": "http://in.the/middle"} of a line\\n\')\n'
    "time.sleep(60)\n"
)


def test_an_address_is_heard_in_the_middle_of_other_messages(tmp_path: Path) -> None:
    """Another thread had begun the line; it would be waited for in vain, as nothing says it again."""
    with running([sys.executable, "-c", ANNOUNCING], env={}, log=tmp_path / "log", mark=MARK) as process:
        deadline = time.monotonic() + 20
        while not process.announced_url() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.announced_url() == "http://127.0.0.1:9"


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


class Healthy(BaseHTTPRequestHandler):
    """Answers whatever is asked with 200."""

    def do_GET(self) -> None:
        """An empty answer."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        """Nothing is printed."""


def start(program: str, tmp_path: Path, timeout_s: float = 20, on_poll: Callable[[], None] = lambda: None) -> None:
    """Starts and stops such an engine."""
    mine = card(program, failures={"model": ["no such weights"]})
    settings = Settings(engine=("mine",), start_timeout=timeout_s)
    (cell,) = build(settings, {"mine": mine})
    with started(cell, mine, settings, Place(tmp_path, MARK, on_poll=on_poll)):
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


def test_another_program_on_its_port_is_not_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who took the port while the engine was starting may be healthy, and is measured all the same by nobody."""
    with lease.port(tmp_path) as number:
        monkeypatch.setattr(lease, "_PORTS", [number])
    others: list[ThreadingHTTPServer] = []

    def take_it() -> None:
        if not others:
            others.append(ThreadingHTTPServer(("127.0.0.1", number), Healthy))
            threading.Thread(target=others[0].serve_forever, daemon=True).start()

    try:
        with pytest.raises(EngineStartError, match=f"another program took its port {number}") as caught:
            start("import time; time.sleep(60)", tmp_path, on_poll=take_it)
    finally:
        for other in others:
            other.shutdown()
            other.server_close()
    assert caught.value.kind == "port"


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


def test_a_cause_further_up_is_found_and_shown(tmp_path: Path) -> None:
    """By the card's patterns alone: a warning that an import failed is no cause, nor is a cache's usage a flag's."""
    log = tmp_path / "log"
    parents = "".join(f"Traceback {number}\n" for number in range(40))
    log.write_text(f"SafetensorError: cut\nImportError, never mind\nKV cache usage: 1 %\n{parents}")
    assert diagnosed(log, {"model": ["SafetensorError"]}) == ("model", f"SafetensorError: cut\n[...]\n{log_tail(log)}")
    assert diagnosed(log, {}) == ("died", log_tail(log))
    log.write_text("KV cache usage: 1 %\n")
    assert diagnosed(log, {})[0] == "died"
    log.write_text("usage: mine [-h]\n")
    assert diagnosed(log, {})[0] == "arguments"


def test_the_cards_own_patterns_come_first() -> None:
    """A card can tell its failures better than the general table."""
    assert classify("CUDA out of memory", {"vram": ["CUDA out of memory"]}) == "vram"
    assert classify("CUDA out of memory", {}) == "memory"
    assert classify("???", {}) == "died"


def line(cell: Cell, card: EngineCard, runtime: Startable) -> list[str]:
    """The command line of a cell."""
    where = command.places(cell, model=cell.model.path, host="127.0.0.1", ports={"port": 0})
    return command.argv(cell, card, card.runtimes[runtime], where)


def test_every_argument_is_passed_explicitly() -> None:
    """Defaults of the card are on the command line, overrides replace them, raw flags follow."""
    settings = Settings(engine=("simulated",), engine_arg=(("itl_ms", "7"), ("--api-key-env", "X")))
    found = cards.load_engines()
    (cell,) = build(settings, found)
    argv = line(cell, found["simulated"], "process")
    joined = " ".join(argv)
    assert "--tokens 64" in joined
    assert "--itl-ms 7" in joined
    assert argv[-2:] == ["--api-key-env", "X"]


def test_an_argument_may_be_the_product_of_two() -> None:
    """llama-server takes the context of all slots together, users say what one has."""
    settings = Settings(engine=("llama_cpp",), engine_arg=(("context", "100"), ("parallel", "3"), ("threads", "1")))
    found = cards.load_engines()
    (cell,) = build(settings, found)
    for runtime in ("embedded", "process"):
        joined = " ".join(line(cell, found["llama_cpp"], runtime))
        assert "--ctx-size 300 --parallel 3 --threads 1" in joined


def test_an_absent_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without xllamacpp the sentence says what to install."""
    found = cards.load_engines()
    (cell,) = build(Settings(), found)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert missing(cell, found["llama_cpp"]).endswith("pip install 'pytest-kitt[embedded]'")


def test_an_absent_program_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is not on the PATH: the card says how to get it."""
    found = cards.load_engines()
    (cell,) = build(Settings(engine=("llama_cpp",), runtime="process"), found)
    monkeypatch.setattr("shutil.which", lambda _: None)
    sentence = missing(cell, found["llama_cpp"])
    assert sentence.startswith(
        "engine llama_cpp needs the program llama-server on the PATH: take a release of https://"
    )


def test_no_environment_is_lost(tmp_path: Path) -> None:
    """A card's variables are added to the user's own."""
    log = tmp_path / "log"
    show = "import os; print(os.environ['MINE'], 'PATH' in os.environ, flush=True); import time; time.sleep(30)"
    with running([sys.executable, "-c", show], env={"MINE": "yes"}, log=log, mark=MARK):
        assert said(log) == "yes True"
    assert "MINE" not in os.environ
