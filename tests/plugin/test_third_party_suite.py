"""Can others ship a suite as a package of their own? Built as a wheel, installed, and run by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "theirs"
version = "1.0"
[project.entry-points.pytest11]
theirs = "theirs.plugin"
[tool.hatch.build.targets.wheel]
packages = ["theirs"]
"""
PLUGIN = """
from pathlib import Path
def pytest_kitt_suites():
    return Path(__file__).parent / "suites"
"""
SUITES = """
theirs:
  description: A suite of somebody else
  benchmarks: [greeting]
"""
TEST = """
import pytest
@pytest.mark.kitt(name="greeting", version="3", category="custom")
def test_theirs_greeting(kitt_engine, kitt_measure):
    answer = kitt_engine.chat("hello", max_tokens=4)
    kitt_measure("greeting_tokens", answer.completion_tokens, unit="tokens", better="none")
"""


def test_a_suite_from_a_wheel(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """An out-of-tree suite is listed and run like a shipped one, and a clash of names is refused."""
    source = tmp_path / "source"
    suites = source / "theirs" / "suites"
    suites.mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "theirs" / "__init__.py").write_text("")
    (source / "theirs" / "plugin.py").write_text(PLUGIN)
    (suites / "suites.yaml").write_text(SUITES)
    (suites / "test_theirs_greeting.py").write_text(TEST)
    target = tmp_path / "site"
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)

    env = {**os.environ, "PYTHONPATH": str(target)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--kitt-suite=theirs",
        "--kitt-engine=simulated",
    ]
    done = subprocess.run(command, cwd=pytester.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    listed = [sys.executable, "-m", "pytest_kitt.cli", "test", "list", "--json"]
    shown = json.loads(subprocess.run(listed, env=env, check=True, capture_output=True).stdout)
    assert {"quick", "theirs"} <= {suite["name"] for suite in shown["suites"]}
    (greeting,) = [benchmark for benchmark in shown["benchmarks"] if benchmark["name"] == "greeting"]
    assert (greeting["version"], greeting["category"], greeting["suites"]) == ("3", "custom", ["theirs"])

    (target / "theirs" / "suites" / "suites.yaml").write_text(SUITES.replace("theirs:", "quick:"))
    clash = subprocess.run(command, cwd=pytester.path, env=env, capture_output=True, text=True, check=False)
    assert clash.returncode == 4
    assert "suite 'quick' is defined twice" in clash.stderr
