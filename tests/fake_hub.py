"""A hub of our own for tests: info, files with ranges, large ones in a store apart, and all its refusals.

A repository is one of models or of a dataset, by how it is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a_token_that_is_never_shown"
_LARGE_BYTES = 1000
_API = re.compile(r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>.+))?")
_TREE = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?P<folder>/.+)?")
_FILE = re.compile(r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclasses.dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    range: str
    token: str


@dataclasses.dataclass
class FakeHub:
    """What it has, and how it behaves.

    Attributes:
        repos: files by repository.
        url: where it is.
        gated: repositories that want a token which may read them.
        secret: repositories that are not there for strangers.
        rights: tokens that are known, and whether they may read what is gated.
        cut: how often a large file's transfer ends early, and after how many bytes.
        status: an answer to everything, 0 for none.
        asked: all requests.

    """

    repos: dict[str, dict[str, bytes]]
    url: str = ""
    store_url: str = ""
    gated: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    rights: dict[str, bool] = dataclasses.field(default_factory=dict)
    cuts: int = 0
    cut_bytes: int = 0
    status: int = 0
    asked: list[Asked] = dataclasses.field(default_factory=list)

    def transfers(self, name: str) -> list[Asked]:
        """The requests for the content of a large file."""
        digest = next(_digest(files[name]) for files in self.repos.values() if name in files)
        return [asked for asked in self.asked if asked.path == f"/store/{digest}"]


@contextlib.contextmanager
def served(repos: Mapping[str, Mapping[str, bytes]]) -> Iterator[FakeHub]:
    """The hub, and the store of its large files, which is another server, as on the real one."""
    hub = FakeHub({repo: dict(files) for repo, files in repos.items()})
    with _server(_Hub, hub) as hub.url, _server(_Store, hub) as hub.store_url:
        yield hub


@contextlib.contextmanager
def _server(kind: type[_Handler], hub: FakeHub) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (kind,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        """Answers."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range", ""), token))
        if self.hub.status:
            self.answer(self.hub.status)
        else:
            self.respond(path, token)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def respond(self, path: str, token: str) -> None:
        """Answers a request."""
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, cut: int = -1) -> None:
        """Sends an answer, or its beginning."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut < 0 else body[:cut])
        self.close_connection = self.close_connection or cut >= 0

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


class _Hub(_Handler):
    def respond(self, path: str, token: str) -> None:
        """Model info and files; what is refused, is refused as the real one does it."""
        api, tree, file = _API.fullmatch(path), _TREE.fullmatch(path), _FILE.fullmatch(path)
        found = api or tree or file
        if found is None:  # the library also asks for things of its own
            self.answer(404)
            return
        files = self.hub.repos.get(found["repo"])
        if token and token not in self.hub.rights:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif files is None or (found["repo"] in self.hub.secret and not token):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif (found["revision"] or "main") not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        elif api:
            self.answer(200, json.dumps(_info(found["repo"], files)).encode(), {"Content-Type": "application/json"})
        elif tree and tree["folder"]:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif tree:
            self.answer(200, json.dumps(_tree(files)).encode(), {"Content-Type": "application/json"})
        elif found["repo"] in self.hub.gated and not self.hub.rights.get(token):
            self._refuse(403 if token else 401, "GatedRepo", "Access to model is restricted")
        elif found["name"] not in files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._file(files[found["name"]])

    def _file(self, content: bytes) -> None:
        digest = _digest(content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'}
        if len(content) < _LARGE_BYTES:
            self.answer(200, content, headers)
            return
        linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        self.answer(302, b"", {**headers, **linked, "Location": f"{self.hub.store_url}/store/{digest}"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, b"{}", {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})})


class _Store(_Handler):
    def respond(self, path: str, token: str) -> None:
        """A large file, or the rest of it."""
        del token
        digest = path.rpartition("/")[2]
        content = next(c for files in self.hub.repos.values() for c in files.values() if _digest(c) == digest)
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cut_bytes if self.hub.cuts and self.command == "GET" else -1
        self.hub.cuts -= cut >= 0
        self.answer(206 if begin else 200, content[begin:], headers, cut)


def _info(repo: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    return {"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "siblings": [_sibling(*f) for f in files.items()]}


def _tree(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [{"type": "file", "path": n, "size": len(c), "oid": _digest(c)[:40]} for n, c in files.items()]


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    digest = _digest(content)
    large = (
        {"lfs": {"sha256": digest, "size": len(content), "pointerSize": 130}} if len(content) >= _LARGE_BYTES else {}
    )
    return {"rfilename": name, "size": len(content), "blobId": digest[:40], **large}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
