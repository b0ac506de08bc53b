"""Does Ollama get its model, and lose it again? Against a server that keeps a store as its documentation says."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_kitt import cards, shipped
from pytest_kitt.cards import EngineCard
from pytest_kitt.engine.prepare import prepared
from pytest_kitt.errors import EngineStartError
from pytest_kitt.matrix import Cell
from pytest_kitt.model import reference
from pytest_kitt.model.reference import ModelRef

CARD = cards.load_engines()["ollama"]
TINY = Cell("ollama", reference.resolve("tiny"), "process")
DIGEST = f"sha256:{hashlib.sha256(shipped.TINY_MODEL.read_bytes()).hexdigest()}"
TAG = Cell("ollama", ModelRef(ref="llama3.2:1b", name="llama3.2-1b", format="ollama"), "process")


class Store(http.server.BaseHTTPRequestHandler):
    """The part of Ollama's API that is about models: blobs, create, show, pull, generate without a prompt, delete."""

    blobs: set[str]
    models: dict[str, dict[str, str]]
    loaded: dict[str, Any]
    pulled: list[str]
    registry: dict[str, list[dict[str, Any]]]

    def do_HEAD(self) -> None:
        """Is a blob there?"""
        self._answer(200 if self.path.removeprefix("/api/blobs/") in self.blobs else 404)

    def do_POST(self) -> None:
        """Everything else but deletion."""
        content = self._body()
        if self.path.startswith("/api/blobs/"):
            digest = self.path.removeprefix("/api/blobs/")
            good = digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            self.blobs.update([digest] if good else [])
            self._answer(201 if good else 400, {} if good else {"error": "digest mismatch"})
            return
        getattr(self, f"_{self.path.removeprefix('/api/')}")(json.loads(content))

    def do_DELETE(self) -> None:
        """A model goes."""
        self.models.pop(json.loads(self._body())["model"])
        self._answer(200)

    def _create(self, asked: dict[str, Any]) -> None:
        if not set(asked["files"].values()) <= self.blobs:
            self._answer(400, {"error": "blob not found"})
            return
        self.models[asked["model"]] = asked["files"]
        self._answer(200, {"status": "success"})

    def _show(self, asked: dict[str, Any]) -> None:
        self._answer(200 if asked["model"] in self.models else 404, {})

    def _pull(self, asked: dict[str, Any]) -> None:
        lines = self.registry.get(asked["model"], [{"error": "pull model manifest: file does not exist"}])
        if "error" not in lines[-1]:
            self.models[asked["model"]] = {}
        self.pulled.append(asked["model"])
        self._answer(200, *lines)

    def _generate(self, asked: dict[str, Any]) -> None:
        if "broken" in asked["model"]:
            self._answer(500, {"error": "unable to load model: \x1b[31mbad magic\x1b[0m"})
            return
        self.loaded = {**asked}
        type(self).loaded = self.loaded
        self._answer(200, {"done": True, "done_reason": "load"})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, status: int, *objects: dict[str, Any]) -> None:
        content = b"".join(json.dumps(each).encode() + b"\n" for each in objects)
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def ollama(registry: dict[str, list[dict[str, Any]]] | None = None) -> Iterator[tuple[type[Store], httpx.Client]]:
    """Such a server with an empty store, and a client of it."""
    fresh = {"blobs": set(), "models": {}, "loaded": {}, "pulled": [], "registry": registry or {}}
    store = type("Fresh", (Store,), fresh)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
                yield store, client
        finally:
            server.shutdown()
            thread.join()


def refused(cell: Cell, client: httpx.Client) -> str:
    """Why a model is not served: an error of the class ``model``."""
    with pytest.raises(EngineStartError) as caught, prepared(cell, CARD, client, timeout_s=30):
        pass
    assert caught.value.kind == "model"
    return str(caught.value)


def test_a_file_becomes_a_model_for_as_long_as_it_is_measured() -> None:
    """Its content is sent once, the model is loaded to stay, and deleted at the end; the blob is the store's affair."""
    with ollama() as (store, client):
        for _ in range(2):
            with prepared(TINY, CARD, client, timeout_s=30):
                assert store.models == {"tiny": {"tiny.gguf": DIGEST}}
                assert store.loaded == {"model": "tiny", "keep_alive": -1, "stream": False}
            assert not store.models
        assert store.blobs == {DIGEST}


def test_a_tag_is_pulled_once_and_stays() -> None:
    """With its progress told."""
    steps: list[dict[str, Any]] = [
        {"status": "pulling manifest"},
        {"status": "pulling x", "digest": "x", "total": 2 * 10**9},
        {"status": "pulling x", "digest": "x", "total": 2 * 10**9, "completed": 10**9},
        {"status": "pulling y", "digest": "y", "total": 10**6, "completed": 10**6},
    ]
    told: list[str] = []
    fetched: list[tuple[str, int, int, int]] = []
    steps.append({"status": "success"})
    with ollama({"llama3.2:1b": steps}) as (store, client):
        for _ in range(2):
            with prepared(TAG, CARD, client, timeout_s=30, say=told.append, tell=lambda *far: fetched.append(far)):
                assert store.loaded["model"] == "llama3.2:1b"
        assert store.models == {"llama3.2:1b": {}}
        assert store.pulled == ["llama3.2:1b"]
    pulls = [line for line in told if line.startswith("pulls")]
    assert pulls == [f"pulls llama3.2:1b: {what}" for what in ("pulling manifest", "success")]
    all_of_it = 2 * 10**9
    assert [far[1:3] for far in fetched] == [(0, all_of_it), (10**9, all_of_it), (10**9 + 10**6, all_of_it + 10**6)]
    assert {far[0] for far in fetched} == {"llama3.2:1b"}


def test_a_tag_that_is_not_there() -> None:
    """What its registry says, in one sentence."""
    missing = Cell("ollama", ModelRef(ref="nothere", name="nothere", format="ollama"), "process")
    with ollama() as (_, client):
        sentence = refused(missing, client)
    assert "cannot pull the model: pull model manifest: file does not exist" in sentence


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    """The sentence is bounded and harmless."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"x")
    cell = Cell("ollama", ModelRef(ref="broken.gguf", name="broken", format="gguf", path=str(path)), "process")
    with ollama() as (_, client):
        sentence = refused(cell, client)
    assert "refuses the model: unable to load model: " in sentence
    assert "\x1b" not in sentence


def test_a_server_that_is_gone() -> None:
    """No connection is the engine's error, not ours."""
    with httpx.Client(base_url="http://127.0.0.1:9", trust_env=False) as client:
        assert "ollama did not take the model" in refused(TINY, client)


def test_others_have_their_model_when_they_start() -> None:
    """Nothing is asked of them."""
    card = EngineCard(name="x", description="d")
    with httpx.Client(base_url="http://127.0.0.1:9") as client, prepared(TINY, card, client, timeout_s=1):
        pass
