"""Does the kitt command look right in a terminal of any width, and do its values complete?"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from pytest_kitt import shipped
from pytest_kitt.cli import app

GROUPS = ("", "results", "engines", "test", "models")
COMMANDS = (
    *("run", "results list", "results show", "results delete", "engines list", "test list", "test new"),
    *("models list", "fingerprint"),
)
HELP = tuple(shlex.split(f"{name} --help") for name in (*GROUPS, *COMMANDS))
SHOWN = tuple(
    shlex.split(line)
    for line in (
        *("results list", "results list --synthetic", "results show last", "engines list", "test list"),
        *("models list models", "models list .", "fingerprint", "fingerprint --verbose"),
        *("rnu", "run --junitxml=x", "results show nothere", "results list --status nothere", "models list nothere"),
    )
)
MARK = "-----8<-----"
# many commands in one process: what is timed here is patience
PROGRAM = f"""
import json, sys
from pytest_kitt.cli.app import main
for args in json.loads(sys.argv[1]):
    try:
        main(args)
    except SystemExit:
        print({MARK!r}, flush=True)
"""


@contextlib.contextmanager
def terminal(command: list[str], columns: int) -> Iterator[int]:
    """A command in a pseudo-terminal of a width; gives its end of the line."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}

    def control() -> None:
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal

    ends = {"stdin": follower, "stdout": follower, "stderr": follower, "preexec_fn": control, "start_new_session": True}
    with subprocess.Popen(command, **ends, env=env) as process:  # type: ignore[call-overload]
        os.close(follower)
        try:
            yield leader
        finally:
            process.kill()
            os.close(leader)


