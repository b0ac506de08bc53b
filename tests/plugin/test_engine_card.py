"""Is adding an engine one YAML file? An outsider's card for a small server, and nothing else, is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.cli import app

# a server as anybody might write one: two paths, one model, a word for each token
SERVER = """
import argparse, http.server, json, os

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--bind")
parser.add_argument("--listen", type=int)
parser.add_argument("--length", type=int)
options = parser.parse_args()


class Small(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        told = {"/alive": {"build": "7.5"}}.get(self.path)
        self.send(200 if told else 404, json.dumps(told).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if (asked["model"], asked["style"]) != ("small-one", os.environ["SMALL_STYLE"]):
            self.send(400, b"{}")
            return
        count = min(asked["max_tokens"], options.length)
        usage = {"prompt_tokens": 8, "completion_tokens": count, "total_tokens": 8 + count}
        pieces = [{"choices": [{"index": 0, "delta": {"content": "word "}}]}] * count
        pieces += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}, {"choices": [], "usage": usage}]
        events = [f"data: {json.dumps(piece)}\\n\\n" for piece in pieces]
        self.send(200, "".join([*events, "data: [DONE]\\n\\n"]).encode(), "text/event-stream")

    def send(self, status, content, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((options.bind, options.listen), Small).serve_forever()
"""
CARD = """
name: small
description: A server of somebody else's
default_model: small-one
runtimes:
  process:
    command: ["{python}", SERVER, "{model_name}", --bind, "{host}", --listen, "{port}"]
    program: python3
    install: it is there
arguments:
  length: {flag: --length, default: 100, help: Most tokens of an answer}
  style: {env: SMALL_STYLE, default: plain, help: How it answers}
  style_asked: {request: style, default: "{style}", help: How a request wants it}
profiles:
  short: {help: Short answers, arguments: {length: 5}}
health: /alive
version: {path: /alive, field: build}
capabilities: [tools]
impossible:
  - {when: {system: Windows}, why: it forks}
"""
TEST = """
import pytest

@pytest.mark.kitt(name="words")
def test_words(kitt_engine, kitt_load, kitt_measure):
    assert kitt_engine.version == "7.5"
    assert kitt_engine.capabilities == {"tools"}
    result = kitt_load("closed:2", "prompts:words.txt", "requests:6", warmup=0)
    kitt_measure("tokens", result.osl.mean, unit="tokens", better="higher")
"""


@pytest.fixture
def small(private_home: Path, pytester: pytest.Pytester) -> Path:
    """Their server, their card, and a test of theirs."""
    server = pytester.path / "small.py"
    server.write_text(SERVER)
    (pytester.path / "words.txt").write_text("one\ntwo\n")
    pytester.makepyfile(test_words=TEST)
    path = private_home / "engines" / "small.yaml"
    path.parent.mkdir()
    path.write_text(CARD.replace("SERVER", json.dumps(str(server))))
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What a command says, as JSON."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        app.main([*words, "--json"])
    return dict(json.loads(capsys.readouterr().out))


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """A command's exit code and what it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        app.main(words)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def measured(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict[str, Any]]:
    """The results of a session with such flags."""
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "test_words.py", *flags)
    assert result.ret == 0
    return list(shown(capsys, "results", "show", "last")["results"])


@pytest.mark.usefixtures("small")
def test_it_is_measured(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """Started by its command line, found ready by its own path, asked with its own field, stored with its version."""
    (result,) = measured(pytester, capsys, "--kitt-engine=small")
    assert result["outcome"] == "passed"
    cell = result["cell"]
    assert (cell["engine"], cell["engine_version"], cell["runtime"], cell["id"]) == (
        "small",
        "7.5",
        "process",
        "small-small-one",
    )
    assert " ".join(cell["argv"]).endswith(" --length 100")
    values = {metric["name"]: metric["value"] for metric in result["metrics"] if metric["stat"] == "value"}
    assert values["tokens"] == 100


@pytest.mark.usefixtures("small")
def test_its_profile_is_a_cell_of_its_own(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the plain one, with another key."""
    results = measured(pytester, capsys, "--kitt-engine=small,small:short")
    tokens = {
        result["cell"]["id"]: metric["value"]
        for result in results
        for metric in result["metrics"]
        if metric["name"] == "tokens"
    }
    assert tokens == {"small-small-one": 100, "small+short-small-one": 5}
    assert len({result["cell"]["key"] for result in results}) == 2


@pytest.mark.usefixtures("small")
def test_it_is_listed_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Like the shipped ones; nobody has proven it."""
    listed = {engine["name"]: engine for engine in shown(capsys, "engines", "list")["engines"]}
    assert listed["small"]["ways"] == {"process": {"proven": {"by": "never run", "version": ""}, "obstacle": ""}}
    assert list(listed["small"]["arguments"]) == ["length", "style", "style_asked"]
    code, said = ask(capsys, "engines", "check", "small")
    assert (code, "process: ready" in said) == (0, True)


def test_a_mistake_in_it_is_one_sentence(small: Path, pytester: pytest.Pytester) -> None:
    """With the file, the key and what was meant."""
    small.write_text(small.read_text().replace("health:", "heath:"))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "test_words.py", "--kitt-engine=small")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*small.yaml:*: unknown key 'heath'; did you mean 'health'?*"])
