"""How are the evaluation runners of others run? Each in its own environment, in a folder that takes all it leaves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.peers import runner, venvs

LIMIT_S = 900.0
_ROOT = Path(__file__).parents[2]
_QUIET = {"NO_COLOR": "1", "TERM": "dumb", "DO_NOT_TRACK": "1", "OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1"}
_SCRIPTS = {
    "lm_eval": (venvs.Package("lm_eval", "0.4.13", ("lm_eval[api]==0.4.13",)), "lm_eval_runner"),
    "inspect_ai": (venvs.Package("inspect_ai", "0.3.285", ("openai>=3.4,<4",)), "inspect_runner"),
}
RUNNERS = tuple(_SCRIPTS)


def prepare(name: str) -> str:
    """Makes a runner's environment, unless it is there; its version. RuntimeError says what pip could not do."""
    package, _ = _SCRIPTS[name]
    venvs.make(package)
    return package.version


def measure(name: str, work: runner.Work, folder: Path) -> runner.Found:
    """Lets one evaluate; RuntimeError with the end of what it said when it fails."""
    package, script = _SCRIPTS[name]
    command = [str(package.bin / "python"), "-m", f"benchmarks.peers.{script}", *runner.arguments(work)]
    env = {**os.environ, **_QUIET, "HOME": str(folder), "HF_HOME": str(folder), "PYTHONPATH": str(_ROOT)}
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{name} took more than {LIMIT_S:g} s") from None
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode} and said: {(done.stdout + done.stderr)[-500:]}")
    return runner.told(folder)
