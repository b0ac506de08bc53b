"""Is the service of a compose file a cell without a look at Docker, and what does our own second file say?"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kitt import cards, composefile
from pytest_kitt.engine import compose, reaper, stack
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.engine.runtime.compose import overriding
from pytest_kitt.engine.stack import Stack
from pytest_kitt.errors import UserError
from pytest_kitt.matrix import Cell, build
from pytest_kitt.settings import Settings

SERVICES: dict[str, dict[str, Any]] = {
    "llama": {"image": "one", "ports": ["8080:8080"], "depends_on": ["proxy"]},
    "proxy": {"image": "two"},
}


def put(folder: Path, **said: Any) -> str:
    """A compose file."""
    file = folder / "stack.yaml"
    file.write_text(yaml.safe_dump({"services": SERVICES, **said}))
    return str(file)


def cells(file: str, **settings: Any) -> tuple[Cell, ...]:
    """The matrix of a service."""
    return build(Settings(compose=file, service="llama", **settings), cards.load_engines())


def test_a_service_is_a_cell_of_the_generic_engine(tmp_path: Path) -> None:
    """Its name stands for the model until it is up and says which one it has."""
    (cell,) = cells(put(tmp_path))
    assert (cell.id, cell.engine, cell.runtime, cell.gpus) == ("openai-llama", "openai", "compose", 0)
    assert cell.is_given
    (named,) = cells(put(tmp_path), engine=("vllm",), model=("Qwen3-8B",), runtime="compose", cell_gpus=(("*", 2),))
    assert (named.id, named.model.ref, named.gpus) == ("vllm-Qwen3-8B", "Qwen3-8B", 2)


def test_another_service_under_the_same_name_is_another_cell(tmp_path: Path) -> None:
    """As long as no model is named; then it is the model that counts."""
    one, one_named = cells(put(tmp_path))[0], cells(put(tmp_path), model=("m",))[0]
    other_file = put(tmp_path, services={"llama": {"image": "three"}})
    other, other_named = cells(other_file)[0], cells(other_file, model=("m",))[0]
    assert one.id == other.id
    assert one.key != other.key
    assert one_named.key == other_named.key


def test_the_only_service_need_not_be_named(tmp_path: Path) -> None:
    """Nor where the file stands."""
    file = put(tmp_path, services={"llama": {"image": "one", "profiles": ["gpu"]}}, version=3.8)
    found = composefile.chosen(Settings(compose=file))
    assert (found.name, found.version, found.profiles) == ("llama", "3.8", ("gpu",))


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"url": "http://h"}, "--kitt-compose starts a service and --kitt-url measures what already runs: drop one"),
        ({"runtime": "process"}, "--kitt-compose says how the engine is run: drop --kitt-runtime=process"),
        ({"engine": ("vllm", "tgi")}, "--kitt-compose is one service: name one engine, not vllm, tgi"),
        ({"engine": ("vllm:latency",)}, "a service of a file takes no profile; say --kitt-engine=vllm"),
        ({"model": ("a", "b")}, "--kitt-compose: name one model of the service at a time, not 2"),
        ({"engine_arg": (("a", "1"),)}, "image and arguments of the engine stand in the file; drop --kitt-engine-arg"),
        ({"image": (("*", "x"),)}, "image and arguments of the engine stand in the file; drop --kitt-image"),
        ({"service": "lama"}, "stack.yaml has no service 'lama'; did you mean 'llama'"),
        ({"service": ""}, "which service of .*stack.yaml is the engine\\? it has: llama, proxy; add --kitt-service"),
        ({"compose": "no.yaml"}, "--kitt-compose: no.yaml cannot be read: No such file"),
        ({"compose": ""}, "--kitt-service=llama is one of a compose file: add --kitt-compose=FILE"),
        ({"compose": "", "service": "", "runtime": "compose"}, "--kitt-runtime=compose needs --kitt-compose=FILE"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    """What, where, and the next step."""
    asked = Settings(**{"compose": put(tmp_path), "service": "llama", **settings})
    with pytest.raises(UserError, match=sentence):
        build(asked, cards.load_engines())


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("services: [", "stack.yaml:1: not valid YAML"),
        ("- a", "stack.yaml: expected a mapping, found list"),
        ("llama: {image: one}", "stack.yaml has no services; expected a mapping under the key 'services'"),
        ("services: {llama: one}", "service 'llama': expected a mapping, found str"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, sentence: str) -> None:
    """What is wrong with it."""
    (tmp_path / "stack.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        cells(str(tmp_path / "stack.yaml"))


def the_stack(tmp_path: Path, engine: dict[str, Any], **said: Any) -> Stack:
    """A file as compose gives it back."""
    service = composefile.chosen(Settings(compose=put(tmp_path, version="3.8"), service="llama"))
    return Stack(service, {"services": {**SERVICES, "llama": {**SERVICES["llama"], **engine}, "idle": {}}, **said})


def test_only_what_the_project_makes_for_itself_is_ours(tmp_path: Path) -> None:
    """Networks and volumes with a name of their own, or of others, carry no label, and so are never removed."""
    networks = {"own": None, "p_is": {"name": "p_p_is"}, "shared": {"name": "lan"}, "other": {"external": True}}
    found = the_stack(tmp_path, {}, networks=networks, volumes={"scratch": {}, "hub": {"name": "hub"}})
    said = overriding(found, "p", {reaper.MARK: "m", reaper.OWNER: '{"a": "$b"}'})
    assert said["version"] == "3.8"
    assert set(said["networks"]) == {"default", "own", "p_is"}
    assert set(said["volumes"]) == {"scratch"}
    assert set(said["services"]) == {"llama", "proxy", "idle"}
    assert said["services"]["llama"]["labels"][reaper.OWNER] == '{"a": "$$b"}'
    assert said["services"]["llama"]["restart"] == "no"
    assert "restart" not in said["services"]["proxy"]


@pytest.mark.parametrize(
    "engine, port, beside, sentence",
    [
        ({}, 0, False, ""),
        ({"ports": None}, 8080, False, "service 'llama' publishes no port: add one to it in the file"),
        ({"ports": None}, 8080, True, ""),
        ({"network_mode": "host"}, 8080, False, ""),
        ({"network_mode": "host", "expose": ["8000/tcp"]}, 0, False, ""),
        ({"network_mode": "host"}, 0, False, "where it listens is not known: name it with --kitt-engine"),
        ({"image": None, "build": "."}, 0, False, "service 'llama' has no image: give it one"),
    ],
)
def test_a_service_that_cannot_be_reached(
    tmp_path: Path, engine: dict[str, Any], port: int, beside: bool, sentence: str
) -> None:
    """Is known from the file."""
    found = the_stack(tmp_path, engine).trouble(port, beside=beside)
    assert sentence in found
    assert bool(sentence) == bool(found)


def test_what_is_needed_is_what_the_engine_depends_on(tmp_path: Path) -> None:
    """And no other service."""
    assert set(the_stack(tmp_path, {}).needed) == {"llama", "proxy"}
    assert set(the_stack(tmp_path, {"depends_on": {"idle": {}}, "links": ["proxy:p"]}).needed) == {
        "llama",
        "idle",
        "proxy",
    }


def test_the_port_of_an_engine_is_its_cards() -> None:
    """The generic card has none."""
    known = cards.load_engines()
    assert (stack.own_port(known["llama_cpp"]), stack.own_port(known["openai"])) == (8080, 0)


def test_what_is_not_installed_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, Docker, the program: the first that is not there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert compose.absent("") == "--kitt-compose needs pytest-docker: pip install 'pytest-kitt[compose]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert compose.absent("Docker is not there") == "Docker is not there"
    monkeypatch.setattr(compose, "program", tuple)
    assert compose.absent("").startswith("neither docker compose nor docker-compose is installed: apt-get install")


@pytest.mark.parametrize("plugin, expected", [(0, ("docker", "compose")), (1, ("docker-compose",))])
def test_whichever_program_is_there_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: int, expected: tuple[str, ...]
) -> None:
    """Docker's plugin first; the file's name, the project and the daemon reach it whole."""
    pytest.importorskip("pytest_docker")
    for name, code in (
        ("docker", f'[ "$2" = version ] && exit {plugin}; printf "%s\\n" "$DOCKER_HOST $*"'),
        ("docker-compose", 'printf "%s\\n" "$DOCKER_HOST compose $*"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    compose.program.cache_clear()
    try:
        assert compose.program() == expected
        service = composefile.chosen(Settings(compose=put(tmp_path), service="llama"))
        odd = dataclasses.replace(service, file=Path('/a $HOME "`id`\\b.yaml'))
        project = compose.Project(Docker("unix:///d.sock"), odd)
        said = project.ask("config")
    finally:
        compose.program.cache_clear()
    assert said == f'unix:///d.sock compose -f /a $HOME "`id`\\b.yaml -p {project.name} config\n'
    assert project.name.startswith("kitt-2")
