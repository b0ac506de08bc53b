"""How wrong is each of our clocks? The kernel's stamps, the process's own clock, and both behind TLS.

    python -m benchmarks.clocks

The same load of 32 streams against the truth server; errors are request by request and gap by gap against its own log,
in microseconds. TLS is ended by stunnel (Debian: stunnel4), whose own delay is in the numbers: it forwards each token
in its own time, so that they are an upper bound of the client's error. Exit code 0; 1 when the kernel's clock is off by
more than 100 us (TTFT) or 50 us (ITL) at p99; 3 without stunnel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.trials import MARK, load_spec
from benchmarks.truth import log
from benchmarks.truth.server import running
from pytest_kitt.load.run import address, run
from pytest_kitt.load.spec import Closed
from pytest_kitt.measure.stats import percentile

MAX_TTFT_US, MAX_ITL_US = 100.0, 50.0
_RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Runs the variants, prints one table, keeps the numbers."""
    tls = shutil.which("stunnel4") or shutil.which("stunnel")
    rows = []
    print(f"{'':14} {'clock':8} {'TTFT error p50':>14} {'p99':>8} {'ITL error p50':>14} {'p99':>8}   us")
    for behind_tls, user in itertools.product((False, True) if tls else (False,), (False, True)):
        row = _row(behind_tls=behind_tls, user=user)
        rows.append(row)
        ttft, itl = row["ttft_us"], row["itl_us"]
        name = "TLS (stunnel)" if behind_tls else "plain"
        print(f"{name:14} {row['clock']:8} {ttft[0]:>14.1f} {ttft[1]:>8.1f} {itl[0]:>14.1f} {itl[1]:>8.1f}", flush=True)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "clocks.json").write_text(json.dumps(rows, indent=1))
    good = rows[0]["ttft_us"][1] <= MAX_TTFT_US and rows[0]["itl_us"][1] <= MAX_ITL_US
    if not tls:
        print("not judged behind TLS: stunnel is not installed (apt-get install stunnel4)")
    return 1 if not good else 0 if tls else 3


def _row(*, behind_tls: bool, user: bool) -> dict[str, Any]:
    with contextlib.ExitStack() as life:
        server = life.enter_context(running("--ttft-ms", "50", "--itl-ms", "10"))
        spec = dataclasses.replace(load_spec(server.url, Closed(32), tokens=64), user_clock=user, hold=False, warmup=0)
        if behind_tls:
            port, certificate = life.enter_context(_tunnel(server.url))
            spec = dataclasses.replace(spec, port=port, tls=True, ca_file=str(certificate))
        raw = run(spec, mark=MARK)
        time.sleep(0.5)  # the log is flushed when no request is active
        served = {s.id: s for s in log.read(server.log)}
    ttft, itl = [], []
    for r in raw.records.rows():
        true = served[f"kitt-{r.index}"]
        ttft.append(abs((r.event_ns[0] - r.send_ns) - (true.sent_ns[0] - true.arrive_ns)) / 1e3)
        gaps = zip(itertools.pairwise(r.event_ns), itertools.pairwise(true.sent_ns), strict=True)
        itl += [abs((b - a) - (d - c)) / 1e3 for (a, b), (c, d) in gaps]
    return {
        "tls": behind_tls,
        "clock": raw.ending.clock,
        "ttft_us": [percentile(sorted(ttft), q) for q in (0.5, 0.99)],
        "itl_us": [percentile(sorted(itl), q) for q in (0.5, 0.99)],
    }


@contextlib.contextmanager
def _tunnel(url: str) -> Iterator[tuple[int, Path]]:
    """A TLS port in front of a server, and the certificate to trust."""
    host, port, *_ = address(url)
    with tempfile.TemporaryDirectory(prefix="clocks-") as name:
        key, certificate, config = (Path(name) / file for file in ("key.pem", "cert.pem", "stunnel.conf"))
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ]
        subject = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*make, *subject], check=True, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        config.write_text(
            f"foreground = yes\npid =\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n[truth]\n"
            f"accept = 127.0.0.1:{free}\nconnect = {host}:{port}\ncert = {certificate}\nkey = {key}\n"
        )
        program = shutil.which("stunnel4") or shutil.which("stunnel") or "stunnel4"
        with subprocess.Popen([program, str(config)], stderr=subprocess.DEVNULL) as process:
            try:
                _wait(free)
                yield free, certificate
            finally:
                process.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise RuntimeError("stunnel did not start")


if __name__ == "__main__":
    sys.exit(main())
