"""Is an engine's image here, does it fit this machine, and how does it get here?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kitt.engine.layers import Layers
from pytest_kitt.errors import EngineStartError
from pytest_kitt.model.hub import Tell

if TYPE_CHECKING:
    from docker import DockerClient

Say = Callable[[str], None]
_VERSION_LABEL = "org.opencontainers.image.version"  # of the image specification of OCI, annotations.md
_TAIL_LINES = 15
_LINE_CHARS = 300
_FAILURES = (
    # what Docker or the registry says, class of the failure, what to do
    (
        r"no matching manifest|does not match the (specified|detected) platform",
        "architecture",
        "it is not made for {machine}: name another with --kitt-image",
    ),
    (r"toomanyrequests|rate limit", "refused", "the registry lets no more through for now: wait, or docker login"),
    (
        r"access denied|unauthorized|authentication required|denied:|forbidden",
        "refused",
        "it does not exist, or needs a login: check the name, or docker login",
    ),
    (
        r"manifest unknown|manifest for .* not found|not found|does not exist|invalid reference",
        "missing",
        "there is no such image: check name and tag",
    ),
    (
        r"no space left",
        "disk",
        "the disk is full: docker system df shows what takes the room, docker image prune frees some",
    ),
    (
        r"no such host|dial tcp|connection refused|timeout|timed out|unreachable|EOF|TLS|x509",
        "network",
        "the registry cannot be reached: check network and proxy of the Docker daemon",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that is here.

    Attributes:
        reference: as it was asked for.
        id: Docker's, a hash of its configuration.
        digest: ``name@sha256:...`` where a registry gave one, else the id.
        architecture: as Docker names them: amd64, arm64.
        version: of what is in it, as its label says; empty without one.

    """

    reference: str
    id: str
    digest: str
    architecture: str
    version: str = ""


def found(client: DockerClient, reference: str) -> LocalImage | None:
    """The image of that name, if it is here."""
    import docker.errors

    try:
        attrs = client.images.get(reference).attrs
    except docker.errors.ImageNotFound:
        return None
    except docker.errors.APIError as error:
        raise EngineStartError(f"image {reference!r}: {_said(error)}", kind="missing") from error
    digests = attrs.get("RepoDigests") or []
    name = reference.partition("@")[0]
    own = [
        digest
        for digest in digests
        if digest.partition("@")[0] == name.rpartition(":")[0] or name == digest.partition("@")[0]
    ]
    labels = (attrs.get("Config") or {}).get("Labels") or {}
    return LocalImage(
        reference,
        attrs["Id"],
        digest=(own or digests or [attrs["Id"]])[0],
        architecture=attrs.get("Architecture", ""),
        version=str(labels.get(_VERSION_LABEL, "")),
    )


def ensured(
    client: DockerClient,
    reference: str,
    *,
    engine: str,
    dockerfile: Path | None = None,
    auto_pull: bool = False,
    force: bool = False,
    say: Say = lambda _: None,
    tell: Tell = lambda *_: None,
) -> LocalImage:
    """The image, pulled or built from ``dockerfile`` if it may be; EngineStartError says why not.

    ``say`` is told what is done, ``tell`` how many bytes of the image are here, of how many that are known. An image
    for another architecture is refused, unless ``force`` is set.
    """
    image = found(client, reference)
    if image is None:
        if not auto_pull:
            raise EngineStartError(absent(reference, engine, dockerfile), kind="missing")
        if dockerfile is None:
            pull(client, reference, say=say, tell=tell)
        else:
            build(client, reference, dockerfile, say=say)
        image = found(client, reference)
    if image is None:
        raise EngineStartError(f"image {reference} is not here, although Docker said that it came", kind="missing")
    machine = _machine(client)
    if machine and image.architecture not in ("", machine) and not force:
        raise EngineStartError(
            f"image {reference} is for {image.architecture}, and this machine is {machine}: name another with "
            "--kitt-image (or try this one with --kitt-force)",
            kind="architecture",
        )
    return image


