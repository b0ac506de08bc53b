"""How is a server reached that already runs? Asked once which models it has, never started or stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from pytest_kitt.cards import EngineCard
from pytest_kitt.dialect.openai import bounded
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.matrix import Cell, base_url
from pytest_kitt.settings import SECRET_ENV, Settings

_MODELS = "/v1/models"
_PROBE_TIMEOUT_S = 10.0
_MAX_LISTED = 20


def access(settings: Settings) -> Access:
    """How the settings say that the server is reached."""
    headers = list(settings.header)
    if settings.api_key:
        headers.append(("Authorization", f"Bearer {settings.api_key}"))
    if settings.ca_file and not Path(settings.ca_file).is_file():
        raise UserError(f"--kitt-ca-file: {settings.ca_file} is no file")
    return Access(base_url(settings.url), tuple(headers), settings.ca_file, settings.request_timeout)


def served_model(settings: Settings) -> str:
    """The model to measure: the named one if the server has it, else its only one; UserError says what is wrong."""
    names = _list_models(settings)
    if len(settings.model) > 1:
        raise UserError(f"--kitt-url: name one model of the server at a time, not {len(settings.model)}")
    if settings.model:
        if names and settings.model[0] not in names:
            raise UserError(f"--kitt-model: the server has no {settings.model[0]!r}; it has: {_listing(names)}")
        return settings.model[0]
    if len(names) != 1:
        found = f"it has {len(names)}: {_listing(names)}" if names else "it does not list its models"
        raise UserError(f"--kitt-url: which model? {found}; add --kitt-model=NAME")
    return names[0]


@contextlib.contextmanager
def reached(
    cell: Cell, card: EngineCard, settings: Settings, *, ask_version: Callable[[EngineCard, httpx.Client], str]
) -> Iterator[RunningEngine]:
    """The server as an engine; EngineStartError when it does not answer."""
    reach = access(settings)
    with reach.client() as http:
        try:
            response = http.get(_MODELS, timeout=_PROBE_TIMEOUT_S)
        except httpx.TransportError as error:
            raise EngineStartError(f"{reach.url} does not answer: {error}", kind="unreachable") from error
        if response.status_code in (401, 403):
            raise EngineStartError(f"{reach.url} refuses the API key (status {response.status_code})", kind="refused")
        yield RunningEngine(cell, card, reach, http=http, version=ask_version(card, http))


def _list_models(settings: Settings) -> list[str]:
    reach = access(settings)
    try:
        with reach.client() as http:
            response = http.get(_MODELS, timeout=_PROBE_TIMEOUT_S)
    except httpx.TransportError as error:
        reason = bounded(str(error)) or type(error).__name__
        raise UserError(
            f"--kitt-url: {reach.url} cannot be reached: {reason}; is the server up, and the port right?"
        ) from error
    except OSError as error:
        raise UserError(f"--kitt-ca-file: {settings.ca_file} is no usable PEM file: {error}") from error
    status = response.status_code
    if status in (401, 403):
        have = "refuses the API key" if settings.api_key else "wants an API key"
        raise UserError(f"--kitt-url: {reach.url} {have} (status {status}); set {SECRET_ENV} or --kitt-api-key-file")
    if status != httpx.codes.OK and not settings.model:
        raise UserError(
            f"--kitt-url: {reach.url}{_MODELS} answers with status {status}: no OpenAI-compatible server there? "
            "check address and path, or name the model with --kitt-model"
        )
    return _names(response) if status == httpx.codes.OK else []


def _names(response: httpx.Response) -> list[str]:
    try:
        return [str(entry["id"])[:200] for entry in response.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []


def _listing(names: list[str]) -> str:
    shown = ", ".join(bounded(name) for name in names[:_MAX_LISTED])
    return shown + (f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else "")
