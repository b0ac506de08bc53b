"""Where do the tests get an image from without a registry? From Debian's packages, the wheel and our own Dockerfile.

``mmdebstrap`` makes a root file system with Python, ``docker import`` makes an image of it, and our Dockerfile, built
with no network, makes an image with llama.cpp's server. Each is named by what it was made from and made once: images
stay in the engine, the rest in ``~/.cache/pytest-kitt``. ``python -m tests.containers`` makes them before the tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_kitt import shipped

LABEL = "kitt-test"  # of all that the tests make in the engine themselves
_SUITE = "bookworm"
_PACKAGES = "python3,libgomp1,libstdc++6"
_NOT_NEEDED = ("doc", "info", "locale", "man")  # folders of /usr/share
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 1 << 30


class NoImage(Exception):
    """There can be none here; the message says why and what would help."""


def docker_client() -> Any:
    """A client of the Docker engine; NoImage when none answers."""
    import docker

    try:
        client = docker.from_env(timeout=600)
    except docker.errors.DockerException as error:
        raise NoImage(f"no Docker engine answers: {error}") from error
    return client


def base_image(client: Any) -> str:
    """An image with Debian and its Python, nothing else."""
    how = _how_the_base_is_made()
    key = _digest(*how)
    name = f"kitt-test/base:{key}"
    with _alone("base"):
        if not _present(client, name):
            tar = _cache() / f"base-{key}.tar"
            if not tar.is_file():
                _make_root(how, tar)
            client.api.import_image_from_file(
                str(tar), repository="kitt-test/base", tag=key, changes=[f"LABEL {LABEL}=image"]
            )
    return name


def llama_image(client: Any) -> str:
    """An image whose entry point is llama-server, built by our Dockerfile from wheels and without a network."""
    base = base_image(client)
    version = importlib.metadata.version("xllamacpp")
    wheels = _wheels(f"pip=={importlib.metadata.version('pip')}", f"xllamacpp=={version}")
    folder = shipped.ENGINES / "llama_cpp"
    files = {path.name: path for path in (folder / "Dockerfile.cpu", folder / "llama_server.py")}
    files |= {f"wheelhouse/{wheel.name}": wheel for wheel in wheels}
    args = {"BASE": base, "XLLAMACPP": version}
    return build(client, "llama-cpp", dockerfile="Dockerfile.cpu", files=files, args=args)


def build(client: Any, name: str, *, dockerfile: str, files: dict[str, Path], args: dict[str, str]) -> str:
    """The image that a Dockerfile makes of these files, by their paths in the context; built where it is not there."""
    key = _digest(*args.values(), *files, *(path.read_bytes() for path in files.values()))
    image = f"kitt-test/{name}:{key}"
    with _alone(name):
        if not _present(client, image):
            _build(client, image, dockerfile, _context(files), args)
    return image


def _build(client: Any, image: str, dockerfile: str, context: io.BytesIO, args: dict[str, str]) -> None:
    said = []
    lines = client.api.build(
        fileobj=context,
        custom_context=True,
        dockerfile=dockerfile,
        tag=image,
        buildargs=args,
        labels={LABEL: "image"},
        network_mode="none",
        rm=True,
        forcerm=True,
        decode=True,
    )
    for line in lines:
        said.append(line.get("stream", ""))
        if "error" in line:
            raise AssertionError(f"{dockerfile} cannot be built: {line['error']}\n{''.join(said)[-4000:]}")


def _context(files: dict[str, Path]) -> io.BytesIO:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, path in files.items():
            tar.add(path, name)
    content.seek(0)
    return content


def _present(client: Any, image: str) -> bool:
    import docker

    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


def _how_the_base_is_made() -> list[str]:
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _NOT_NEEDED]
    return ["mmdebstrap", "--variant=essential", f"--include={_PACKAGES}", *excluded, _SUITE]


def _make_root(how: list[str], tar: Path) -> None:
    if shutil.which(how[0]) is None:
        raise NoImage("mmdebstrap is not installed, and makes the root file system: apt-get install mmdebstrap")
    part = tar.with_suffix(".part.tar")
    done = subprocess.run(
        [*how, str(part)], capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": _roomy()}
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(how)} failed with exit code {done.returncode}:\n{done.stderr[-4000:]}")
    part.replace(tar)


def _roomy() -> str:
    """A folder in memory where there is one: dpkg waits for the disk after every file."""
    fits = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
    return str(_MEMORY) if fits else tempfile.gettempdir()


def _wheels(*requirements: str) -> list[Path]:
    """The wheels of distributions, for this machine's Python."""
    folder = _cache() / f"wheels-{_digest(*requirements, platform.python_version())}"
    with _alone("wheels"):
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary=:all:",
                "-d",
                str(part),
            ]
            subprocess.run([*command, *requirements], check=True)
            part.replace(folder)
    return sorted(folder.glob("*.whl"))


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pytest-kitt")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time makes a thing; the others then find it."""
    with (_cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256(platform.machine().encode())
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:12]


def main() -> int:
    """Makes the images; says why there are none."""
    began = time.monotonic()
    try:
        client = docker_client()
        with contextlib.closing(client):
            image = llama_image(client)
    except NoImage as error:
        sys.stdout.write(f"no images for the tests: {error}\n")
        return 0
    sys.stdout.write(f"{image} after {time.monotonic() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
