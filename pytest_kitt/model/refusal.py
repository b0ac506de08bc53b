"""Why does the hub not give a model, and what helps? One sentence for each reason that huggingface_hub raises."""

from __future__ import annotations

import errno

from pytest_kitt.errors import EngineStartError, why
from pytest_kitt.model import cache
from pytest_kitt.model.reference import HubId

_OFFLINE = "unset HF_HUB_OFFLINE once to download it, or copy it into the cache"
_MISSING = "pip install 'pytest-kitt[hub]'"


def explained(error: BaseException, hub: HubId) -> EngineStartError:
    """What went wrong with a model, as huggingface_hub's error says it; nothing of what a server wrote is repeated."""
    from huggingface_hub import errors, get_token

    token = "the token" if get_token() else ""
    if isinstance(error, errors.GatedRepoError):
        cure = f"{token} has no access yet: ask for it" if token else "ask for access"
        return refused(hub, f"is gated; {cure} on its page on the hub{'' if token else ', then set HF_TOKEN'}")
    if isinstance(error, errors.RepositoryNotFoundError):
        cure = "use a token that may read it" if token else "set HF_TOKEN to a token that may read it"
        return refused(hub, f"is not on the hub, or private; check the name, or {cure}")
    if isinstance(error, errors.DisabledRepoError):
        return refused(hub, "was disabled on the hub; use another")
    if isinstance(error, errors.RevisionNotFoundError):
        return refused(hub, f"has no revision {hub.revision!r} on the hub; name a branch, a tag or a commit of it")
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return explained(error.__cause__, hub)
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return offline(hub)
    if isinstance(error, errors.EntryNotFoundError):
        return refused(hub, "lacks a file on the hub that it had a moment ago; try again")
    if isinstance(error, errors.HfHubHTTPError):
        return _by_status(hub, error.response.status_code, token=bool(token))
    if isinstance(error, errors.HTTPError):  # of httpx, whichever of its generations the library uses
        return unreachable(hub)
    if isinstance(error, OSError):
        return _by_errno(hub, error)
    return refused(hub, "cannot be had: what answered is no hub; check HF_ENDPOINT and the proxy")


def refused(hub: HubId, reason: str, kind: str = "model") -> EngineStartError:
    """A model, and why it cannot be had."""
    return EngineStartError(f"model {str(hub)!r} {reason}", kind=kind)


def offline(hub: HubId) -> EngineStartError:
    """Nothing may be asked, and the model is not there."""
    return refused(hub, f"is not in the cache ({cache.folder()}) and HF_HUB_OFFLINE forbids to ask the hub; {_OFFLINE}")


def unreachable(hub: HubId) -> EngineStartError:
    """Nothing answers, or not to the end."""
    return refused(
        hub,
        "cannot be downloaded: the hub is out of reach, or the transfer was cut off; check the network and run again, "
        "what is here already stays",
        kind="network",
    )


def not_installed(hub: HubId) -> EngineStartError:
    """The library that downloads is not there."""
    return refused(
        hub, f"is not in the cache, and to download it needs the package huggingface_hub: {_MISSING}", "missing"
    )


def no_room(hub: HubId, needed: str, free: str) -> EngineStartError:
    """The disk is too small."""
    return refused(
        hub,
        f"needs {needed} more in {cache.folder()} and {free} are free; make room, or set HF_HUB_CACHE to a larger disk",
        kind="disk",
    )


def _by_status(hub: HubId, status: int, *, token: bool) -> EngineStartError:
    if status == 401:
        cure = "make a new one and set HF_TOKEN to it" if token else "set HF_TOKEN"
        return refused(hub, f"cannot be had: the hub does not accept {'the token' if token else 'a stranger'}; {cure}")
    if status == 403:
        return refused(hub, "is forbidden to this token; use one that may read it")
    if status == 429:
        return refused(hub, "cannot be had: the hub wants fewer requests; try again later, or set HF_TOKEN", "network")
    return refused(hub, f"cannot be had: the hub answered with status {status}; try again later", "network")


def _by_errno(hub: HubId, error: OSError) -> EngineStartError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return refused(
            hub,
            f"does not fit on the disk of {cache.folder()}; make room, or set HF_HUB_CACHE to a larger disk",
            kind="disk",
        )
    if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
        return unreachable(hub)
    return refused(
        hub, f"cannot be put into {cache.folder()}: {why(error)}; set HF_HUB_CACHE to another folder", "disk"
    )
