"""Which clients are there beside ours? By name: how to make each ready, and how to measure it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from benchmarks.peers import cclient, released, scripts, venvs
from benchmarks.peers.outcome import Load, Outcome
from benchmarks.truth.server import Truth

_SCRIPTS = {package.name: package for package in (scripts.AIOHTTP, scripts.HTTPX)}

CLIENTS: dict[str, Callable[[Truth, Load], Outcome]] = {
    "c": cclient.measure,
    **{name: functools.partial(scripts.measure, package) for name, package in _SCRIPTS.items()},
    **{name: functools.partial(released.measure, client) for name, client in released.CLIENTS.items()},
}
"""Each measures a running truth server that nothing else uses; RuntimeError says in one sentence why it could not."""


def prepare(name: str) -> str:
    """Makes a client's program or environment, unless it is there; its version.

    RuntimeError says in one sentence why it is impossible here.
    """
    if name in _SCRIPTS:
        venvs.make(_SCRIPTS[name])
        return _SCRIPTS[name].version
    if name in released.CLIENTS:
        return released.prepare(released.CLIENTS[name])
    return cclient.prepare()
