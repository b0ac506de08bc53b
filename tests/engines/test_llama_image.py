"""Does the image that our Dockerfile builds serve a model, without rights and without leaving anything?"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from pytest_kitt import shipped
from tests import containers
from tests.containers import LABEL

pytestmark = pytest.mark.docker
LIMITS: dict[str, Any] = {
    "network_mode": "host",
    "read_only": True,
    "init": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "volumes": {str(shipped.TINY_MODEL.parent): {"bind": "/models", "mode": "ro"}},
}


@contextlib.contextmanager
def up(docker_client: Any, image: str, *argv: str, **options: Any) -> Iterator[Any]:
    """A container that is gone afterwards."""
    container = docker_client.containers.run(image, [*argv], detach=True, labels={LABEL: "run"}, **LIMITS | options)
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def address(container: Any) -> str:
    """Where the server in it listens, as it says."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = container.logs().decode().splitlines()
        for line in said:
            if line.startswith('{"url":'):
                return str(json.loads(line)["url"])
        container.reload()
        assert container.status in {"created", "running"}, "\n".join(said)
        time.sleep(0.05)
    raise AssertionError("\n".join(said))


def test_the_real_server_answers_from_a_container(docker_client: Any, llama_image: str) -> None:
    """As nobody in particular, on a file system that it cannot write, and it is gone afterwards."""
    serve = ("-m", "/models/tiny.gguf", "-a", "tiny", "--host", "127.0.0.1", "--port", "0", "-c", "2048", "-t", "1")
    with up(docker_client, llama_image, *serve) as container:
        with httpx.Client(base_url=address(container), timeout=60, trust_env=False) as http:
            assert http.get("/health").json() == {"status": "ok"}
            assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["tiny"]
            asked = {"prompt": "Q: 36+20=?\nAnswer:", "max_tokens": 4, "temperature": 0}
            assert http.post("/v1/completions", json=asked).json()["choices"][0]["text"] == " 56"
        users = {row[0] for row in container.top()["Processes"]}
        assert users == {"10001"}
        container.stop(timeout=30)
        assert container.wait()["StatusCode"] == 0
    with pytest.raises(docker.errors.NotFound):
        docker_client.containers.get(container.id)


@pytest.mark.parametrize(
    "argv, said",
    [(["--nope"], "invalid argument: --nope"), (["-m", "/models/none.gguf", "--port", "0"], "failed to load model")],
)
def test_what_it_refuses_ends_it_at_once(docker_client: Any, llama_image: str, argv: list[str], said: str) -> None:
    """Exit code 1 and the reason in the container's log."""
    with up(docker_client, llama_image, *argv) as container:
        assert container.wait(timeout=60)["StatusCode"] == 1
        assert said in container.logs().decode()


def test_the_image_says_what_it_holds(docker_client: Any, llama_image: str) -> None:
    """Its version is a label, its user has no name and no rights, and its entry point takes llama-server's flags."""
    config = docker_client.images.get(llama_image).attrs["Config"]
    assert config["Labels"]["org.opencontainers.image.version"].startswith("xllamacpp 20")
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["llama-server"]


RECIPES = shipped.ENGINES / "llama_cpp"
COMPILERS = {
    "apt-get": "#!/bin/sh\n",
    "git": '#!/bin/sh\nmkdir /src; echo "$0 $*" >> /src/said\n',
    "cmake": (
        '#!/bin/sh\necho "$0 $*" >> /src/said\n[ "$1" = --build ] || exit 0\nmkdir -p build/bin\n'
        'touch build/bin/libggml-cuda.so\n{ echo "#!/bin/cat"; cat /src/said; } > build/bin/llama-server\n'
        "chmod 755 build/bin/llama-server\n"
    ),
}


def test_the_recipe_for_gpus_is_whole(docker_client: Any, tmp_path: Path) -> None:
    """It is followed to its end with tools that only note what they are told; nothing is compiled here."""
    for tool, script in COMPILERS.items():
        (tmp_path / tool).write_text(script)
        (tmp_path / tool).chmod(0o755)
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nCOPY apt-get git cmake /usr/local/bin/\n")
    base = {"BASE": containers.base_image(docker_client)}
    tools = {path.name: path for path in sorted(tmp_path.iterdir())}
    stub = containers.build(docker_client, "no-compiler", dockerfile="Dockerfile", files=tools, args=base)
    recipe = {file: RECIPES / file for file in ("Dockerfile.spark", "build_cuda.sh")}
    args = {"BUILD_BASE": stub, "BASE": stub}
    image = containers.build(docker_client, "llama-spark", dockerfile="Dockerfile.spark", files=recipe, args=args)
    said = docker_client.containers.run(image, labels={LABEL: "run"}, remove=True).decode()
    made = docker_client.images.get(image)
    assert f"--branch {made.labels['org.opencontainers.image.version']} https://github.com/ggml-org/llama.cpp " in said
    assert "-DCMAKE_CUDA_ARCHITECTURES=100-real;103-real;120a-real;100-virtual " in said
    assert " -DGGML_CPU_ALL_VARIANTS=ON\n" in said
    assert "cmake --build build --target llama-server" in said
    assert made.attrs["Config"]["User"] == "10001:10001"


@pytest.mark.parametrize("name", ["arm64", "orin"])
def test_the_other_recipes_differ_in_their_arguments_alone(name: str) -> None:
    """What is compiled for, with what and on what; the steps are the same."""
    one, other = (steps((RECIPES / f"Dockerfile.{which}").read_text()) for which in ("spark", name))
    assert one == other


def steps(recipe: str) -> list[str]:
    """The steps of a Dockerfile without what is set in them."""
    lines = [line for line in recipe.splitlines() if line and not line.startswith(("#", "ARG", "ENV", "USER"))]
    return [re.sub(r"g(cc|\+\+)-\d+|-D\S+", "", line) for line in lines]
