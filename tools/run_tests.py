"""Do the tests pass? The few that failed beside others are run once more with the machine to themselves, and named.

``python -m tools.run_tests [pytest's arguments]`` runs them on four workers: most tests wait for longer than they
compute, for an engine, a container or a signal, and two workers leave two cores idle. Many start engines, clients and
browsers, and on two cores a neighbour can hold a machine for seconds. A test that then passes alone is UNSTABLE, as the
last lines say: a fault of that test, to be mended. One that fails twice is a failure; so are more than eight at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FAILED = 1  # pytest's exit code for failed tests
_FEW = 8
_WORKERS = "4"
_COMMAND = ("-c", "tests/pytest.ini", "--rootdir", str(ROOT), "--confcutdir", str(ROOT))


def main(arguments: list[str]) -> int:
    """Pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="run-tests-") as folder:
        failures = Path(folder, "failures")
        code = _pytest("-n", _WORKERS, *arguments, failures=failures)
        failed = failures.read_text(encoding="utf-8").splitlines() if failures.is_file() else []
        if code != _FAILED or not 0 < len(failed) <= _FEW:
            return code
        sys.stdout.write(f"\nonce more, with the machine to themselves: {', '.join(failed)}\n")
        sys.stdout.flush()
        code = _pytest(*failed, failures=failures)
        if code == 0:
            sys.stdout.write("".join(f"UNSTABLE: passed alone, failed beside others: {name}\n" for name in failed))
        return code


def _pytest(*arguments: str, failures: Path) -> int:
    """One session, on the coverage tool's account; the node ids of what failed are written to a file."""
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *_COMMAND, *arguments]
    environment = {**os.environ, "TEST_FAILURES_FILE": str(failures)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
