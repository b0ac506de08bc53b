"""How does ``kitt_load`` turn a load, a workload and a stop into a result on one engine?"""

from __future__ import annotations

import base64
import dataclasses
import math
import resource
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from pytest_kitt.dialect import apis
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.engine.health import Watch
from pytest_kitt.errors import InvalidMeasurement, UserError
from pytest_kitt.load import accounting, certificate, run
from pytest_kitt.load.result import LoadResult
from pytest_kitt.load.run import Progress
from pytest_kitt.load.spec import (
    Adaptive,
    Arrivals,
    Calls,
    ClientSpec,
    Closed,
    Ending,
    Load,
    Prompts,
    Proxy,
    Stop,
    Synthetic,
    Workload,
    load_of,
    stop_of,
    workload_of,
)
from pytest_kitt.load.spool import SpooledBlock
from pytest_kitt.load.workload import Bodies, bodies
from pytest_kitt.measure.records import RequestTable
from pytest_kitt.settings import Api

_OPEN_WARMUP_S = 2.0
_MAX_OPEN_WARMUP = 200
_MAX_OPENED_BEFORE = 512
_MAX_IN_FLIGHT = 10_000
_FILES_BESIDE_CONNECTIONS = 128
_MOST_RETRIES = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A load as asked for, its short forms resolved.

    Attributes:
        load: how requests arrive.
        workload: what they ask.
        stop: when enough was measured.
        api: which API is spoken.
        warmup: uncounted requests in front.
        hold: keep the load up until the last measured request has ended.
        keep_text: record the answers' texts.
        bundled: the server sends tokens together, and that is fine: there is no ITL then.
        certify: raise InvalidMeasurement when the certificate does not hold.
        timeout_s: limit of one request.
        clients: processes that send it.
        seed: of every random choice.
        retries: how often a request is sent again that the server did not take.

    """

    load: Load
    workload: Workload
    stop: Stop
    api: Api
    warmup: int
    hold: bool
    keep_text: bool
    bundled: bool
    certify: bool
    timeout_s: float
    clients: int
    seed: int
    retries: int = 0

    def params(self, made: Bodies, sent: int) -> dict[str, Any]:
        """What is stored with the result."""
        params: dict[str, Any] = {
            "load": str(self.load),
            **_level(self.load),
            "workload": str(self.workload),
            "stop": str(self.stop),
            **({"path": self.workload.path} if isinstance(self.workload, Calls) else {"api": self.api}),
            "warmup": self.warmup,
            "clients": self.clients,
            "seed": self.seed,
        }
        if made.isl_by:
            params["prompt_length_by"] = made.isl_by
        if isinstance(self.workload, Prompts) and sent > len(self.workload.prompts):
            params["prompts_repeat"] = True
        if self.bundled:
            params["bundled"] = True
        if self.retries:
            params["retries"] = self.retries
        return params


def asked(  # noqa: PLR0913 - one keyword per field of the record
    load: Load | str,
    work: Workload | str,
    stop: Stop | str,
    *,
    api: Api,
    seed: int,
    warmup: int | None = None,
    hold: bool = True,
    keep_text: bool = False,
    bundled: bool = False,
    certify: bool = True,
    timeout_s: float = 120.0,
    clients: int = 1,
    retries: int = 0,
) -> Asked:
    """Resolves short forms and defaults; UserError says what is wrong.

    The default warm-up is one request per slot of a closed loop (as it begins, where it is adaptive), two seconds of an
    open one (at most 200 requests).
    """
    resolved, until = load_of(load), stop_of(stop)
    if warmup is not None and warmup < 0:
        raise UserError(f"warmup={warmup}: it is a number of requests, 0 for none")
    if not 0 < timeout_s < math.inf:
        raise UserError(f"timeout_s={timeout_s}: it is a positive number of seconds")
    if not 0 <= retries <= _MOST_RETRIES:
        raise UserError(f"retries={retries}: a request is sent again between 0 and {_MOST_RETRIES} times")
    if retries and isinstance(resolved, Arrivals):
        raise UserError(
            f"retries={retries}: what is sent again is not on the schedule of {resolved}; take a closed loop"
        )
    most = min(_slots(resolved) or clients, until.requests or clients)
    if not 1 <= clients <= most:
        raise UserError(f"{clients} clients cannot share {resolved} until {until}: each needs a slot and a request")
    return Asked(
        load=resolved,
        workload=workload_of(work),
        stop=until,
        api=api,
        warmup=_default_warmup(resolved) if warmup is None else warmup,
        hold=hold,
        keep_text=keep_text,
        bundled=bundled,
        certify=certify,
        timeout_s=timeout_s,
        clients=clients,
        seed=seed,
        retries=retries,
    )


def apply(
    wanted: Asked,
    engine: RunningEngine,
    *,
    mark: str,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_block: Callable[[SpooledBlock, RequestTable], None] = lambda *_: None,
) -> LoadResult:
    """Runs a load; its result, which ``require_trust`` has still to judge, and each raw block as it comes.

    Stopped, with what there is until then, when it is ended in between: by Ctrl-C, by a limit of time, by the death of
    the engine.
    """
    made = bodies(wanted.workload, engine, wanted.api, seed=wanted.seed)
    look = Watch(engine.health).look
    try:
        raw = run.run(
            _spec(wanted, made, engine),
            mark=mark,
            clients=wanted.clients,
            on_progress=on_progress,
            on_block=on_block,
            watch=lambda now: look(now.reads, now.in_flight),
            spool_texts=not isinstance(wanted.workload, Calls),
        )
    except run.Interrupted as interrupted:
        raise Stopped(interrupted.cause, _result(wanted, made, interrupted.raw)) from None
    result = _result(wanted, made, raw)
    if (raw.ending.stopped or result.failed) and (dead := engine.health.diagnosis()):
        raise Stopped(dead, result)
    return result


class Stopped(BaseException):
    """A load that was ended from outside, or by the death of the engine.

    Attributes:
        cause: what is to be raised when the rest is in safety.
        result: of the requests that had ended.

    """

    def __init__(self, cause: BaseException, result: LoadResult) -> None:
        super().__init__(cause)
        self.cause, self.result = cause, result


def _result(wanted: Asked, made: Bodies, raw: run.Raw) -> LoadResult:
    certified = certificate.certify(raw.records, wanted.load, raw.clients, held=wanted.hold, bundled=wanted.bundled)
    params = wanted.params(made, len(raw.records)) | {
        "clock": raw.ending.clock,
        "tokens_counted_by": accounting.counters(raw.records),
        "client": _account(raw.ending),
        "certificate": certified.as_params() | {"required": wanted.certify},
        **({"concurrency_found": raw.ending.slots} if isinstance(wanted.load, Adaptive) else {}),
    }
    whole = isinstance(wanted.workload, Calls)
    return LoadResult(
        raw.records, raw.ending, certified, params, bundled=wanted.bundled, whole=whole, began_ns=raw.began_ns
    )


def require_trust(result: LoadResult, wanted: Asked, engine: RunningEngine) -> None:
    """InvalidMeasurement when the numbers of a load would be wrong.

    That is when not one request succeeded, when the load ended before its stop, or when its certificate or its token
    counts do not hold.
    """
    result.require_samples()
    if result.ending.stopped:
        raise InvalidMeasurement(f"the load ended after {result.n} good requests: {result.ending.stopped}")
    if not wanted.certify:
        return
    doubts = list(result.certificate.broken)
    cures = [result.certificate.cure] if doubts else []
    if miscounted := _miscounted(result, wanted, engine):
        doubts += miscounted
        cures.append("kitt_load(..., certify=False) goes on with the server's counts")
    if doubts:
        failed = f" ({result.n} requests were good, {result.failed} failed)" if result.failed else ""
        raise InvalidMeasurement(f"{'; '.join(doubts)}{failed}. Next: {'; '.join(cures)}. Bounds: docs/loads.md")


def _miscounted(result: LoadResult, wanted: Asked, engine: RunningEngine) -> list[str]:
    exact = isinstance(wanted.workload, Synthetic) and result.params.get("prompt_length_by") == "tokenizer"
    return accounting.doubts(
        result.records,
        result.ending.samples,
        tokenize=(lambda text: len(engine.tokenize(text))) if "tokenize" in engine.capabilities else None,
        prompt_tokens=wanted.workload.prompt_tokens if exact and isinstance(wanted.workload, Synthetic) else 0,
    )


def _slots(load: Load) -> int:
    """Requests under way in a closed loop when it begins; 0 of an open one."""
    return 0 if isinstance(load, Arrivals) else load.concurrency if isinstance(load, Closed) else load.first


def _level(load: Load) -> dict[str, Any]:
    """What is stored of how many requests are under way, or come."""
    if isinstance(load, Closed):
        return {"concurrency": load.concurrency}
    if isinstance(load, Adaptive):
        return {"concurrency_most": load.most}
    return {"rate_rps": load.rate_rps, "arrival_cv": load.cv}


def _default_warmup(load: Load) -> int:
    if not isinstance(load, Arrivals):
        return _slots(load)
    return min(_MAX_OPEN_WARMUP, max(1, round(load.rate_rps * _OPEN_WARMUP_S)))


def _account(ending: Ending) -> dict[str, float]:
    """What the clients say of themselves, for whoever doubts a number."""
    return {
        "cpu_s": round(ending.cpu_s, 4),
        "wall_s": round(ending.wall_s, 4),
        "max_rss_bytes": ending.max_rss_bytes,
        "stall_ms": round(ending.stall_ms, 3),
        "merged_reads": ending.merged,
        "clock_drift_us": ending.clock_drift_ns / 1000,
    }


def _spec(wanted: Asked, made: Bodies, engine: RunningEngine) -> ClientSpec:
    host, port, tls, prefix = run.address(engine.url)
    load, calls = wanted.load, wanted.workload if isinstance(wanted.workload, Calls) else None
    closed = _slots(load)
    most = load.most if isinstance(load, Adaptive) else 0
    opened = max(8, min(_MAX_OPENED_BEFORE, math.ceil(load.rate_rps))) if isinstance(load, Arrivals) else 0
    return ClientSpec(
        host=host,
        port=port,
        tls=tls,
        ca_file=engine.access.ca_file,
        path=prefix + (calls.path if calls else apis.path(wanted.api)),
        headers=engine.access.headers,
        bodies=made.bodies,
        bodies_fd=made.fd,
        prefix_words=made.words,
        prefix_length=made.prefix_length,
        salt=made.salt,
        concurrency=closed,
        warmup=wanted.warmup,
        requests=wanted.stop.requests,
        seconds=wanted.stop.seconds,
        hold=wanted.hold and max(closed, most) != 1,
        timeout_s=wanted.timeout_s,
        keep_text=wanted.keep_text or calls is not None,
        api=apis.WHOLE if calls else wanted.api,
        arrivals=load if isinstance(load, Arrivals) else None,
        seed=str(wanted.seed),
        connections=opened,
        max_connections=0 if closed else _max_connections(),
        max_error_share=wanted.stop.max_error_share,
        proxy=_proxy(engine.access.proxy),
        most=most,
        retries=wanted.retries,
    )


def _max_connections() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MAX_IN_FLIGHT if hard == resource.RLIM_INFINITY else hard - _FILES_BESIDE_CONNECTIONS
    return max(1, min(_MAX_IN_FLIGHT, files))


def _proxy(url: str) -> Proxy | None:
    if not url:
        return None
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
    return Proxy(parts.hostname or "", parts.port or 80, f"Basic {basic}" if basic else "")
