"""What does one see while a session runs? Its terminal, read as a terminal shows it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.docker_api import docker_api

pyte = pytest.importorskip("pyte")

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=5", "--kitt-engine-arg=itl_ms=1")
HASTY = "from pytest_kitt.report import live\nlive.LINE_EVERY_S = 0.5\n"  # so that a test need not take minutes
SLOW = """
import time
from pytest_kitt.engine import start

answers, asked = start.answers_200, []

def late(*args):
    asked.append(time.monotonic())
    return asked[-1] - asked[0] > 2.5 and answers(*args)

start.answers_200 = late
"""
TIMED = "def test_timed(kitt_load):\n    kitt_load('closed:2', 'synthetic:8:8', 'seconds:2')\n"
OTHERS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS")  # which say what a terminal is like
PATIENCE_S = 60.0


class Terminal:
    """A session of pytest on a terminal of a size, and what the terminal shows."""

    def __init__(self, folder: Path, size: tuple[int, int], args: tuple[str, ...], env: dict[str, str]) -> None:
        columns, lines = size
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in OTHERS}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
            cwd=folder,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**inherited, "TERM": "xterm", "LC_ALL": "C.UTF-8", **env},
            start_new_session=True,
        )
        os.close(follower)
        self.raw = b""

    @property
    def lines(self) -> list[str]:
        """The screen from top to bottom, without trailing space."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.lines).rstrip()

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and line, from 0."""
        return self._screen.cursor.x, self._screen.cursor.y

    def until(self, seen: Callable[[str], object]) -> str:
        """Reads on until the screen fits; its text then."""
        deadline = time.monotonic() + PATIENCE_S
        while not seen(self.text):
            assert time.monotonic() < deadline, f"never seen; at last:\n{self.text}"
            assert self._read(), f"the session has ended; at last:\n{self.text}"
        return self.text

    def rest(self) -> int:
        """Reads to the end; the exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self) -> bool:
        if not select.select([self.leader], [], [], 1.0)[0]:
            return True
        try:
            data = os.read(self.leader, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


@contextlib.contextmanager
def terminal(pytester: pytest.Pytester, *args: str, size: tuple[int, int] = (80, 24), **env: str) -> Iterator[Terminal]:
    """A session on a terminal; interrupted when the test is done with it."""
    shown = Terminal(pytester.path, size, args, env)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            shown.process.send_signal(signal.SIGINT)
            shown.rest()
        os.close(shown.leader)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=["80", "200"])
def test_a_bar_beneath_pytests_line(pytester: pytest.Pytester, size: tuple[int, int]) -> None:
    """In mid-load: name, bar, count, pace and time left on the line below pytest's; after it, as if none had been."""
    pytester.makepyfile(test_a="def test_short():\n    pass\n" + TIMED)
    with terminal(pytester, *FAST, "test_a.py", size=size) as shown:
        seen = shown.until(re.compile(r"^test_timed\S*  [━┄]+ .*\d tok/s.* 0:0\d left$", re.MULTILINE).search)
        lines = seen.splitlines()
        (bar,) = [n for n, line in enumerate(lines) if "━" in line or "┄" in line]
        assert lines[bar - 1] == "test_a.py ."
        assert shown.cursor == (len("test_a.py ."), bar - 1)
        if size[0] == 200:
            assert re.search(r"  \d/2 s  \d+ requests  .*TTFT [\d.]+ ms.*ITL [\d.]+ (ms|µs)", lines[bar])
        assert max(map(len, lines)) <= size[0]
        assert shown.rest() == 0
        (line,) = [line for line in shown.lines if line.startswith("test_a.py")]
        assert re.fullmatch(r"test_a\.py \.\. +\[100%\]", line)
        assert "━" not in shown.text
        assert "tok/s  TTFT" not in shown.text
        assert "kitt results" in shown.text