def absent(reference: str, engine: str, dockerfile: Path | None = None) -> str:
    """How to get an image that is not here, in one sentence."""
    by_hand = (
        f"docker build -t {reference} -f {dockerfile} {dockerfile.parent}" if dockerfile else f"docker pull {reference}"
    )
    return (
        f"image {reference} of engine {engine} is not here: {by_hand}, or "
        f"kitt engines setup {engine} --image {reference}, or run with --kitt-auto-pull"
    )


def pull(client: DockerClient, reference: str, *, say: Say = lambda _: None, tell: Tell = lambda *_: None) -> None:
    """Pulls one image; EngineStartError (missing, refused, network, disk, architecture) when that fails."""
    import docker.errors
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(reference)
    machine = _machine(client) or "this machine"
    try:
        events = client.api.pull(repository, tag=tag or "latest", stream=True, decode=True)
        _follow(_checked(events), reference, say, tell)
    except docker.errors.APIError as error:
        raise _failure(f"image {reference} cannot be pulled", _said(error), machine) from error
    except _StreamError as error:
        raise _failure(f"image {reference} cannot be pulled", str(error), machine) from error


def build(client: DockerClient, reference: str, dockerfile: Path, *, say: Say = lambda _: None) -> None:
    """Builds an image with the Dockerfile's folder as context; EngineStartError (build) carries the end of the log."""
    import docker.errors

    lines: list[str] = []
    try:
        events = client.api.build(
            path=str(dockerfile.parent), dockerfile=dockerfile.name, tag=reference, rm=True, forcerm=True, decode=True
        )
        for event in _checked(events):
            new = [line[:_LINE_CHARS] for line in str(event.get("stream", "")).splitlines() if line.strip()]
            lines = [*lines, *new][-_TAIL_LINES:]
            for line in new:
                say(f"builds {reference}: {line}")
    except (docker.errors.APIError, docker.errors.BuildError, _StreamError, OSError, TypeError) as error:
        said = " ".join(str(getattr(error, "explanation", None) or error).split())[:_LINE_CHARS]
        tail = "\n".join(lines)
        raise EngineStartError(
            f"image {reference} cannot be built from {dockerfile}: {said}", kind="build", log_tail=tail
        ) from error


def _follow(events: Iterator[Mapping[str, Any]], reference: str, say: Say, tell: Tell) -> None:
    """Tells the bytes of all layers while some are under way, else in words what Docker does."""
    layers = Layers()
    for event in events:
        status, name, detail = str(event.get("status", "")), str(event.get("id", "")), event.get("progressDetail") or {}
        news = False
        if status == "Downloading" and detail.get("total"):
            news = layers.take(name, int(detail["current"]), int(detail["total"]))
        elif status in ("Download complete", "Pull complete"):
            news = layers.complete(name)
        if news:
            tell(reference, layers.done, layers.total, 0)
        elif layers.done == layers.total:
            say(f"pulls {reference}: {status[:_LINE_CHARS]}")


def _machine(client: DockerClient) -> str:
    """The architecture that Docker runs on."""
    return str(client.version().get("Arch", ""))


class _StreamError(Exception):
    """What went wrong is said in the middle of the stream."""


def _checked(events: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The events up to an error; it is read to its end all the same, or its connection would stay open."""
    failed = ""
    for event in events:
        failed = failed or str(event.get("error") or "")
        if not failed:
            yield event
    if failed:
        raise _StreamError(failed)


def _said(error: Any) -> str:
    return " ".join(str(error.explanation or error).split())[:500]


def _failure(what: str, said: str, machine: str) -> EngineStartError:
    for pattern, kind, cure in _FAILURES:
        if re.search(pattern, said, re.IGNORECASE):
            return EngineStartError(f"{what}: {cure.format(machine=machine)} ({said})", kind=kind)
    return EngineStartError(f"{what}: {said}", kind="pull")
