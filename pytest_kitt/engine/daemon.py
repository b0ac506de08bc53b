"""How does a session talk to Docker? Through testcontainers' client, to the daemon that ``dockerd.address`` names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_kitt.engine.dockerd import Docker, trouble
from pytest_kitt.errors import EngineStartError

if TYPE_CHECKING:
    from docker import DockerClient

_TIMEOUT_S = 120  # creating a container on a busy machine takes a while


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """A daemon that goes away in the middle is an EngineStartError (docker), in one sentence."""
    import requests

    try:
        yield
    except requests.RequestException as error:
        reason = " ".join(str(error).split())[:200]
        raise EngineStartError(f"Docker does not answer any more: {reason}", kind="docker") from error


@contextlib.contextmanager
def connected(docker: Docker) -> Iterator[DockerClient]:
    """The client, closed at the end; EngineStartError (missing) when the daemon cannot be used.

    Only the connection is testcontainers': its container class would start its reaper, for which one setting holds
    in all of the process, and would pull images unasked.
    """
    if absent := trouble(docker):
        raise EngineStartError(absent, kind="missing")
    from testcontainers.core.docker_client import DockerClient

    before = os.environ.get("DOCKER_HOST")
    try:
        client = DockerClient(environment=docker.environment, timeout=_TIMEOUT_S).client
    finally:  # testcontainers writes the context's address into the environment
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
    try:
        yield client
    finally:
        client.close()
