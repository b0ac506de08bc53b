"""Where does Docker listen, and what does it answer? The standard library alone: the watchdog has nothing else.

Docker Engine API, https://docs.docker.com/reference/api/engine/; contexts as the ``docker`` command keeps them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pytest_kitt.errors import UserError

_SOCKET = "/var/run/docker.sock"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORTS = {"tcp": 2375, "http": 2375, "https": 2376}
_OTHERWISE = "or run the engine another way: --kitt-runtime=process, embedded, or --kitt-url"


@dataclasses.dataclass(frozen=True, slots=True)
class Docker:
    """The address of a daemon.

    Attributes:
        host: ``unix:///path`` or ``tcp://host:port``.
        tls: folder with ca.pem, cert.pem and key.pem; empty without TLS.

    """

    host: str
    tls: str = ""

    @property
    def socket(self) -> str:
        """Path of its socket; empty where it listens on a port."""
        return urlsplit(self.host).path if self.host.startswith("unix://") else ""

    @property
    def is_here(self) -> bool:
        """Whether its containers run on this machine, as far as the address tells."""
        return bool(self.socket) or urlsplit(self.host).hostname in _LOOPBACK

    @property
    def environment(self) -> dict[str, str]:
        """The address as Docker's own variables say it."""
        tls = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": self.tls} if self.tls else {}
        return {"DOCKER_HOST": self.host, **tls}

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = 10.0,
    ) -> tuple[int, Any]:
        """Status and decoded answer of one request; OSError when there is none.

        Values of the query that are no text go as JSON, and so does the body.
        """
        content_type = {"Content-Type": "application/json"} if body is not None else {}
        sent = json.dumps(body) if body is not None else None
        words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (query or {}).items()}
        connection = self._connection(timeout_s)
        try:
            target = f"{quote(path)}?{urlencode(words)}" if words else quote(path)
            connection.request(method, target, body=sent, headers=content_type)
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"{self.host} does not answer as Docker does: {error!r}") from error
        finally:
            connection.close()
        try:
            return response.status, json.loads(content) if content else None
        except ValueError:
            return response.status, content.decode("utf-8", "replace")

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self.socket:
            return _UnixConnection(self.socket, timeout_s)
        parts = urlsplit(self.host)
        name, port = parts.hostname or "localhost", parts.port or _PORTS.get(parts.scheme, 2375)
        if not self.tls:
            return http.client.HTTPConnection(name, port, timeout=timeout_s)
        import ssl

        trust = ssl.create_default_context(cafile=f"{self.tls}/ca.pem")
        trust.load_cert_chain(f"{self.tls}/cert.pem", f"{self.tls}/key.pem")
        return http.client.HTTPSConnection(name, port, timeout=timeout_s, context=trust)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def address(env: Mapping[str, str] | None = None) -> Docker:
    """The daemon that the ``docker`` command would use: DOCKER_HOST, the context, else the usual socket.

    UserError for a context that does not exist, and for an address that is neither a socket nor a port.
    """
    env = os.environ if env is None else env
    folder = Path(env.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())
    if host := env.get("DOCKER_HOST", "").strip():
        verified = env.get("DOCKER_TLS_VERIFY", "").strip()
        return _checked(Docker(host, str(env.get("DOCKER_CERT_PATH") or folder) if verified else ""), "DOCKER_HOST")
    if (context := env.get("DOCKER_CONTEXT", "").strip() or _current_context(folder)) not in ("", "default"):
        return _of_context(folder, context)
    rootless = Path(env.get("XDG_RUNTIME_DIR") or "/nonexistent") / "docker.sock"
    return Docker(f"unix://{rootless if rootless.exists() and not Path(_SOCKET).exists() else _SOCKET}")


def nearby() -> Docker | None:
    """The daemon, if one may listen on a socket here; None otherwise, and when its address cannot be read."""
    with contextlib.suppress(UserError):
        docker = address()
        return docker if docker.socket and Path(docker.socket).exists() else None
    return None


def trouble(docker: Docker) -> str:
    """Why the daemon cannot be used, in one sentence with the cure; empty when it answers."""
    try:
        status, said = docker.ask("GET", "/version")
    except OSError as error:
        return _explained(docker, error)
    if status != http.client.OK or not isinstance(said, dict):
        return f"{docker.host} does not answer as Docker does (status {status}): check DOCKER_HOST, {_OTHERWISE}"
    return ""


def is_rootless(docker: Docker) -> bool:
    """Whether the daemon runs as a user, in a network namespace of its own."""
    with contextlib.suppress(OSError):
        said = docker.ask("GET", "/info")[1]
        return isinstance(said, dict) and "name=rootless" in (said.get("SecurityOptions") or ())
    return False


def message(said: Any) -> str:
    """What the daemon says is wrong: its error answers are ``{"message": ...}``."""
    text = said.get("message", "") if isinstance(said, dict) else said
    return " ".join(str(text or "").split())[:500]


def _explained(docker: Docker, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"no permission to use Docker at {docker.socket}: join its group "
            f"(sudo usermod -aG docker $USER, then log in again), {_OTHERWISE}"
        )
    if isinstance(error, FileNotFoundError) and docker.socket:
        return f"Docker is not there: no {docker.socket}; install or start it, set DOCKER_HOST, {_OTHERWISE}"
    if error.errno == errno.ECONNREFUSED:
        return f"Docker does not run: nobody listens at {docker.host}; sudo systemctl start docker, {_OTHERWISE}"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"Docker cannot be reached at {docker.host}: {reason}; check DOCKER_HOST, {_OTHERWISE}"


def _checked(docker: Docker, where: str) -> Docker:
    scheme = urlsplit(docker.host).scheme
    if scheme not in ("unix", *_PORTS):
        raise UserError(
            f"{where}: {docker.host!r} cannot be used for engines, expected unix:///PATH or tcp://HOST:PORT; "
            "measure an engine on another machine with --kitt-url"
        )
    return docker


def _current_context(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_bytes()).get("currentContext") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _of_context(folder: Path, name: str) -> Docker:
    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((folder / "contexts" / "meta" / digest / "meta.json").read_bytes())
        host = str(meta["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"Docker's context {name!r} cannot be read: docker context ls shows which there are") from error
    tls = folder / "contexts" / "tls" / digest / "docker"
    return _checked(Docker(host, str(tls) if tls.is_dir() else ""), f"Docker's context {name!r}")
