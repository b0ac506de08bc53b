"""Is a device lent to one at a time, in turn, whoever dies meanwhile?"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pwd
import queue
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kitt.engine import lease, lock, orphans
from pytest_kitt.engine.lease import Holder, Need, held, port
from pytest_kitt.engine.watchdog import MARK, marked
from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.hardware import identity

NOBODY = 65534
DEADLINE_S = 60.0
ME = identity.user()
GPU, TWO, MACHINE = Need(gpus=1), Need(gpus=2), Need(machine=True)

# takes what each line on stdin asks for and gives it back at the next line; whoever has something leaves a sign, and
# cries if a living one's is there that excludes it
ACTOR = """
import json, os, subprocess, sys, time
from pathlib import Path
from pytest_kitt.engine import orphans
from pytest_kitt.engine.lease import Holder, Need, held
from pytest_kitt.errors import EngineStartError
from pytest_kitt.hardware import gpus

def say(*words):
    print(*words, flush=True)

def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def occupy(name):
    try:
        os.symlink(str(os.getpid()), signs / name)
    except FileExistsError:
        if lives(os.readlink(signs / name)):
            say("CLASH", name)
        os.unlink(signs / name)
        os.symlink(str(os.getpid()), signs / name)
    for other in signs.iterdir():
        if (other.name == "machine") != (name == "machine") and lives(os.readlink(other)):
            say("CLASH", name, other.name)

gpus._uuids = tuple  # no GPU of this machine takes part
me = json.loads(sys.argv[1])
folder, signs = Path(me["folder"]), Path(me["signs"])
orphans._PATIENCE_S = me.get("patience_s", orphans._PATIENCE_S)
if "uid" in me:
    os.setgroups([])
    os.setgid(me["uid"])
    os.setuid(me["uid"])
for line in iter(sys.stdin.readline, ""):
    order = json.loads(line)
    engine = order.pop("engine", False)
    holder = Holder("run", me["cell"], me["mark"])
    try:
        with held(Need(**order), inventory=me["inventory"], folder=folder, holder=holder,
                  on_wait=lambda sentence: say("waits", sentence)) as lease:
            for name in lease.gpus or ["machine"]:
                occupy(name)
            if engine:
                env = {**os.environ, "KITT_MARK": me["mark"] + ".engine"}
                process = subprocess.Popen(["sleep", "60"], env=env, start_new_session=True,
                                           stdout=subprocess.DEVNULL)
                lease.note(process.pid)
                while not Path(f"/proc/{process.pid}/environ").read_bytes():  # for a moment of its start it has none
                    time.sleep(0.01)
                say("engine", process.pid)
            say("has", *lease.gpus)
            sys.stdin.readline()
            for name in lease.gpus or ["machine"]:
                os.unlink(signs / name)
        say("freed")
    except EngineStartError as error:
        say("refused", error.kind, error)
"""


class Actor:
    """A process that takes and gives back as it is told."""

    def __init__(self, cell: str, folder: Path, inventory: str = "0123", **more: object) -> None:
        self.cell, self.mark = cell, uuid.uuid4().hex
        signs = folder.parent / "signs"
        signs.mkdir(exist_ok=True)
        signs.chmod(0o777)
        me = {"cell": cell, "mark": self.mark, "folder": str(folder), "signs": str(signs), "inventory": list(inventory)}
        self.errors = folder.parent / f"{cell}.errors"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ACTOR, json.dumps({**me, **more})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def asks(self, **need: object) -> str:
        """Sends what it shall take; returns what it says first."""
        self.tell(json.dumps(need))
        return self.says()

    def takes(self, **need: object) -> list[str]:
        """What it has after it was told to take it."""
        self.tell(json.dumps(need))
        return self.has()

    def has(self) -> list[str]:
        """Waits until it has what it asked for: the ids."""
        while not (said := self.says()).startswith("has"):
            assert said.startswith("waits"), said or self.errors.read_text()
        return said.split()[1:]

    def frees(self) -> None:
        """Gives back what it has."""
        self.tell("")
        while (said := self.says()) != "freed":
            assert said.startswith("waits"), said

    def tell(self, line: str) -> None:
        """Sends a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")

    def says(self) -> str:
        """Its next line; empty when it has ended."""
        return self._lines.get(timeout=DEADLINE_S)

    def said(self) -> list[str]:
        """The lines that are there already."""
        lines = []
        with contextlib.suppress(queue.Empty):
            while True:
                lines.append(self._lines.get_nowait())
        return lines

    def ends(self, number: int | None = None) -> int:
        """Ends it, by a signal or for want of orders; returns its exit code."""
        assert self.process.stdin is not None
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self._reader.join()
        return self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self._lines.put(line.strip())
        self._lines.put("")


