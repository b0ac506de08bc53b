#!/usr/bin/env bash
# Does the built wheel work where nothing else of ours is? Installs it into an empty environment, runs from an empty folder.
set -euo pipefail
tmp=$1
rm -rf "$tmp"; mkdir -p "$tmp/empty"
python -m build --wheel --outdir "$tmp/dist" .
python -m venv "$tmp/venv"
wheel=$(ls "$tmp"/dist/*.whl)
"$tmp/venv/bin/pip" install -q "${wheel}[embedded]"
export KITT_HOME="$tmp/home"
cd "$tmp/empty"
"$tmp/venv/bin/pytest" --kitt-suite=quick --junitxml="$tmp/junit.xml"
"$tmp/venv/bin/kitt" results list --json | grep -q '"status": "passed"'
"$tmp/venv/bin/kitt" results show last
"$tmp/venv/bin/kitt" test list
grep -q 'kitt.ttft_ms.p50' "$tmp/junit.xml"
"$tmp/venv/bin/pytest" --kitt-engine=simulated --kitt-benchmark=latency -q
test "$(find . -type f -not -path './.pytest_cache/*' | wc -l)" = 0
