"""How is a server reached that already runs? Asked once which models it has, never started or stopped."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from pytest_kitt.cards import EngineCard
from pytest_kitt.dialect.answer import bounded
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.engine.health import Health
from pytest_kitt.engine.simulated import OWNER
from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.matrix import Cell, base_url
from pytest_kitt.settings import SECRET_ENV, Settings

_MODELS = "/v1/models"
_PROBE_TIMEOUT_S = 10.0
_MAX_LISTED = 20


def access(settings: Settings) -> Access:
    """How the settings say that the server is reached."""
    if settings.ca_file and not Path(settings.ca_file).is_file():
        raise UserError(f"--kitt-ca-file: {settings.ca_file} is no file")
    url = base_url(settings.url)
    return Access(url, headers(settings), settings.ca_file, settings.request_timeout, _proxy_for(url))


def headers(settings: Settings) -> tuple[tuple[str, str], ...]:
    """What each request to a server carries that others have configured."""
    key = (("Authorization", f"Bearer {settings.api_key}"),) if settings.api_key else ()
    return (*settings.header, *key)


def _proxy_for(url: str) -> str:
    """The HTTP proxy that the environment names for an address; never for this machine itself."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return ""
    proxy = getproxies().get(parts.scheme, "")
    if proxy and not proxy.startswith("http://"):
        raise UserError(
            f"{parts.scheme.upper()}_PROXY names a proxy that is not http://; to go without, set NO_PROXY={host}"
        )
    return proxy


def model_of(http: httpx.Client, named: str) -> str:
    """The model of a service that is up: the named one if it has it, else its only one; EngineStartError (model)."""
    try:
        response = http.get(_MODELS, timeout=_PROBE_TIMEOUT_S)
        names = _names(response) if response.status_code == httpx.codes.OK else []
    except httpx.TransportError:
        names = []
    if named and names and named not in names:
        raise EngineStartError(f"--kitt-model: the service has no {named!r}; it has: {_listing(names)}", kind="model")
    if not named and len(names) != 1:
        found = f"it has {len(names)}: {_listing(names)}" if names else "it does not list its models"
        raise EngineStartError(f"--kitt-compose: which model? {found}; add --kitt-model=NAME", kind="model")
    return named or names[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """What a server that already runs is measured as.

    Attributes:
        model: its name there.
        synthetic: the server says of itself that it is the simulated engine.

    """

    model: str
    synthetic: bool = False


def served(settings: Settings) -> Served:
    """What is to be measured: the named model if the server has it, else its only one; UserError says what is wrong."""
    owners = _list_models(settings)
    model = _model_among(list(owners), settings)
    return Served(model, synthetic=owners.get(model) == OWNER)


def _model_among(names: list[str], settings: Settings) -> str:
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
        health = Health(card, http, usual_status=_health_status(card, http))
        yield RunningEngine(cell, card, reach, http=http, version=ask_version(card, http), health=health)


def _health_status(card: EngineCard, http: httpx.Client) -> int:
    """What the health path answers while all is well: behind a gateway that may be an error."""
    try:
        return http.get(card.health, timeout=_PROBE_TIMEOUT_S).status_code
    except httpx.TransportError:
        return httpx.codes.OK


def _list_models(settings: Settings) -> dict[str, str]:
    """The names of the server's models, with who owns each."""
    reach = access(settings)
    try:
        with reach.client() as http:
            response = http.get(_MODELS, timeout=_PROBE_TIMEOUT_S)
    except httpx.TransportError as error:
        reason = bounded(str(error)) or type(error).__name__
        raise UserError(
            f"--kitt-url: {reach.url} cannot be reached{_by_way_of(reach)}: {reason}; "
            "is the server up, and the port right?"
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
    return _owners(response) if status == httpx.codes.OK else {}


def _by_way_of(reach: Access) -> str:
    """Which proxy of the environment is in between; without its name and password."""
    if not reach.proxy:
        return ""
    parts = urlsplit(reach.proxy)
    return f" through the proxy {parts.hostname}:{parts.port or 80} (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)"


def _names(response: httpx.Response) -> list[str]:
    return list(_owners(response))


def _owners(response: httpx.Response) -> dict[str, str]:
    """Who owns each model of a list, by its name; nothing where the answer is no such list."""
    try:
        return {str(entry["id"])[:200]: str(entry.get("owned_by", ""))[:200] for entry in response.json()["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _listing(names: list[str]) -> str:
    shown = ", ".join(bounded(name) for name in names[:_MAX_LISTED])
    return shown + (f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else "")