def heard(leader: int, until: str = "", limit_s: float = 60) -> str:
    """What comes, to its end or to some words."""
    text, deadline = "", time.monotonic() + limit_s
    while time.monotonic() < deadline and (not until or until not in text):
        if not select.select([leader], [], [], 0.1)[0]:
            continue
        try:
            came = os.read(leader, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not came:
            break
        text += came.decode()
    return text.replace("\r\n", "\n")


@pytest.fixture
def some(tmp_path: Path, stored: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models, and a store with runs."""
    stored("20260101-120000-aaaaaa", engine="simulated")
    stored("20260102-120000-bbbbbb", model="a-model-with-quite-a-long-name-Q4_K_M", suite="quick,performance")
    (tmp_path / "models" / "here").mkdir(parents=True)
    shutil.copy(shipped.TINY_MODEL, tmp_path / "models" / "here" / "a-model-in-a-file-with-a-long-name.gguf")
    (tmp_path / "models" / "bad.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(columns: int) -> list[str]:
    """What all the commands print in a terminal, one after the other; 0 columns is a pipe."""
    argv = [sys.executable, "-c", PROGRAM, json.dumps([*HELP, *SHOWN])]
    if columns:
        with terminal(argv, columns) as leader:
            text = heard(leader)
    else:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        text = done.stdout
    parts = text.split(f"{MARK}\n")
    assert len(parts) == len(HELP) + len(SHOWN) + 1, text[-2000:]
    return parts[:-1]


def squeezed(text: str) -> str:
    """A text without its white space: however it was wrapped, it is the same."""
    return "".join(text.split())


def test_no_line_is_wider_than_the_terminal(some: Path) -> None:
    """In any width all is there: help word by word, tables cell by cell; in a pipe nothing is wrapped or coloured."""
    assert some
    plain = everything(0)
    assert "\x1b" not in "".join(plain)
    assert (
        "20260102-120000-bbbbbb  2026-01-02 00:00:00  passed  quick,performance  llama_cpp 1 a-model-with" in plain[14]
    )
    for columns in (40, 80, 200):
        shown = everything(columns)
        for args, piped, text in zip([*HELP, *SHOWN], plain, shown, strict=True):
            wide = [line for line in text.splitlines() if cell_len(line) > columns]
            assert not wide, (columns, args, wide)
            assert "\x1b[" not in text
            assert "Traceback" not in text
            if args in HELP:
                assert squeezed(text) == squeezed(piped), (columns, args)
            elif columns > 40:
                missing = set(piped.split()) - {word.rstrip(":") for word in text.split()} - set(text.split())
                assert not missing, (columns, args, missing)


def test_every_help_has_an_example() -> None:
    """Each command, and each group of commands, shows how it is used; usage says where pytest's arguments go."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(HELP)], capture_output=True, text=True, check=True)
    texts = dict(zip((*GROUPS, *COMMANDS), done.stdout.split(f"{MARK}\n"), strict=False))
    for name, text in texts.items():
        assert re.search(rf"^  Example: kitt {name}", text, re.MULTILINE), name
        assert text.startswith(f"Usage: kitt {name}".rstrip()), name
    assert texts["run"].startswith("Usage: kitt run [OPTIONS] [-- PYTEST ARGS]...\n")


def test_delete_asks(some: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the question must be answered with yes; no, and Ctrl-C, leave everything as it is."""
    assert some
    for answer, after, left in (
        ("n\n", "nothing is deleted", 2),
        ("\x03", "kitt: interrupted", 2),
        ("y\n", "deleted 1", 1),
    ):
        with terminal([*command, "results", "delete", "last"], 80) as leader:
            asked = heard(leader, until="[y/N]")
            assert "20260102-120000-bbbbbb" in asked
            os.write(leader, answer.encode())
            said = heard(leader, until=after, limit_s=10)
            if after not in said:  # Python loses a Ctrl-C that comes in the instant before it begins to read
                os.write(leader, answer.encode())
            said += heard(leader)
        assert after in said, (answer, said)
        assert "Traceback" not in said
        monkeypatch.setattr(sys, "argv", ["kitt"])
        from pytest_kitt.store import reader
        from pytest_kitt.store.database import opened

        with opened("") as engine, engine.connect() as connection:
            assert len(reader.list_runs(connection, synthetic=True)) == left


VALUES: dict[str, tuple[str, list[str]]] = {
    "command": ("kitt r", ["run", "results"]),
    "engine": ("kitt run -e l", ["llama_cpp"]),
    "model": ("kitt run -m ", ["tiny", "{cwd}/models/here/a-model-in-a-file-with-a-long-name.gguf"]),
    "run": ("kitt results show 2026", ["20260102-120000-bbbbbb", "20260101-120000-aaaaaa"]),
    "runs": ("kitt results delete last 20260101", ["20260101-120000-aaaaaa"]),
    "status": ("kitt results list --status p", ["passed"]),
    "kind": ("kitt test new x -c q", ["quality"]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_complete(
    some: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The tab key offers what there is, in bash, zsh and fish."""
    line, expected = VALUES[name]
    expected = [value.format(cwd=some) for value in expected]
    monkeypatch.setenv("KITT_MODEL_DIR", str(some / "models"))
    words = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    offered = {}
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setenv("_KITT_COMPLETE", f"complete_{shell}")
        with pytest.raises(SystemExit):
            app.main(())
        offered[shell] = capsys.readouterr().out
    assert offered["bash"].split() == expected
    assert [line.split("\t")[0] for line in offered["fish"].splitlines()] == expected
    assert re.findall(r'^[^"]*"([^"]+)"', offered["zsh"], re.MULTILINE) == expected


def test_bash_completes(tmp_path: Path, command: tuple[str, ...]) -> None:
    """The script that kitt prints for bash works in bash: suites and benchmarks, as collected."""
    kitt = tmp_path / "kitt"
    kitt.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    kitt.chmod(0o755)
    program = """
        source <(kitt --show-completion)
        for words in "kitt run -s qui" "kitt run -b exact_m"; do
            COMP_WORDS=($words); COMP_CWORD=3
            _kitt_completion kitt
            echo "${COMPREPLY[@]}"
        done
    """
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["quick", "exact_match"], done.stderr


@pytest.mark.parametrize(
    "shell, word", [("bash", "complete -o default"), ("zsh", "#compdef kitt"), ("fish", "complete --command kitt")]
)
def test_scripts_for_each_shell(command: tuple[str, ...], shell: str, word: str) -> None:
    """There is a script for each of the three shells."""
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run([*command, "--show-completion", shell], env=env, capture_output=True, text=True, check=True)
    assert word in done.stdout
    assert "_KITT_COMPLETE" in done.stdout


def test_completion_never_complains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a store that is none, and a card that is broken, the tab key offers what there is and says nothing."""
    home = Path(os.environ["KITT_HOME"])
    (home / "kitt.db").write_text("none" * 99)
    (home / "engines").mkdir()
    (home / "engines" / "bad.yaml").write_text("name: [")
    monkeypatch.setenv("_KITT_COMPLETE", "complete_bash")
    for line, offered in (("kitt run -e v", "vllm"), ("kitt results show 2", "")):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit):
            app.main(())
        said = capsys.readouterr()
        assert (said.out.strip(), said.err) == (offered, "")
