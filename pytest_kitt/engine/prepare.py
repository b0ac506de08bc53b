"""How does a server that is up come by its model? Only Ollama has to be told: it keeps models in a store of its own.

Source: docs/api.md of Ollama. A GGUF file is sent as a blob and named by a model, which is deleted again at the end; a
tag of its registry is pulled if the store lacks it, and stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from pytest_kitt.cards import EngineCard
from pytest_kitt.dialect.answer import bounded
from pytest_kitt.engine.command import served_name
from pytest_kitt.engine.layers import Layers
from pytest_kitt.engine.ready import classify, log_tail
from pytest_kitt.errors import EngineStartError
from pytest_kitt.matrix import Cell
from pytest_kitt.model.hub import Tell

Say = Callable[[str], None]
_CHUNK_BYTES = 1 << 20
_ASK_TIMEOUT_S = 30.0


@contextlib.contextmanager
def prepared(
    cell: Cell,
    card: EngineCard,
    http: httpx.Client,
    *,
    timeout_s: float,
    log: Path | None = None,
    say: Say = lambda _: None,
    tell: Tell = lambda *_: None,
) -> Iterator[None]:
    """The model loaded by a server that is up; EngineStartError says why it is not. Undone at the end.

    The class of the failure is ``model``, unless what the server says is of another by the card; ``log`` is its own.
    """
    if card.prepare != "ollama" or cell.is_given:
        yield
        return
    server = _Ollama(http, timeout_s, say, tell)
    name = served_name(cell, card)
    made = bool(cell.model.path)
    try:
        if made:
            server.create(name, Path(cell.model.path))
        elif not server.has(name):
            server.pull(name)
        server.load(name)
    except (httpx.HTTPError, _Refused) as error:
        said = str(error) if isinstance(error, _Refused) else f"did not take the model: {_said(error)}"
        kind = classify(said, card.failures)
        raise EngineStartError(
            f"{card.name} {said}", kind="model" if kind == "died" else kind, log_tail=log_tail(log) if log else ""
        ) from error
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(httpx.HTTPError):  # it may be dead by now, and its store a container's
                server.delete(name)


class _Refused(Exception):
    """What the server says against the model, as the end of a sentence."""


class _Ollama:
    def __init__(self, http: httpx.Client, timeout_s: float, say: Say, tell: Tell) -> None:
        self._http, self._timeout_s, self._say, self._tell = http, timeout_s, say, tell

    def has(self, name: str) -> bool:
        """Whether its store has a model."""
        return self._http.post("/api/show", json={"model": name}, timeout=_ASK_TIMEOUT_S).is_success

    def create(self, name: str, path: Path) -> None:
        """Makes a model of a GGUF file."""
        self._say("reads its model")
        digest = f"sha256:{_sha256(path)}"
        if not self._http.head(f"/api/blobs/{digest}", timeout=_ASK_TIMEOUT_S).is_success:
            self._say(f"gets its model, {path.stat().st_size / 1e9:.1f} GB")
            self._checked(self._http.post(f"/api/blobs/{digest}", content=_chunks(path), timeout=self._timeout_s))
        self._post("/api/create", {"model": name, "files": {path.name: digest}, "stream": False})

    def pull(self, name: str) -> None:
        """Fetches a model from its registry, and tells how far that is."""
        body, layers = {"model": name, "stream": True}, Layers()
        with self._http.stream("POST", "/api/pull", json=body, timeout=self._timeout_s) as response:
            if response.is_error:
                response.read()
                self._checked(response)
            for line in response.iter_lines():
                said = _object(line)
                if error := said.get("error"):
                    raise _Refused(f"cannot pull the model: {bounded(str(error))}")
                done, total = said.get("completed", 0), said.get("total")
                if not isinstance(done, int) or not isinstance(total, int):
                    self._say(f"pulls {name}: {bounded(str(said.get('status', '')))}")
                elif layers.take(str(said.get("digest")), done, total):
                    self._tell(name, layers.done, layers.total, 0)

    def load(self, name: str) -> None:
        """Brings a model into memory and keeps it there."""
        self._say("loads its model")
        self._post("/api/generate", {"model": name, "keep_alive": -1, "stream": False})

    def delete(self, name: str) -> None:
        """Removes a model from its store."""
        self._http.request("DELETE", "/api/delete", json={"model": name}, timeout=_ASK_TIMEOUT_S)

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._checked(self._http.post(path, json=body, timeout=self._timeout_s))

    @staticmethod
    def _checked(response: httpx.Response) -> None:
        if response.is_error:
            said = _object(response.text).get("error") or f"status {response.status_code}"
            raise _Refused(f"refuses the model: {bounded(str(said))}")


def _object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _said(error: httpx.HTTPError) -> str:
    return bounded(str(error)) or type(error).__name__