def test_verbose_lines_and_several_loads(pytester: pytest.Pytester) -> None:
    """With -v too a bar lies below the item's line; each load shows its label, as it is, and the phases have names."""
    pytester.makepyfile(
        test_a="""
        def test_two(kitt_load):
            kitt_load("closed:2", "synthetic:8:8", "requests:4")
            kitt_load("poisson:20/s", "synthetic:8:8", "seconds:1", label="[red]x[/] \\x1b[2J", warmup=30)
        """
    )
    with terminal(pytester, *FAST, "-v", "test_a.py", size=(160, 150)) as shown:
        seen = shown.until(re.compile(r"^test_two\S* \[red\]x\[/\] ·\[2J  ┄+  warm-up \d+/30", re.MULTILINE).search)
        lines = seen.splitlines()
        (bar,) = [n for n, line in enumerate(lines) if "warm-up" in line]
        assert re.fullmatch(r"test_a\.py::test_two\[simulated-simulated\]", lines[bar - 1])
        shown.until(re.compile(r"\[2J  [━┄]+  [01]/1 s  \d+ requests").search)
        assert shown.rest() == 0
        assert re.search(r"^test_a\.py::test_two\[simulated-simulated\] PASSED +\[100%\]$", shown.text, re.MULTILINE)
        assert "warm-up" not in shown.text


def test_an_engine_that_takes_its_time(pytester: pytest.Pytester) -> None:
    """While an engine starts, its cell and the seconds are there; then they are gone."""
    pytester.makepyfile(conftest=SLOW, test_a="def test_a(kitt_engine):\n    assert kitt_engine.url\n")
    with terminal(pytester, *FAST, "test_a.py") as shown:
        shown.until(re.compile(r"^simulated-simulated starts  [12] s$", re.MULTILINE).search)
        assert shown.rest() == 0
        assert "simulated-simulated starts" not in shown.text


IMAGE = "registry.example/mine:1"
CONTAINED = """
name: mine
description: x
default_model: m
runtimes: {container: {command: ["{port}"]}}
images: [{image: "registry.example/mine:1"}]
"""


class Pull:
    """What Docker says while it pulls: a small layer, and a large one that grows.

    Attributes:
        seen: ends it.
        rounds: end it too, each of a twentieth of a second.

    """

    def __init__(self) -> None:
        self.seen = threading.Event()
        self.rounds = 10_000

    def __iter__(self) -> Iterator[dict[str, Any]]:
        layers = {"a": 10_000_000, "b": 30_000_000}
        for mb in range(1, self.rounds):
            for name, total in layers.items():
                current = min(mb * 1_000_000, total - 1_000_000)
                detail = {"current": current, "total": total}
                yield {"status": "Downloading", "id": name, "progressDetail": detail}
            if self.seen.wait(0.05):
                break
        for name in layers:
            yield {"status": "Download complete", "id": name}


@pytest.fixture
def pull(pytester: pytest.Pytester, private_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pull]:
    """An engine in a container whose image has to be pulled, by a Docker that takes its time."""
    (private_home / "engines").mkdir()
    (private_home / "engines" / "mine.yaml").write_text(CONTAINED)
    pytester.makepyfile(test_a="def test_a(kitt_engine):\n    assert kitt_engine.url\n")
    pull = Pull()
    with tempfile.TemporaryDirectory(prefix="kd") as folder, docker_api(Path(folder) / "d.sock", pull_says=pull) as api:
        monkeypatch.setenv("DOCKER_HOST", api.address)
        yield pull
        pull.seen.set()


PULLS = ("--kitt-engine=mine", "--kitt-auto-pull", "test_a.py")


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["plain", "workers"])
def test_an_image_that_is_pulled(pytester: pytest.Pytester, pull: Pull, workers: tuple[str, ...]) -> None:
    """A bar with the bytes of all layers, as of a model; then it is gone."""
    worker = "gw0 " if workers else ""
    bar = re.compile(rf"^{worker}test_a\[mine-m\] {IMAGE}  ━+┄+  [1-9]\d/40 MB  0:\d\d left$", re.MULTILINE)
    with terminal(pytester, *PULLS, *workers, size=(120, 24)) as shown:
        shown.until(bar.search)
        pull.seen.set()
        assert shown.rest() == 0
        assert IMAGE not in shown.text.partition("test_a.py")[2]


