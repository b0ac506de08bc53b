"""How does a model come from the hub? By huggingface_hub, into its cache; a file that is cut off goes on where it was.

The library keeps no part of a file when a session ends, so the large ones are transferred here, with its own requests,
into ``blobs/`` of its cache. There it finds them whole and does the rest: links, names, revisions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import io
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_kitt.model import cache, choice, config, refusal
from pytest_kitt.model.memory import Shape
from pytest_kitt.model.reference import HubId

_TIMEOUT_S = 20.0
_POLL_S = 0.5
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_FILES = 10_000
_MAX_NAME = 400
_MAX_HTTP_BYTES = 50 * 10**9  # the hub gives larger files to its own protocol alone
_READ_BYTES = 1 << 20
_YES = ("1", "on", "yes", "true")

Tell = Callable[[str, int, int, int], None]
Lacks = Callable[[int, Shape], str]


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """A file on the hub.

    Attributes:
        size: in bytes.
        sha256: of its content where it is a large one, else empty.

    """

    size: int
    sha256: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What is to be fetched.

    Attributes:
        hub: the model.
        formats: that will do.
        force: take one that will not, too.
        say: is told in a sentence what begins.
        tell: is told how far it is: file, bytes that are here, bytes of all, bytes that were here before.
        lacks: says of bytes of weights and a shape why they cannot be used; empty when they can.

    """

    hub: HubId
    formats: Sequence[str]
    force: bool = False
    say: Callable[[str], None] = lambda _: None
    tell: Tell = lambda *_: None
    lacks: Lacks = lambda *_: ""


def is_installed() -> bool:
    """Whether the library is here that downloads; it is not imported."""
    return importlib.util.find_spec("huggingface_hub") is not None


def fetched(wish: Wish) -> Path:
    """The file or folder that an engine is given, downloaded; EngineStartError says what is in the way."""
    if os.environ.get("HF_HUB_OFFLINE", os.environ.get("TRANSFORMERS_OFFLINE", "")).lower() in _YES:
        raise refusal.offline(wish.hub)
    if not is_installed():
        raise refusal.not_installed(wish.hub)
    with _explained(wish.hub), _quiet():
        commit, files = _offered(wish.hub)
        names = _chosen(wish, files)
        download = _Download(wish, commit, {name: files[name] for name in names})
        download.run()
    return cache.entry(download.snapshot, names)


class _Download:
    """The files of one model, one after the other."""

    def __init__(self, wish: Wish, commit: str, files: Mapping[str, Remote]) -> None:
        self._wish, self._commit, self._files = wish, commit, files
        self._repository = cache.repository(wish.hub)
        self.snapshot = self._repository / "snapshots" / commit
        self._here = {name: self._size_here(name) for name in files}
        self._before = sum(self._here.values())
        self._total = sum(file.size for file in files.values())

    def run(self) -> None:
        """Fetches what is not here; the small files first, as they say whether the large ones are of any use."""
        self._require_room()
        absent = [name for name in self._files if not (self.snapshot / name).exists()]
        if absent:
            left = _bytes(self._total - self._before)
            self._wish.say(f"downloads {left} of {self._wish.hub} from the hub to {cache.folder()}")
        checked = False
        for name in absent:
            if self._files[name].sha256 and not checked:
                self._require_use()
                checked = True
            self._fetch(name)
        self._remember()

    def _fetch(self, name: str) -> None:
        from huggingface_hub import hf_hub_download

        file = self._files[name]
        if file.sha256 and file.size <= _MAX_HTTP_BYTES:
            self._transfer(name, file)
        hf_hub_download(
            self._wish.hub.repo,
            name,
            revision=self._commit,
            cache_dir=cache.folder(),
            endpoint=_endpoint(),
            tqdm_class=_silent(lambda done: self._told(name, done)),
        )
        self._told(name, file.size)

    def _transfer(self, name: str, file: Remote) -> None:
        """Puts a large file under its digest, from where an earlier try was cut off."""
        blob = self._repository / "blobs" / file.sha256
        partial = _partial(blob)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial, lambda: self._told(name, 0), lambda at: self._told(name, at)) as target:
            if blob.exists():  # somebody else has brought it meanwhile
                return
            here = target.seek(0, os.SEEK_END)
            if here > file.size:
                here = target.seek(target.truncate(0))
            self._receive(name, file.size, target)
            target.flush()
            if here and _sha256(partial) != file.sha256:
                partial.unlink()
                raise refusal.refused(self._wish.hub, f"came damaged ({name}); run again, it will be fetched anew")
            partial.rename(blob)

    def _receive(self, name: str, size: int, target: _Told) -> None:
        """The rest of a file, in as many transfers as it takes, as long as each of them brings something."""
        from huggingface_hub import errors, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        while True:
            here = target.tell()
            try:
                http_get(
                    hf_hub_url(self._wish.hub.repo, name, revision=self._commit, endpoint=_endpoint()),
                    target,
                    resume_size=here,
                    headers=build_hf_headers(),
                    expected_size=size,
                    displayed_filename=name,
                    tqdm_class=_silent(lambda _: None),
                )
            except errors.HTTPError as error:
                if isinstance(error, errors.HfHubHTTPError) or target.tell() <= here:
                    raise
            else:
                return

    def _told(self, name: str, done: int) -> None:
        self._here[name] = done
        self._wish.tell(name, sum(self._here.values()), self._total, self._before)

    def _size_here(self, name: str) -> int:
        """How much of a file is here."""
        file = self._files[name]
        if (self.snapshot / name).exists():
            return file.size
        blob = self._repository / "blobs" / file.sha256
        for path in (blob, _partial(blob)) if file.sha256 else ():
            with contextlib.suppress(OSError):
                return min(file.size, path.stat().st_size)
        return 0

    def _require_room(self) -> None:
        missing = self._total - self._before
        there = next(path for path in (self._repository, *self._repository.parents) if path.exists())
        if missing > (free := shutil.disk_usage(there).free):
            raise refusal.no_room(self._wish.hub, _bytes(missing), _bytes(free))

    def _require_use(self) -> None:
        """Whether the engine can use it, as far as names and small files tell: before anything large is fetched."""
        shape, formats = Shape(), self._wish.formats
        if (self.snapshot / "config.json").exists():
            said = config.read(self.snapshot)
            shape = said.shape
            plain = "safetensors" if any(name.endswith(".safetensors") for name in self._files) else "pytorch"
            here = said.format or plain
            if not {here, said.method} & set(formats) and not self._wish.force:
                raise refusal.refused(self._wish.hub, f"is {here} and the engine loads {' or '.join(formats)}")
        weights = sum(file.size for file in self._files.values() if file.sha256)
        if problem := self._wish.lacks(weights, shape):
            raise refusal.refused(self._wish.hub, problem, "memory")

    def _remember(self) -> None:
        """Notes which commit a branch or a tag stands for, so that it is found without asking."""
        if not cache.COMMIT.fullmatch(self._wish.hub.revision):
            path = self._repository / "refs" / self._wish.hub.revision
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._commit, encoding="ascii")