Cast = Callable[..., Actor]


@pytest.fixture(name="folder")
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of leases of the test's own."""
    monkeypatch.setenv("KITT_LEASES", str(tmp_path / "leases"))
    monkeypatch.setattr("pytest_kitt.hardware.gpus._uuids", tuple)  # no GPU of this machine takes part
    return lease.folder()


@pytest.fixture
def cast(folder: Path) -> Iterator[Cast]:
    """Makes actors, and ends those that are left."""
    actors: list[Actor] = []

    def make(cell: str, inventory: str = "0123", where: Path = folder, **more: object) -> Actor:
        actors.append(Actor(cell, where, inventory, **more))
        return actors[-1]

    yield make
    for actor in actors:
        actor.ends(signal.SIGKILL)


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder of leases that another user can reach too."""
    if os.geteuid() != 0:
        pytest.skip("only root can act for two users")
    place = Path(tempfile.mkdtemp(prefix="kitt-test-"))
    place.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KITT_LEASES", str(place / "leases"))
        yield lease.folder()
    shutil.rmtree(place)


def lent(need: Need, folder: Path, inventory: str = "01", **more: object) -> contextlib.AbstractContextManager[object]:
    """A lease taken at once by this process, or refused."""
    holder = Holder("run", "mine", "no-such-mark")
    return held(need, inventory=list(inventory), folder=folder, holder=holder, **{"timeout_s": 0.0, **more})  # type: ignore[arg-type]


def tickets(folder: Path) -> list[str]:
    """Who is in the queue, dead or alive."""
    return [path.name for path in folder.glob("ticket-*")]


def pid_of(said: str) -> int:
    """The engine that an actor started."""
    word, pid = said.split()
    assert word == "engine"
    return int(pid)


@pytest.mark.parametrize(
    "first,second,together",
    [
        (GPU, GPU, True),
        (GPU, TWO, False),
        (TWO, GPU, False),
        (GPU, MACHINE, False),
        (MACHINE, GPU, False),
        (MACHINE, MACHINE, False),
        (Need(server="a:1"), Need(server="A:1"), False),
        (Need(server="a:1"), Need(server="a:2"), True),
        (Need(server="a:1"), MACHINE, False),
        (MACHINE, Need(server="a:1"), False),
        (GPU, Need(server="a:1"), True),
        (Need(gpus=2, server="a:1"), Need(server="a:1"), False),
        (MACHINE, Need(), True),
    ],
)
def test_what_goes_together(folder: Path, first: Need, second: Need, *, together: bool) -> None:
    """A load on the CPU is alone; those on different GPUs and servers overlap."""
    expected = contextlib.nullcontext() if together else pytest.raises(EngineStartError, match="gave up after 0 s")
    with lent(first, folder), expected, lent(second, folder):
        pass
    with lent(second, folder), lent(Need(), folder):
        pass
    assert not tickets(folder)


def test_ids_are_those_of_the_inventory(folder: Path) -> None:
    """Nothing is renumbered; the first that are free are taken, and freed whatever happens."""
    with (
        held(GPU, inventory=["7", "GPU-a", "2"], folder=folder, holder=Holder("r", "c", "m")) as one,
        held(TWO, inventory=["7", "GPU-a", "2"], folder=folder, holder=Holder("r", "c", "m")) as two,
    ):
        assert (one.gpus, two.gpus) == (("7",), ("GPU-a", "2"))
    with pytest.raises(ZeroDivisionError), lent(TWO, folder):
        _ = 1 / 0
    with lent(TWO, folder):
        assert json.loads((folder / "gpu-0.lock").read_text())["cell"] == "mine"
    assert (folder / "gpu-0.lock").read_text() == ""


def test_more_than_there_are(folder: Path) -> None:
    """The sentence has both numbers and the cure."""
    with pytest.raises(UserError, match=r"mine needs 3 GPUs, but there are 2 \(0, 1\): name more with --kitt-gpus"):
        lent(Need(gpus=3), folder).__enter__()
    with pytest.raises(UserError, match=r"mine needs 1 GPU, but there are 0 \(none found\)"):
        lent(GPU, folder, "").__enter__()
    assert not tickets(folder)


def test_who_is_waited_for(cast: Cast) -> None:
    """A sentence when waiting begins and when it changes: holders with what they hold, then those who come before."""
    big, small, third = cast("big"), cast("small"), cast("third")
    assert big.takes(gpus=3) == ["0", "1", "2"]
    assert small.takes(gpus=1) == ["3"]
    held_by = f"big ({ME}, pid {big.process.pid}) holds GPU 0, GPU 1, GPU 2"
    also = f"small ({ME}, pid {small.process.pid}) holds GPU 3"
    assert third.asks(gpus=2) == f"waits waiting for 2 GPUs of 4: {held_by}; {also}"
    cpu = cast("cpu")
    before = f"third ({ME}, pid {third.process.pid}) comes before"
    assert cpu.asks(machine=True) == f"waits waiting for this machine: {held_by}; {also}; {before}"
    small.frees()
    assert third.says() == f"waits waiting for 2 GPUs of 4: {held_by}"
    assert cpu.says() == f"waits waiting for this machine: {held_by}; {before}"


def test_a_cell_of_two_gpus_does_not_starve(cast: Cast) -> None:
    """One free GPU is not given to a later one meanwhile."""
    first, second, double, single = (cast(name, "01") for name in ("first", "second", "double", "single"))
    assert first.takes(gpus=1) + second.takes(gpus=1) == ["0", "1"]
    assert double.asks(gpus=2).startswith("waits")
    assert single.asks(gpus=1).startswith("waits")
    first.frees()
    assert "GPU 0" not in double.says()
    assert "GPU 0" not in single.says()  # it looked, saw GPU 0 free, and waits on
    second.frees()
    assert double.has() == ["0", "1"]
    double.frees()
    assert single.has() == ["0"]


def test_eight_processes_on_four_gpus(cast: Cast) -> None:
    """Never more than there are, everyone in turn, in the order of coming."""
    needs = [2, 1, 2, 1, 1, 2, 1, 2]
    actors = [cast(f"cell{number}") for number in range(len(needs))]
    waiting: list[tuple[Actor, int]] = []
    holding: dict[Actor, list[str]] = {}
    free = 4
    for actor, gpus in zip(actors, needs, strict=True):
        said = actor.asks(gpus=gpus)
        if not waiting and gpus <= free:
            holding[actor] = said.split()[1:]
            free -= gpus
        else:
            assert said.startswith("waits")
            waiting.append((actor, gpus))
        in_use = list(itertools.chain(*holding.values()))
        assert len(in_use) == len(set(in_use)) == 4 - free
    chance = random.Random(4)
    while holding:
        leaving = chance.choice(list(holding))
        leaving.frees()
        free += len(holding.pop(leaving))
        while waiting and waiting[0][1] <= free:
            actor, gpus = waiting.pop(0)
            holding[actor] = actor.has()
            free -= gpus
        in_use = list(itertools.chain(*holding.values()))
        assert len(in_use) == len(set(in_use)) == 4 - free
    assert not waiting
    assert [actor.ends() for actor in actors] == [0] * len(needs)


def test_those_who_want_other_gpus_do_not_wait(cast: Cast, folder: Path) -> None:
    """Two users with a half of the machine each have a queue each; whoever wants it all waits for both."""
    holder, waiter = cast("holder", "0"), cast("waiter", "0")
    holder.takes(gpus=1)
    assert waiter.asks(gpus=1).startswith("waits")
    with lent(GPU, folder, "1"):
        pass
    with lent(Need(server="a:1"), folder):
        pass
    with pytest.raises(EngineStartError), lent(GPU, folder, "01"):
        pass
    with pytest.raises(EngineStartError), lent(MACHINE, folder):
        pass


def test_a_killed_waiter_is_passed_over(cast: Cast, folder: Path) -> None:
    """Its ticket is removed by those behind it."""
    holder, dead, next_one = (cast(name, "0") for name in ("holder", "dead", "next"))
    holder.takes(gpus=1)
    assert dead.asks(gpus=1).startswith("waits")
    assert next_one.asks(gpus=1).startswith("waits")
    dead.ends(signal.SIGKILL)
    holder.frees()
    assert next_one.has() == ["0"]
    assert not tickets(folder)


@pytest.mark.parametrize("need", [GPU, MACHINE, Need(server="a:1")])
def test_what_a_killed_holder_left_ends_first(cast: Cast, folder: Path, need: Need) -> None:
    """Whoever has its device next finds its engine gone, even if all it shares with it is the machine."""
    holder = cast("holder")
    order = {"gpus": need.gpus, "machine": need.machine, "server": need.server, "engine": True}
    engine = pid_of(holder.asks(**order))
    holder.has()
    waiter = cast("waiter")
    assert waiter.asks(machine=True).startswith("waits")
    assert Path(f"/proc/{engine}").exists()
    holder.ends(signal.SIGKILL)
    waiter.has()
    assert not marked(holder.mark)
    waiter.frees()
    with lent(need, folder, "0"):
        pass


def test_a_gpu_cell_ends_what_a_killed_cpu_cell_left(cast: Cast, folder: Path) -> None:
    """Who holds the machine with others looks too."""
    holder = cast("holder")
    holder.asks(machine=True, engine=True)
    holder.has()
    holder.ends(signal.SIGKILL)
    assert marked(holder.mark)
    with lent(GPU, folder, timeout_s=20.0):
        assert not marked(holder.mark)
    assert (folder / "machine.lock").read_text() == ""


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"host": "another"}])
def test_what_is_of_another_boot_or_host_is_let_be(folder: Path, change: dict[str, str]) -> None:
    """A mark is looked for where its holder died."""
    mark = uuid.uuid4().hex
    left = {**identity.of_this_process(), "pid": 1, "start_time": "0", "mark": mark, **change}
    (folder / "gpu-0.lock").write_text(json.dumps(left))
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark}) as process:
        try:
            with lent(GPU, folder):
                assert process.poll() is None
        finally:
            process.kill()


def test_what_cannot_be_ended_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some seconds the error says whose it is; the device stays marked for the next one."""
    monkeypatch.setattr(orphans, "_PATIENCE_S", 0.1)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        engine = {"pid": process.pid, "start_time": identity.start_time(process.pid)}
        left = {**identity.of_this_process(), "start_time": "0", "cell": "old", "user": "ann", "engine": engine}
        (folder / "gpu-0.lock").write_text(json.dumps(left))
        sentence = rf"GPU 0 is not free: of old, which ann ran, .* from here: {process.pid}; end them"
        try:
            for _ in range(2):
                with pytest.raises(EngineStartError, match=sentence) as caught, lent(GPU, folder):
                    pass
                assert caught.value.kind == "lease"
        finally:
            process.kill()
    with lent(GPU, folder):
        pass


