"""Is an engine that died or hangs found out, with the right reason, and one that takes its time left alone?"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pytest_kitt.cards import EngineCard
from pytest_kitt.engine.health import Health, Watch
from pytest_kitt.engine.lives import Lives
from pytest_kitt.engine.oom import KillCounter
from pytest_kitt.errors import EngineDiedError

CARD = EngineCard(name="mine", description="x")
Answer = Callable[[httpx.Request], httpx.Response]


@dataclass
class Process:
    """An engine's process, as far as health looks at it."""

    log: Path
    code: int | None = None
    kills: KillCounter | None = None
    what: str = "process 7"

    def killed_for_memory(self) -> bool | None:
        """As counted."""
        return self.kills.risen() if self.kills else None

    def exit_code(self) -> int | None:
        """As scripted."""
        return self.code


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Lets it pass."""
        self.now_s += seconds


def refuse(_: httpx.Request) -> httpx.Response:
    """As a port on which nobody listens."""
    raise httpx.ConnectError("connection refused")


def status(code: int) -> Answer:
    """A server that gives this answer to everything."""
    return lambda _: httpx.Response(code)


def hanging(clock: Clock) -> Answer:
    """A server that takes all the time that it is given."""

    def answer(request: httpx.Request) -> httpx.Response:
        clock.sleep(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("timed out")

    return answer


def engine(answer: Answer, process: Process | None = None, usual: int = 200) -> Health:
    """The health of an engine that answers so."""
    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://engine:1")
    return Health(CARD, http, process, usual_status=usual)


def diagnosed(patient: Health) -> EngineDiedError | None:
    """The diagnosis, without waiting."""
    clock = Clock()
    return patient.diagnosis(clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize(
    "code, log, kind, sentence",
    [
        (3, "oh\n", "died", "mine ended with exit code 3 after it had been ready"),
        (0, "", "died", "mine ended with exit code 0 after it had been ready"),
        (-11, "", "died", "mine was killed by signal 11 (SIGSEGV) after it had been ready"),
        (-9, "", "memory", "(SIGKILL) after it had been ready: most likely by the kernel, for want of memory"),
        (1, "CUDA out of memory\n", "memory", "exit code 1 after it had been ready: there is not enough memory"),
    ],
)
def test_how_a_process_ended(tmp_path: Path, code: int, log: str, kind: str, sentence: str) -> None:
    """Exit code, class and the end of the log."""
    file = tmp_path / "log"
    file.write_text(log)
    dead = engine(status(200), Process(file, code)).ailment()
    assert dead is not None
    assert (dead.kind, dead.log_tail) == (kind, log.strip())
    assert str(dead).splitlines()[0].endswith(sentence)
    assert engine(status(200), Process(file)).ailment() is None


@pytest.mark.parametrize("now, kind, words", [(3, "memory", "the kernel killed"), (2, "died", "somebody sent it")])
def test_a_kill_is_checked_against_the_kernels_count(tmp_path: Path, now: int, kind: str, words: str) -> None:
    """SIGKILL with a count that has risen is want of memory; with one that has not, somebody sent it."""
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\noom 7\noom_kill 2\n")
    patient = engine(status(200), Process(tmp_path / "log", -signal.SIGKILL, KillCounter(counter, 2)))
    counter.write_text(f"low 0\noom 7\noom_kill {now}\n")
    dead = patient.ailment()
    assert dead is not None
    assert dead.kind == kind
    assert words in str(dead)


@pytest.mark.parametrize(
    "groups, file",
    [
        ("0::/user/a.scope\n", "user/a.scope/memory.events"),
        ("0::/host/path\n", "memory.events"),
        ("5:cpu:/x\n4:memory:/c1\n0::/\n", "memory/c1/memory.oom_control"),
        ("4:memory:/host/path\n0::/\n", "memory/memory.oom_control"),
    ],
)
def test_both_versions_of_control_groups(tmp_path: Path, groups: str, file: str) -> None:
    """The count is found in the process's own group, or at the mount of a container."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(groups)
    path = tmp_path / "mount" / file
    path.parent.mkdir(parents=True)
    path.write_text("oom_kill_disable 0\noom_kill 4\n")
    counter = KillCounter.of(7, proc=tmp_path, mount=tmp_path / "mount")
    assert counter == KillCounter(path, 4)
    assert counter.risen() is False
    path.write_text("oom_kill 5\n")
    assert counter.risen() is True
    path.unlink()
    assert counter.risen() is None


