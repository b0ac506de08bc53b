#!/usr/bin/env bash
# Does the built wheel work where nothing else of ours is? Installs it into an empty environment, runs from an empty folder.
set -euo pipefail
tmp=$1
rm -rf "$tmp"; mkdir -p "$tmp/empty"
python -m build --wheel --outdir "$tmp/dist" .
python -m venv "$tmp/venv"
wheel=$(ls "$tmp"/dist/*.whl)
"$tmp/venv/bin/pip" install -q "${wheel}[embedded]"
export KITT_HOME="$tmp/home" KITT_CERTIFY=record  # how busy this machine is decides nothing here
cd "$tmp/empty"
"$tmp/venv/bin/pytest" --kitt-suite=quick --junitxml="$tmp/junit.xml"
"$tmp/venv/bin/kitt" results list --json | grep -q '"status": "passed"'
"$tmp/venv/bin/kitt" results show last
"$tmp/venv/bin/kitt" results export last --format csv -o "$tmp/run.csv"
grep -q 'ttft_ms,p50' "$tmp/run.csv"
"$tmp/venv/bin/kitt" test list
grep -q 'kitt.ttft_ms.p50' "$tmp/junit.xml"
"$tmp/venv/bin/pytest" --kitt-engine=simulated --kitt-benchmark=latency -q --kitt-html="$tmp/reports/r.html"
grep -q '<svg class="chart' "$tmp/reports/r.html"
"$tmp/venv/bin/pytest" --kitt-engine=simulated --kitt-offline --kitt-benchmark=gsm8k,hellaswag -q  # cards and samples
test "$(find . -type f -not -path './.pytest_cache/*' | wc -l)" = 0