def test_a_holder_that_is_about_to_end_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock may be free a moment before it is gone; only then is it time for what it left."""
    monkeypatch.setattr(orphans, "_PATIENCE_S", 0.1)
    mark = uuid.uuid4().hex
    engine = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark})
    with engine, subprocess.Popen(["sleep", "60"]) as dying:
        identity_of = {"pid": dying.pid, "start_time": identity.start_time(dying.pid)}
        left = {**identity.of_this_process(), **identity_of, "mark": mark}
        (folder / "gpu-0.lock").write_text(json.dumps(left))
        try:
            with pytest.raises(EngineStartError, match=f"from here: {dying.pid};"), lent(GPU, folder):
                pass
            assert engine.poll() is None
            dying.kill()
            with lent(GPU, folder):
                assert engine.wait(DEADLINE_S) == -signal.SIGKILL
        finally:
            dying.kill()
            engine.kill()


def test_interrupt_while_waiting_leaves_nothing(cast: Cast, folder: Path) -> None:
    """Ctrl-C."""
    holder, waiter = cast("holder", "0"), cast("waiter", "0")
    holder.takes(gpus=1)
    assert waiter.asks(gpus=1).startswith("waits")
    assert len(tickets(folder)) == 1
    assert waiter.ends(signal.SIGINT) == -signal.SIGINT
    assert "KeyboardInterrupt" in waiter.errors.read_text()
    assert not tickets(folder)
    holder.frees()
    with lent(GPU, folder, "0"):
        pass


def test_no_child_inherits_a_lock(folder: Path) -> None:
    """Neither one that runs a program, nor one that goes on as a copy."""
    with lent(MACHINE, folder):
        seen = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
        )
    assert str(folder) not in seen.stdout
    forks = (
        "import os, sys, time\nfrom pathlib import Path\nfrom pytest_kitt.engine.lease import *\n"
        "with held(Need(machine=True), inventory=(), folder=Path(sys.argv[1]), holder=Holder('r', 'c', 'm')):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", forks, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            assert Path(f"/proc/{child}").exists()
            with lent(MACHINE, folder, timeout_s=20.0):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_copy_of_the_process_gives_nothing_back(folder: Path) -> None:
    """What a forked child unwinds is its parent's still."""
    unwinds = (
        "import os, sys\nfrom pathlib import Path\nfrom pytest_kitt.engine.lease import *\n"
        "with held(Need(machine=True), inventory=(), folder=Path(sys.argv[1]), holder=Holder('r', 'c', 'm')):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "        print('unwound', flush=True)\n"
        "        sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", unwinds, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "unwound\n"
        with pytest.raises(EngineStartError, match=r"c .* holds this machine"), lent(MACHINE, folder):
            pass


def test_a_file_that_is_removed_meanwhile_is_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking another may remove it, and a third lock a new one."""
    path, flock, first = folder / "gpu-0.lock", fcntl.flock, iter([True])

    def late(fd: int, how: int) -> None:
        if next(first, False):
            path.unlink()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with lock.wait_for(path) as taken:
        assert taken.is_in_place()
        assert lock.take(path) is None


def test_two_names_of_one_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index and a UUID are one device where the driver says so, also within one inventory."""
    monkeypatch.setattr("pytest_kitt.hardware.gpus._uuids", lambda: ("GPU-aa", "GPU-bb"))
    holder = Holder("run", "mine", "no-such-mark")
    with held(GPU, inventory=["1"], folder=folder, holder=holder) as taken:
        assert taken.gpus == ("1",)
        with (
            pytest.raises(EngineStartError, match=r"waiting for 1 GPU of 1: .* holds GPU GPU-bb"),
            held(GPU, inventory=["GPU-bb", "1"], folder=folder, holder=holder, timeout_s=0.0),
        ):
            pass
        with held(GPU, inventory=["GPU-aa"], folder=folder, holder=holder, timeout_s=0.0):
            pass
        with pytest.raises(EngineStartError, match=r"holds GPU bb$"), lent(MACHINE, folder):
            pass


def test_all_users_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask: a sticky folder, files open to all."""
    monkeypatch.setenv("KITT_LEASES", str(tmp_path / "a" / "leases"))
    before = os.umask(0o077)
    try:
        folder = lease.folder()
        with lent(TWO, folder), port(folder):
            modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert modes == {0o666}
    assert lease.folder() == folder


def test_a_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, with the variable that names another."""
    (tmp_path / "file").touch()
    for place in ("file", "file/leases"):
        monkeypatch.setenv("KITT_LEASES", str(tmp_path / place))
        with pytest.raises(UserError, match="KITT_LEASES"):
            lease.folder()
    with pytest.raises(UserError, match=r"queue.lock cannot be used: .* KITT_LEASES"), lent(GPU, tmp_path / "none"):
        pass


@pytest.mark.parametrize("trap", ["symlink", "hardlink", "fifo", "folder"])
def test_no_foreign_file_is_touched(folder: Path, tmp_path: Path, trap: str) -> None:
    """What lies under a lock's name and is no plain file of that one name is left alone."""
    treasure, lure = tmp_path / "treasure", folder / "gpu-0.lock"
    treasure.write_text("mine")
    treasure.chmod(0o600)
    make: dict[str, Callable[[], object]] = {
        "symlink": lambda: lure.symlink_to(treasure),
        "hardlink": lambda: lure.hardlink_to(treasure),
        "fifo": lambda: os.mkfifo(lure),
        "folder": lure.mkdir,
    }
    make[trap]()
    with pytest.raises(UserError, match=r"gpu-0.lock .* KITT_LEASES"), lent(GPU, folder):
        pass
    assert treasure.read_text() == "mine"
    assert stat.S_IMODE(treasure.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "\x00" * 99, "[" * 60000, '{"pid": "../1", "engine": 3, "mark": null}']
)
def test_what_others_wrote_is_not_trusted(folder: Path, text: str) -> None:
    """Nonsense in a lock or a ticket stops nobody."""
    for name in ("gpu-0.lock", "machine.lock", "ticket-3"):
        (folder / name).write_text(text)
    with lent(GPU, folder):
        pass
    assert not tickets(folder)


