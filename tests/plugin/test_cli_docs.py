"""Does each command of docs/cli.md, and each example of a help, work as it stands there?"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kitt.cli import app
from pytest_kitt.report import exports
from pytest_kitt.settings import OPTIONS
from pytest_kitt.store.database import opened
from tests import made_run

ROOT = Path(__file__).resolve().parents[2]
URL = "http://127.0.0.1:8000"
# options that a command of ours may name before the plugin has them
COMING = [f"--{name}" for name in ("runs",) if name not in {option.name for option in OPTIONS}]
COLLECTING = ("test list", "test new")


def documented() -> list[str]:
    """Every line of docs/cli.md that is a command, and every example of a help, each once."""
    page = (ROOT / "docs" / "cli.md").read_text()
    helps = "".join(path.read_text() for path in sorted((ROOT / "pytest_kitt" / "cli").glob("*.py")))
    lines = re.findall(r"^(?: {4}|\$ )(kitt .+)$", page, re.MULTILINE)
    lines += re.findall(r"Example: (kitt .+)$", helps, re.MULTILINE)
    return [line for line in dict.fromkeys(lines) if not any(option in line for option in COMING)]


LINES = documented()
RUNS = [line for line in LINES if line.startswith("kitt run ")]
OTHERS = [line for line in LINES if line not in RUNS and "completion" not in line]


@pytest.fixture
def served() -> Iterator[str]:
    """A server that already runs."""
    command = [sys.executable, "-m", "pytest_kitt.engine.simulated", "--port", "0", "--ttft-ms", "1", "--itl-ms", "0.1"]
    answers = ["--answers", str(ROOT / "datasets" / "tiny" / "questions.jsonl")]
    with subprocess.Popen([*command, *answers], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()


def exported(path: Path) -> None:
    """Writes a run of another store to a file."""
    with opened(str(path.with_suffix(".db"))) as engine, engine.connect() as connection:
        made_run.write(engine, (made_run.result(), made_run.BLOCKS))
        pieces = exports.pieces(connection, made_run.RUN, "json", samples=True, say=lambda _: None)
        path.write_bytes(b"".join(pieces))


def test_there_are_enough() -> None:
    """Every command has a line, so that none of the tests below has nothing to do."""
    for name in (
        "run",
        "results list",
        "results show",
        "results delete",
        "results export",
        "engines list",
        "engines check",
        "engines setup",
        "test list",
        "test new",
    ):
        assert any(line.startswith(f"kitt {name}") for line in LINES), name
    assert any(line.startswith("kitt models list") for line in LINES)
    assert any(line.startswith("kitt fingerprint") for line in LINES)


@pytest.mark.parametrize("line", RUNS)
def test_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    request: pytest.FixtureRequest,
    line: str,
) -> None:
    """A documented run passes; of a suite one benchmark is enough here."""
    if "simulated" not in line and URL not in line:  # what runs where no engine is named
        pytest.importorskip("xllamacpp")
    (tmp_path / "engine.yaml").write_text("simulated:\n  ttft_ms: 2\n")
    monkeypatch.setenv("KITT_BENCHMARK", "exact_match")
    url = request.getfixturevalue("served") if URL in line else URL
    argv = shlex.split(line.replace(URL, url))[1:]
    done = subprocess.run([*command, *argv], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d passed", done.stdout)


@pytest.mark.parametrize("line", OTHERS)
def test_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stored: Callable[..., None],
    command: tuple[str, ...],
    line: str,
) -> None:
    """A documented command succeeds and says something, on a store with runs in it."""
    stored("20260101-a")
    monkeypatch.chdir(tmp_path)
    if "embedded" in line:
        pytest.importorskip("xllamacpp")
    argv = shlex.split(line)[1:]
    if "import" in argv:
        exported(tmp_path / "run.json")
    if line.startswith(tuple(f"kitt {name}" for name in COLLECTING)):  # a session of pytest, better not within this one
        done = subprocess.run([*command, *argv], capture_output=True, text=True, check=False)
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        with pytest.raises(SystemExit) as ended:
            app.main(argv)
        code, (out, err) = int(ended.value.code or 0), capsys.readouterr()
    assert (code, err) == (0, "")
    written = [Path(argv[at + 1]) for at, word in enumerate(argv) if word == "-o" and "export" in argv]
    assert out.strip() or all(path.stat().st_size for path in written)
    if "--json" in argv:
        assert json.loads(out)["schema"] == 1


def test_completion_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """What docs/cli.md says of completion is so in bash."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for line in (line for line in LINES if "completion" in line):
        argv = [*command, *shlex.split(line)[1:]]
        asked = ["bash", "-c", '"$@"; exit $?', "bash", *argv]  # for which shell, the parent process says
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "_KITT_COMPLETE" in (tmp_path / ".bash_completions" / "kitt.sh").read_text()
    assert os.environ["KITT_HOME"] != str(tmp_path)