def test_an_image_that_is_pulled_into_a_log(pytester: pytest.Pytester, pull: Pull) -> None:
    """A line now and then."""
    pytester.makepyfile(conftest=HASTY)
    pull.rounds = 60
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *PULLS)
    assert result.ret == 0
    line = re.compile(rf"kitt: test_a.py::test_a\[mine-m\]: {IMAGE}: \d+ of 40 MB, 0:\d\d left")
    assert any(line.fullmatch(said) for said in result.outlines), result.outlines


def test_a_pull_under_q(pytester: pytest.Pytester, pull: Pull) -> None:
    """Nothing moves."""
    pytester.makepyfile(conftest=HASTY)
    pull.rounds = 30
    with terminal(pytester, *PULLS, "-q") as shown:
        assert shown.rest() == 0, shown.text
        assert b"\x1bD" not in shown.raw
        assert b" MB" not in shown.raw


def test_questions(pytester: pytest.Pytester) -> None:
    """A quality item counts its questions."""
    pytester.makepyfile(test_a="def test_a(kitt_evaluate):\n    kitt_evaluate(concurrency=1, limit=50)\n")
    with terminal(pytester, *FAST, "--kitt-engine-arg=ttft_ms=60", "test_a.py", size=(120, 24)) as shown:
        shown.until(re.compile(r"[━┄]  [1-9]\d?/50 questions").search)
        assert shown.rest() == 0


@pytest.mark.parametrize("verbose", [[], ["-v"]], ids=["dots", "verbose"])
def test_a_bar_for_each_worker(pytester: pytest.Pytester, verbose: list[str]) -> None:
    """With -n 2 both workers have a bar below pytest's line, results are written as ever, and all bars go."""
    pytest.importorskip("xdist")
    pytester.makepyfile(test_a=TIMED + "def test_short(kitt_engine):\n    assert kitt_engine.url\n")
    cells = ("--kitt-engine=simulated", "--kitt-model=a,b", "--kitt-overlap=allowed", *FAST[1:])
    with terminal(pytester, *cells, "-n2", *verbose, "test_a.py", size=(120, 150)) as shown:
        both = [re.compile(rf"^gw{n} test_timed\[simulated-[ab]\]  [━┄]+  ", re.MULTILINE) for n in (0, 1)]
        lines = shown.until(lambda text: all(one.search(text) for one in both)).splitlines()
        assert all(re.match(r"gw[01] ", line) for line in lines[-2:])
        assert shown.cursor[1] == len(lines) - 3
        assert shown.rest() == 0
        assert not re.search(r"^gw[01] ", shown.text, re.MULTILINE)
        assert "4 passed" in shown.text
        if verbose:
            passed = re.findall(
                r"^\[gw[01]\] \[ *\d+%\] PASSED test_a\.py::test_\w+\[simulated-[ab]\]$", shown.text, re.MULTILINE
            )
            assert len(passed) == 4
        else:
            assert re.search(r"^\.\.\.\. +\[100%\]$", shown.text, re.MULTILINE)


def test_the_bar_of_a_dead_worker_goes(pytester: pytest.Pytester) -> None:
    """A worker that is killed takes its bar with it; the others' stay."""
    pytest.importorskip("xdist")
    pytester.makepyfile(
        test_a="""
        import os
        from pathlib import Path

        def test_long(kitt_load, kitt_cell):
            Path(f"{kitt_cell.id}.pid").write_text(str(os.getpid()))
            kitt_load("closed:1", "synthetic:8:4", "seconds:300")
        """
    )
    cells = ("--kitt-engine=simulated", "--kitt-model=a,b", "--kitt-overlap=allowed", *FAST[1:])
    with terminal(pytester, *cells, "-n2", "--max-worker-restart=0", "test_a.py", size=(160, 150)) as shown:
        measuring = re.compile(r"^gw\d test_long\[simulated-([ab])\]  [━┄]+  \d+/300 s", re.MULTILINE)
        shown.until(lambda text: {"a", "b"} <= set(measuring.findall(text)))
        os.kill(int((pytester.path / "simulated-a.pid").read_text()), signal.SIGKILL)
        shown.until(lambda text: "crashed" in text and measuring.findall(text) == ["b"])
        shown.process.send_signal(signal.SIGINT)
        assert shown.rest() == 2
        assert not measuring.search(shown.text)


