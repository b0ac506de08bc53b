"""Is a process told from another that has its pid?"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator

import pytest

from pytest_kitt.hardware import identity


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    """A shell that leads a session and has a child in it, whose pid it printed."""
    command = ["sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_this_process_is_alive() -> None:
    """By all that its identity says; another start, boot or pid is another process."""
    me = identity.of_this_process()
    assert identity.is_alive(me)
    assert identity.is_of_this_boot(me)
    assert me["pid"] == os.getpid()
    for change in ({"start_time": "1"}, {"boot_id": "x"}, {"pid": 2**22}, {"pid": str(os.getpid())}, {"pid": None}):
        assert not identity.is_alive({**me, **change}), change
    assert not identity.is_alive({})
    assert not identity.is_of_this_boot({**me, "host": "x"})
    assert not identity.is_of_this_boot({**me, "boot_id": "x"})
    assert identity.is_of_this_host({**me, "boot_id": "x"})


def test_one_that_only_waits_to_be_reaped_is_gone(leader: subprocess.Popen[str]) -> None:
    """A zombie holds nothing any more."""
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    me = {**identity.of_this_process(), "pid": leader.pid, "start_time": identity.start_time(leader.pid)}
    assert identity.is_alive(me)
    leader.kill()
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    assert identity.start_time(leader.pid)
    assert not identity.is_alive(me)
    os.kill(child, 9)


def test_members_of_a_session(leader: subprocess.Popen[str]) -> None:
    """Also when the leader is gone, but not when its number is another's."""
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    found = {"pid": leader.pid, "start_time": identity.start_time(leader.pid)}
    assert sorted(identity.session_members(found)) == sorted([leader.pid, child])
    assert identity.session_members({**found, "start_time": "1"}) == []
    leader.kill()
    leader.wait()
    assert identity.session_members(found) == [child]
    os.kill(child, 9)
    assert identity.session_members({"pid": "x"}) == []


def test_user() -> None:
    """By name."""
    assert identity.user() == pwd.getpwuid(os.geteuid()).pw_name


def test_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container may have it."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert identity.user() == "4000000"