def test_no_control_groups(tmp_path: Path) -> None:
    """Where nothing counts nothing is claimed."""
    assert KillCounter.of(7, proc=tmp_path, mount=tmp_path) == KillCounter(None)
    assert KillCounter(None).risen() is None
    KillCounter.of(os.getpid())  # whatever there is here, it can be asked


@pytest.mark.parametrize("code", [200, 401, 404])
def test_any_answer_that_is_no_server_error_is_life(code: int) -> None:
    """Not every server has a health path."""
    assert engine(status(code)).problem() == ""
    assert diagnosed(engine(status(code))) is None


def test_server_errors_count_unless_they_are_usual() -> None:
    """A gateway may answer 502 where there is nothing, while all is well."""
    assert engine(status(503)).problem() == "status 503"
    assert engine(status(502), usual=502).problem() == ""


def test_three_bad_answers_in_a_row_are_a_hang(tmp_path: Path) -> None:
    """Two are none; the sentence says what was asked and what came."""
    answers = iter([500, 500, 200, 500, 500, 500])
    patient = engine(lambda _: httpx.Response(next(answers)), Process(tmp_path / "log", what="process 123456789"))
    assert diagnosed(patient) is None
    dead = diagnosed(patient)
    assert dead is not None
    assert dead.kind == "hung"
    assert "its process 123456789 runs, but http://engine:1/health failed 3 times in a row: status 500" in str(dead)


def test_a_process_that_ends_while_it_is_asked_is_dead(tmp_path: Path) -> None:
    """The port is closed a moment before the process is gone."""
    process = Process(tmp_path / "log")

    def dying(request: httpx.Request) -> httpx.Response:
        process.code = 1
        return refuse(request)

    dead = diagnosed(engine(dying, process))
    assert dead is not None
    assert dead.kind == "died"


def looks(watch: Watch, clock: Clock, seconds: float, *, reads: int = 7, in_flight: int = 4) -> None:
    """What a load's conversation does for some seconds in which nothing comes."""
    end = clock() + seconds
    while clock() < end:
        watch.look(reads, in_flight)
        clock.sleep(0.25)


@pytest.mark.parametrize("how", ["hangs", "refuses"])
def test_a_hang_is_noticed_within_twelve_seconds(how: str) -> None:
    """From the last byte to the error."""
    clock = Clock()
    watch = Watch(engine(hanging(clock) if how == "hangs" else refuse), clock, clock.sleep)
    with pytest.raises(EngineDiedError, match="3 times in a row"):
        looks(watch, clock, 60)
    assert 5 < clock() - 100 <= 12


def test_a_healthy_engine_may_take_its_time() -> None:
    """A long prefill is no hang; and where nothing is under way nobody asks."""
    asked: list[float] = []
    clock = Clock()

    def answer(_: httpx.Request) -> httpx.Response:
        asked.append(clock())
        return httpx.Response(200)

    watch = Watch(engine(answer), clock, clock.sleep)
    looks(watch, clock, 60)
    assert 10 <= len(asked) <= 12
    asked.clear()
    looks(watch, clock, 60, in_flight=0)
    for reads in range(100):
        looks(watch, clock, 4, reads=reads)
    assert not asked


def test_a_death_is_noticed_at_the_next_look(tmp_path: Path) -> None:
    """However much comes meanwhile."""
    process = Process(tmp_path / "log")
    clock = Clock()
    watch = Watch(engine(status(200), process), clock, clock.sleep)
    watch.look(1, 4)
    process.code = -9
    with pytest.raises(EngineDiedError, match="signal 9"):
        watch.look(2, 4)


def test_lives() -> None:
    """Each death allows another start while restarts are left; each is counted once and told in one item."""
    first, second = EngineDiedError("first\nlog", kind="died"), EngineDiedError("second", kind="hung")
    lives = Lives(restarts=1)
    assert not lives.lost
    lives.begin()
    lives.begin()  # another cell was measured in between
    assert lives.params() == {}
    lives.end(first, "a")
    lives.end(first, "b")
    assert (lives.lost, lives.over, lives.told_in, lives.params()) == (True, False, "a", {})
    lives.begin()
    assert (lives.lost, lives.params()) == (False, {"engine_starts": 2, "engine_died": "first"})
    lives.end(second)
    assert (lives.over, lives.told_in) == (True, "")
    with pytest.raises(EngineDiedError, match="second"):
        lives.begin()
    lives.end(second, "c")
    assert (lives.told_in, len(lives.deaths)) == ("c", 2)