def test_what_others_wrote_is_fit_for_a_terminal(folder: Path) -> None:
    """No escape sequence gets through."""
    with lock.wait_for(folder / "gpu-0.lock") as taken:
        taken.write({**identity.of_this_process(), "cell": "\x1b[31mred", "user": "x" * 999})
        with pytest.raises(EngineStartError) as caught, lent(GPU, folder, "0"):
            pass
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_two_users_share_a_machine(cast: Cast, common: Path) -> None:
    """Each opens what the other made, is told the other's name, and takes turns."""
    nobody = pwd.getpwuid(NOBODY).pw_name
    mine, theirs = cast("mine", "0", common), cast("theirs", "0", common, uid=NOBODY)
    for one, other, user in ((theirs, mine, nobody), (mine, theirs, ME)):
        assert one.takes(gpus=1) == ["0"]
        said = other.asks(gpus=1)
        assert f"{one.cell} ({user}, pid {one.process.pid}) holds GPU 0" in said
        one.frees()
        assert other.has() == ["0"]
        other.frees()
    assert {path.stat().st_uid for path in common.iterdir()} == {NOBODY}


def test_another_users_dead_ticket_is_passed_over(cast: Cast, common: Path) -> None:
    """It cannot be removed from a sticky folder."""
    holder, dead, theirs = (cast(n, "0", common) for n in ("holder", "dead", "spare"))
    holder.takes(gpus=1)
    dead.asks(gpus=1)
    theirs = cast("theirs", "0", common, uid=NOBODY)
    assert "dead" in theirs.asks(gpus=1)
    dead.ends(signal.SIGKILL)
    holder.frees()
    assert theirs.has() == ["0"]
    assert len(tickets(common)) == 1


