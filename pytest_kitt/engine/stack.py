"""What does compose make of a file, and what of it is not there? Services, their ports, their images."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from pytest_kitt import composefile
from pytest_kitt.cards import EngineCard
from pytest_kitt.composefile import Service
from pytest_kitt.engine import pull, sibling
from pytest_kitt.engine.compose import Project, program
from pytest_kitt.engine.daemon import answering, connected
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.errors import EngineStartError
from pytest_kitt.model.hub import Tell
from pytest_kitt.settings import Settings

if TYPE_CHECKING:
    from docker import DockerClient


@dataclasses.dataclass(frozen=True, slots=True)
class Stack:
    """A service as compose understands its file.

    Attributes:
        service: the engine.
        config: the whole file, with its variables filled in.

    """

    service: Service
    config: Mapping[str, Any]

    @property
    def engine(self) -> Mapping[str, Any]:
        """What it says of the engine."""
        return mapping(mapping(self.config.get("services")).get(self.service.name))

    @property
    def needed(self) -> dict[str, Mapping[str, Any]]:
        """The engine's service and those that it depends on, by name."""
        services = mapping(self.config.get("services"))
        found: dict[str, Mapping[str, Any]] = {}
        waiting = [self.service.name]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = mapping(services.get(name))
                links = [str(link).partition(":")[0] for link in found[name].get("links") or ()]
                waiting += [*map(str, found[name].get("depends_on") or ()), *links]
        return found

    @property
    def on_host(self) -> bool:
        """Whether the engine is in this machine's own network."""
        return self.engine.get("network_mode") == "host"

    def trouble(self, port: int, *, beside: bool) -> str:
        """Why the engine could not be started or reached, in one sentence; empty when it could.

        Args:
            port: where engines of its kind listen, 0 where that is not known.
            beside: pytest runs in a container that joins the project's network.

        """
        where = f"{self.service.file}: service {self.service.name!r}"
        for name, said in self.needed.items():
            if not said.get("image"):
                return (
                    f"{self.service.file}: service {name!r} has no image: give it one (image: NAME), which is built "
                    "once and not for each session"
                )
        if self.on_host and not port and len(exposed(self.engine)) != 1:
            return (
                f"{where} is in the host's network, and where it listens is not known: name it with --kitt-engine, "
                "or its port in the file (expose: [8000])"
            )
        if not self.on_host and not beside and not self.engine.get("ports"):
            return f'{where} publishes no port: add one to it in the file (ports: ["127.0.0.1:8000:8000"])'
        return ""


def read(docker: Docker, service: Service) -> Stack:
    """The file as compose understands it; EngineStartError (compose) with its words when it does not."""
    project = Project(docker, service)
    try:
        text = project.ask("config", ignore_stderr=True)
    except EngineStartError:
        text = project.ask("config")  # once more for the reason
    config = yaml.safe_load(text)
    stack = Stack(service, mapping(config))
    if not stack.engine:
        raise EngineStartError(f"{service.file} has no service {service.name!r}", kind="compose")
    return stack


def missing(docker: Docker, card: EngineCard, settings: Settings) -> str:
    """What is wrong with the file, or not here of it, in one sentence with the cure; empty when it can be started."""
    try:
        stack = read(docker, composefile.chosen(settings))
        if unfit := stack.trouble(own_port(card), beside=sibling.find(docker) is not None):
            return unfit
        with connected(docker) as client, answering():
            absent = _absent_images(client, stack)
    except EngineStartError as error:
        return f"--kitt-compose: {error}"
    return _by_hand(stack, absent[0]) if absent and not settings.auto_pull else ""


def bring_images(docker: Docker, stack: Stack, *, auto_pull: bool, say: Callable[[str], None], tell: Tell) -> None:
    """Pulls or builds what is not here, if that may be done; EngineStartError says why it is not.

    ``say`` is told what is done, ``tell`` how much of an image is here.
    """
    with connected(docker) as client, answering():
        for name in _absent_images(client, stack):
            if not auto_pull:
                raise EngineStartError(_by_hand(stack, name), kind="missing")
            image = str(stack.needed[name]["image"])
            if stack.needed[name].get("build"):
                say(f"builds {image}")
                Project(docker, stack.service).ask(f"build {shlex.quote(name)}")
            else:
                pull.pull(client, image, say=say, tell=tell)


def own_port(card: EngineCard) -> int:
    """Where engines of a kind listen, 0 where its card does not say."""
    return next((runtime.port for runtime in card.runtimes.values() if runtime.port), 0)


def _absent_images(client: DockerClient, stack: Stack) -> list[str]:
    """The services whose images are not here, of those that the engine needs and of its own."""
    return [name for name, said in stack.needed.items() if pull.found(client, str(said["image"])) is None]


def _by_hand(stack: Stack, name: str) -> str:
    """How to get the image of a service, in one sentence."""
    said = stack.needed[name]
    build = shlex.join([*program(), "-f", str(stack.service.file), "build", name])
    command = build if said.get("build") else f"docker pull {said['image']}"
    return f"image {said['image']} of service {name!r} is not here: {command}, or run with --kitt-auto-pull"


def exposed(said: Mapping[str, Any]) -> list[int]:
    """The single ports under a service's ``expose``."""
    words = (str(word).partition("/")[0] for word in said.get("expose") or ())
    return [int(word) for word in words if word.isdecimal()]


def mapping(said: Any) -> Mapping[str, Any]:
    """What a file says where a mapping may stand; empty for anything else."""
    return said if isinstance(said, dict) else {}
