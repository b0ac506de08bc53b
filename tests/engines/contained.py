"""How do tests run a small server, or pytest itself, in a container, and look for what is left of it?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.types import Mount

import pytest_kitt
from pytest_kitt import shipped
from pytest_kitt.cards import EngineCard
from pytest_kitt.engine import dockerd, reaper
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.engine.start import Place, started
from pytest_kitt.matrix import build
from pytest_kitt.settings import Settings
from tests.containers import LABEL

PATIENCE_S = 60.0

# modes: serve; never, healthy; exit; hoard, memory
SERVER = """
import http.server, json, os, sys, threading, time
mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("mine begins:", *sys.argv[4:], flush=True)
if mode == "exit":
    print("no such weights", flush=True)
    sys.exit(3)
if mode == "hoard":
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 16)) * 64)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def say(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/env":
            return self.say(200, dict(os.environ))
        self.say(503 if mode == "never" else 200, {})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.02)
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
        event = json.dumps({"object": "chat.completion.chunk", "choices": [choice], "usage": usage})
        body = f"data: {event}\\n\\ndata: [DONE]\\n\\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer((host, port), Handler)
print("mine listens", flush=True)
server.serve_forever()
"""


def raw_card(mode: str = "serve", *, name: str = "mine", **runtime: Any) -> dict[str, Any]:
    """A card of such a server, as YAML has it; ``runtime`` changes how its container is run."""
    code = SERVER.replace("{", "{{").replace("}", "}}")
    container = {
        "entrypoint": ["python3", "-u"],
        "command": ["-c", code, mode, "{host}", "{port}", "{model}"],
        "port": free_port(),
        **runtime,
    }
    return {
        "name": name,
        "description": "x",
        "runtimes": {"container": container},
        "images": [{"image": "kitt-test/named-by-the-test"}],
        "default_model": "m",
        "failures": {"model": ["no such weights"]},
    }


def free_port() -> int:
    """A port of the kernel's choice: tests side by side have leases of their own, and do not know of each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def llama_card(folder: Path) -> None:
    """Puts a card of llama.cpp in a container into the user's folder, made from the shipped one."""
    card = yaml.safe_load((shipped.ENGINES / "llama_cpp.yaml").read_text())
    command = [word for word in card["runtimes"]["process"]["command"] if word != "llama-server"]
    card["runtimes"].setdefault("container", {"command": command, "port": free_port()})
    (folder / "engines").mkdir(exist_ok=True)
    (folder / "engines" / "llama_cpp.yaml").write_text(yaml.safe_dump(card))


@contextmanager
def running(raw: dict[str, Any], place: Place, **settings: Any) -> Iterator[RunningEngine]:
    """The engine of such a card."""
    card = EngineCard.model_validate(raw)
    asked = Settings(engine=(card.name,), runtime="container", **settings)
    (cell,) = build(asked, {card.name: card})
    with started(cell, card, asked, place) as engine:
        yield engine


def pytest_inside(
    client: Any, image: str, argv: Sequence[str], *, seen: Mapping[str, str], env: Mapping[str, str], folder: str
) -> str:
    """What pytest says that runs in a container beside the engine's, with this checkout and this Python's packages.

    Args:
        client: of the daemon, whose socket it gets.
        image: with a Python of this version.
        argv: of pytest.
        seen: folders and files of this machine, and where the container has them.
        env: what else its environment holds.
        folder: where it runs, as the container has it.

    """
    root, packages = str(Path(pytest_kitt.__file__).parents[1]), str(Path(pytest.__file__).parents[1])
    beside = client.containers.create(
        image,
        entrypoint=["python3", "-P", "-m", "pytest"],
        command=list(argv),
        environment={"PYTHONPATH": f"{root}:{packages}", "KITT_CERTIFY": "record", **env},
        mounts=[
            *(Mount(inside, path, type="bind") for path, inside in {root: root, packages: packages, **seen}.items()),
            Mount("/var/run/docker.sock", dockerd.address().socket, type="bind"),
        ],
        network_mode="bridge",
        user="0",
        working_dir=folder,
        labels={LABEL: "pytest"},
    )
    try:
        beside.start()
        code = beside.wait(timeout=4 * PATIENCE_S)["StatusCode"]
        said = str(beside.logs().decode())
    finally:
        beside.remove(force=True)
    assert code == 0, said
    return said


def left(client: Any, label: str, value: str) -> list[str]:
    """Names of the containers that carry a label, running or not."""
    found = client.containers.list(all=True, filters={"label": f"{label}={value}"}, ignore_removed=True)
    return [str(container.name) for container in found]


def none_left(client: Any, cell: str) -> bool:
    """Whether the containers of a cell are gone, soon."""
    deadline = time.monotonic() + PATIENCE_S
    while (names := left(client, reaper.CELL, cell)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not names
