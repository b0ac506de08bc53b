"""How is compose called? Docker's plugin or the older docker-compose, whichever is there, through pytest-docker.

https://docs.docker.com/reference/cli/docker/compose/
"""

from __future__ import annotations

import concurrent.futures
import datetime
import functools
import importlib.util
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_kitt.composefile import Service
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.engine.watchdog import MARK, kill_marked
from pytest_kitt.errors import EngineStartError

_POLL_S = 0.1
_SAID_CHARS = 500
_IN_DOUBLE_QUOTES = re.compile(r'([\\"$`])')  # what a shell reads there: pytest-docker puts names of files into them


class Project:
    """A compose project of one session."""

    def __init__(self, docker: Docker, service: Service, *, mark: str = "", override: Path | None = None) -> None:
        from pytest_docker.plugin import DockerComposeExecutor

        self.docker, self.service = docker, service
        self.name = f"kitt-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        self.files = [service.file, *([override] if override else [])]
        self._mark = f"{mark}.compose" if mark else ""
        self._program = program()
        profiles = {"COMPOSE_PROFILES": ",".join(service.profiles)} if service.profiles else {}
        env = {**docker.environment, **profiles, **({MARK: self._mark} if mark else {})}
        # docker-compose is written in Python, and what pytest imports is not for it
        clean = ["env", "-u", "PYTHONPATH", *(f"{name}={value}" for name, value in env.items())]
        command = shlex.join([*clean, *self._program])
        files = [_IN_DOUBLE_QUOTES.sub(r"\\\1", str(file)) for file in self.files]
        self._executor = DockerComposeExecutor(command, files, self.name)

    @property
    def down_command(self) -> str:
        """What ends it by hand, with its anonymous volumes and no others."""
        words = shlex.join([*self._program, "-f", str(self.service.file), "-p", self.name])
        return f"{words} rm -fsv && {words} down"

    def ask(self, words: str, **options: Any) -> str:
        """What a subcommand prints; EngineStartError (compose) with what it says when it fails."""
        try:
            said = self._executor.execute(words, **options)
        except Exception as error:  # pytest-docker raises nothing more exact
            quoted = str(error).partition('"""')[2].removesuffix('""".').removesuffix('"""')
            raise EngineStartError(_last(quoted or str(error)), kind="compose") from error
        return bytes(said).decode("utf-8", "replace")

    def run(self, words: str, *, timeout_s: float, on_poll: Callable[[], None]) -> None:
        """Runs a subcommand that takes its time; one that is not let finish is killed."""
        deadline = time.monotonic() + timeout_s
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="kitt-compose") as pool:
            future = pool.submit(self.ask, words)
            try:
                while not concurrent.futures.wait([future], _POLL_S).done and time.monotonic() < deadline:
                    on_poll()
            finally:
                in_time = future.done()
                while not future.done():
                    kill_marked(self._mark)
                    time.sleep(_POLL_S)
        if not in_time:
            raise EngineStartError(
                f"{self.service.file} was not up after {timeout_s:g} s; give it more with --kitt-start-timeout",
                kind="timeout",
            )
        future.result()


def absent(docker_trouble: str) -> str:
    """What is not here that compose needs, in one sentence with the cure; empty when all is."""
    if importlib.util.find_spec("pytest_docker") is None:
        return "--kitt-compose needs pytest-docker: pip install 'pytest-kitt[compose]'"
    if docker_trouble:
        return docker_trouble
    if not program():
        return (
            "neither docker compose nor docker-compose is installed: apt-get install docker-compose-plugin (or "
            "docker-compose), https://docs.docker.com/compose/install/"
        )
    return ""


@functools.cache
def program() -> tuple[str, ...]:
    """The words that call compose: Docker's plugin, else the older program; none where neither is here."""
    if shutil.which("docker"):
        plugin = ["docker", "compose", "version"]
        done = subprocess.run(plugin, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else ()


def _last(said: str) -> str:
    return " ".join(said.split())[-_SAID_CHARS:]