def _offered(hub: HubId) -> tuple[str, dict[str, Remote]]:
    """The commit that a revision stands for, and its files by name."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=_endpoint()).model_info(
        hub.repo, revision=hub.revision, files_metadata=True, timeout=_TIMEOUT_S
    )
    commit = str(info.sha)
    if not cache.COMMIT.fullmatch(commit):
        raise ValueError("no commit")
    return commit, {file.rfilename: _remote(file) for file in (info.siblings or ())[:_MAX_FILES] if _is_name(file)}


def _remote(file: Any) -> Remote:
    size = file.size if isinstance(file.size, int) and file.size >= 0 else 0
    digest = str(file.lfs.sha256) if file.lfs is not None else ""
    return Remote(size, digest if _SHA256.fullmatch(digest) else "")


def _is_name(file: Any) -> bool:
    """Whether a file lies within its repository, and can be shown."""
    name = file.rfilename
    return (
        isinstance(name, str)
        and name.isprintable()
        and 0 < len(name) <= _MAX_NAME
        and "\\" not in name
        and not name.startswith("/")
        and PurePosixPath(name).as_posix() == name
        and ".." not in PurePosixPath(name).parts
    )


def _chosen(wish: Wish, files: Mapping[str, Remote]) -> tuple[str, ...]:
    try:
        return choice.chosen(files, wish.hub.pick, wish.formats)
    except choice.NoChoice as error:
        raise refusal.refused(wish.hub, f"is not clear: {error}") from error


@contextlib.contextmanager
def _explained(hub: HubId) -> Iterator[None]:
    """What the library raises, as a sentence of ours."""
    from huggingface_hub import errors

    try:
        yield
    except config.Damaged as error:
        raise refusal.refused(hub, f"cannot be used: {error}; use another") from error
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        errors.HTTPError,
        errors.EntryNotFoundError,
    ) as error:
        raise refusal.explained(error, hub) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library's log names addresses that are as good as a key for an hour."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class _Told(io.BufferedWriter):
    """A file that says how long it is whenever something is written."""

    tell_size: Callable[[int], None]

    def write(self, data: Any, /) -> int:
        """Writes, and says so."""
        written = super().write(data)
        self.tell_size(self.tell())
        return written


@contextlib.contextmanager
def _alone(path: Path, wait: Callable[[], None], told: Callable[[int], None]) -> Iterator[_Told]:
    """The part of a file that is here, for one process at a time; the kernel lets go of it, however its holder ends."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with _Told(io.FileIO(fd, "r+b")) as file:
            file.tell_size = told
            while not _locked(fd):
                wait()
                time.sleep(_POLL_S)
            if _is(path, fd):  # else who had it has moved it away
                yield file
                return


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.kitt.incomplete")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _silent(told: Callable[[int], None]) -> type[Any]:
    """A progress bar of the library's kind that shows nothing and says how far it is."""
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):  # type: ignore[misc]  # huggingface_hub is not there for all who check types
        def __init__(self, *args: Any, **options: Any) -> None:
            self._seen = options.get("initial") or 0
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self._seen += n or 0
            told(int(self._seen))
            return None

    return Silent


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _bytes(size: int) -> str:
    for unit_bytes, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit_bytes:
            return f"{size / unit_bytes:.1f} {unit}"
    return f"{size} B"