def test_another_users_orphans(cast: Cast, common: Path) -> None:
    """Root ends them; who cannot is told whose they are."""
    dead = cast("dead", "0", common, uid=NOBODY)
    dead.asks(gpus=1, engine=True)
    dead.has()
    dead.ends(signal.SIGKILL)
    mine = cast("mine", "0", common)
    engine = pid_of(mine.asks(gpus=1, engine=True))
    mine.has()
    assert not marked(dead.mark)
    mine.ends(signal.SIGKILL)
    try:
        theirs = cast("theirs", "0", common, uid=NOBODY, patience_s=0.2)
        said = theirs.asks(gpus=1)
        assert said.startswith(f"refused lease GPU 0 is not free: of mine, which {ME} ran,")
        assert f"sudo kill -9 {engine}" in said
    finally:
        os.kill(engine, signal.SIGKILL)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_nobody_shares(cast: Cast, folder: Path, seed: int) -> None:
    """Taking, giving back and killing in any order: none who exclude each other meet, and all have their turn."""
    chance = random.Random(seed)
    state = {cast(f"a{number}"): "idle" for number in range(4)}

    def follow(actor: Actor, *more: str) -> None:
        for line in (*more, *actor.said()):
            assert "CLASH" not in line
            state[actor] = {"waits": "waits", "has": "has", "freed": "idle"}[line.split()[0]]

    def move(actor: Actor, *, mortal: bool) -> None:
        follow(actor)
        if state[actor] != "idle" and mortal and chance.random() < 0.3:
            actor.ends(signal.SIGKILL)
            del state[actor]
            state[cast(f"b{uuid.uuid4().hex}")] = "idle"
        elif state[actor] == "has":
            actor.tell("")
            follow(actor, actor.says())
        elif state[actor] == "idle" and mortal:
            actor.tell(json.dumps(chance.choice([{"gpus": 1}, {"gpus": 2}, {"gpus": 3}, {"machine": True}])))
            follow(actor, actor.says())

    for _ in range(40):
        move(chance.choice(list(state)), mortal=True)
    while set(state.values()) != {"idle"}:
        for actor in list(state):
            move(actor, mortal=False)
        time.sleep(0.01)
    for actor in state:
        assert actor.ends() == 0, actor.errors.read_text()
    with lent(MACHINE, folder, timeout_s=20.0):
        assert not tickets(folder)


def test_ports_are_not_drawn_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by another session, nor while anything listens there."""
    with port(folder) as first, port(folder) as second:
        assert first != second
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", first))
        listener.listen()
        with port(folder) as third:
            assert third != first
        monkeypatch.setattr(lease, "_PORTS", range(first, first + 1))
        with pytest.raises(EngineStartError, match="no port") as caught, port(folder):
            pass
    assert caught.value.kind == "port"
