"""Runs llama.cpp's own HTTP server, from the xllamacpp package, until it is told to stop.

Prints one line, ``{"url": ...}``, when the model is loaded and the server listens. What can differ between releases
(host, port, context, slots, threads, seed, caches) is set explicitly.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from urllib.parse import urlsplit


def main() -> int:
    """Serves until SIGTERM; exit code 1 when the model cannot be loaded (llama.cpp says why on standard error)."""
    options = _parse()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = options.context * options.parallel  # llama.cpp divides it among the slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads or _threads()
    params.sampling.seed = options.seed
    params.cache_ram_mib = 0
    params.endpoint_metrics = params.endpoint_slots = True
    params.use_jinja = True
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.stderr.write(f"llama.cpp could not start: {error}\n")
        return 1
    port = urlsplit(server.listening_address).port
    sys.stdout.write(json.dumps({"url": f"http://{options.host}:{port}"}) + "\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)  # nothing is kept that a slow shutdown could save


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama_server", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _threads() -> int:
    """One core is left to the client: llama.cpp's threads spin, and collapse when they share a core with anything."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


if __name__ == "__main__":
    sys.exit(main())