def test_quiet_is_quiet(pytester: pytest.Pytester) -> None:
    """Under -q nothing moves on a terminal, with workers or without, and nothing of ours is written meanwhile."""
    pytester.makepyfile(conftest=HASTY, test_a=TIMED)
    for extra in ((), ("-n1",)):
        with terminal(pytester, *FAST, "-q", *extra, "test_a.py") as shown:
            assert shown.rest() == 0
            assert b"\x1bD" not in shown.raw
            assert b"requests," not in shown.raw
            assert b"starts" not in shown.raw


def test_colours_and_dumb_terminals(pytester: pytest.Pytester) -> None:
    """NO_COLOR takes the colours and leaves the bar; a dumb terminal gets lines."""
    pytester.makepyfile(conftest=HASTY, test_a=TIMED)
    coloured, dumb = re.compile("\x1b\\[[0-9;]*m━".encode()), re.compile(rb"kitt: test_a\S+: \d of 2 s, \d+ requests")
    for env, colour, bar, line in (({}, 1, 1, 0), ({"NO_COLOR": "1"}, 0, 1, 0), ({"TERM": "dumb"}, 0, 0, 1)):
        with terminal(pytester, *FAST, "test_a.py", size=(90, 10), **env) as shown:
            assert shown.rest() == 0
            assert bool(coloured.search(shown.raw)) == bool(colour)
            assert (b"\x1bD" in shown.raw) == bool(bar)
            assert bool(dumb.search(shown.raw.replace(b"\r\n", b""))) == bool(line)


@pytest.mark.parametrize("extra", [(), ("-n1",), ("-v",), ("-s",)], ids=["plain", "workers", "verbose", "uncaptured"])
def test_lines_in_a_log(pytester: pytest.Pytester, extra: tuple[str, ...]) -> None:
    """Where there is no terminal an item writes a line now and then, each on a line of its own."""
    pytester.makepyfile(conftest=HASTY + SLOW, test_a=TIMED)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *FAST, *extra, "test_a.py")
    assert result.ret == 0
    worker = "gw0: " if "-n1" in extra else ""
    lead = rf"kitt: {worker}test_a\.py::test_timed\[simulated-simulated\]: "
    for line in (
        rf"{lead}simulated-simulated starts, [12] s so far",
        rf"{lead}[12] of 2 s, \d+ requests, .*\d tok/s.*",
    ):
        assert any(re.fullmatch(line, said) for said in result.outlines), result.outlines
    assert not any("\x1b" in said for said in result.outlines)


def test_without_a_terminal_reporter(pytester: pytest.Pytester) -> None:
    """With -p no:terminal nothing is shown, and nothing breaks."""
    pytester.makepyfile(conftest=HASTY, test_a=TIMED)
    for size in (None, (80, 24)):
        if size is None:
            result = pytester.runpytest_subprocess("-p", "no:terminal", "-p", "no:cacheprovider", *FAST, "test_a.py")
            assert (result.ret, result.outlines) == (0, [])
        else:
            with terminal(pytester, "-p", "no:terminal", *FAST, "test_a.py", size=size) as shown:
                assert (shown.rest(), shown.raw) == (0, b"")


def test_reports_that_carried_progress_are_not_kept(pytester: pytest.Pytester) -> None:
    """The terminal's lists have no report of ours: in a session of hours there would be hundreds of thousands."""
    pytester.makepyfile(
        conftest="""
        def pytest_terminal_summary(terminalreporter):
            kept = [r.when for reports in terminalreporter.stats.values() for r in reports if hasattr(r, "when")]
            terminalreporter.write_line(f"KEPT {sorted(kept)}")
        """,
        test_a=TIMED,
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *FAST, "test_a.py")
    result.stdout.fnmatch_lines(["KEPT ['call', 'setup', 'teardown']"])
