"""Where do the questions come from? The Hugging Face hub, a file or folder, or the sample that ships with a card.

From the hub by its own library, at the revision that the card names, kept in that library's cache. Offline, that cache
alone is looked at, then the sample; which of them it was goes with every result.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pytest_kitt.errors import UserError, why
from pytest_kitt.evals.card import DatasetCard, EvalCard

Row = Mapping[str, Any]
Origin = Literal["hub", "file", "sample"]
SUFFIXES = (".jsonl", ".csv", ".parquet")
_EXTRA = "pip install 'pytest-kitt[datasets]'"


@dataclasses.dataclass(frozen=True, slots=True)
class Subset:
    """One config's rows.

    Attributes:
        config: its name, empty for the only one.
        asked: rows to ask, in order.
        pool: rows that worked examples come from; empty without a split of them.
        asked_from: file or dataset that the rows to ask are from, for messages.
        pool_from: likewise, of the pool.

    """

    config: str
    asked: Sequence[Row]
    pool: Sequence[Row]
    asked_from: str = ""
    pool_from: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """All rows of a card.

    Attributes:
        origin: where they are from.
        subsets: one per config that there is; a sample may lack some.
        sha256: of all rows to ask, 64 hexadecimal digits.

    """

    origin: Origin
    subsets: Sequence[Subset]
    sha256: str


def load(card: EvalCard, folder: Path, *, offline: bool = False) -> Data:
    """The rows of a card that lies in a folder; UserError says what is missing and how to get it."""
    dataset = card.dataset
    if dataset.path:
        return _data(card, "file", _Files(_path(card, folder), dataset.sha256))
    if not offline:
        return _data(card, "hub", _Hub(card.name, dataset, offline=False))
    try:
        return _data(card, "hub", _Hub(card.name, dataset, offline=True))
    except UserError:
        if not dataset.sample:
            raise
    return sample(card, folder)


def require_file(card: EvalCard, folder: Path) -> None:
    """UserError when what a card names as its file or folder is not there; what is in it is looked at later."""
    if card.dataset.path and not (path := _path(card, folder)).exists():
        raise UserError(f"{card.name}: {path} is not there; check dataset.path in its card")


def _path(card: EvalCard, folder: Path) -> Path:
    return folder / Path(card.dataset.path).expanduser()


def sample(card: EvalCard, folder: Path) -> Data:
    """The few original questions that ship with a card; UserError when there are none."""
    if not card.dataset.sample:
        raise UserError(f"{card.name}: no sample ships with its card")
    return _data(card, "sample", _Files(folder / card.dataset.sample, partial=True))


def _data(card: EvalCard, origin: Origin, source: _Files | _Hub) -> Data:
    configs = source.configs(card.dataset.configs)
    subsets = [_subset(card, source, config) for config in configs]
    if not any(subset.asked for subset in subsets):
        raise UserError(f"{card.name}: {source} holds no question; nothing can be scored")
    return Data(origin, subsets, _digest(subsets))


def _subset(card: EvalCard, source: _Files | _Hub, config: str) -> Subset:
    split, shots = card.dataset.split, card.fewshot.split if card.fewshot.count else ""
    asked = source.rows(config, split)
    pool = source.rows(config, shots) if shots else card.fewshot.samples
    examples_from = source.place(config, shots) if shots else f"{card.name}: fewshot.samples"
    return Subset(config, asked, pool, source.place(config, split), examples_from)


def _digest(subsets: Sequence[Subset]) -> str:
    found = hashlib.sha256()
    for subset in subsets:
        for row in subset.asked:
            found.update(json.dumps([subset.config, row], sort_keys=True, default=str).encode())
    return found.hexdigest()


class _Files:
    """A file, or a folder of ``[CONFIG/]SPLIT.jsonl`` and the like; a sample may lack some of the configs."""

    def __init__(self, path: Path, sha256: str = "", *, partial: bool = False) -> None:
        self._path, self._partial = path, partial
        if not path.exists():
            raise UserError(f"dataset {path} does not exist; check the card's path")
        if sha256 and not path.is_file():
            raise UserError(f"dataset {path} is a folder, and sha256 is of a file; name the file, or leave sha256 out")
        if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise UserError(f"dataset {path} is not the one that the card names: its SHA-256 is another")

    def __str__(self) -> str:
        return str(self._path)

    def configs(self, wanted: Sequence[str]) -> Sequence[str]:
        """The wanted ones, each of which has a folder."""
        missing = [name for name in wanted if not (self._path / name).is_dir()]
        if missing and not self._partial:
            raise UserError(f"dataset {self._path} has no folder for the config {missing[0]!r}; check dataset.configs")
        return [name for name in wanted if name not in missing] if wanted else [""]

    def rows(self, config: str, split: str) -> list[Row]:
        """The rows of one split; a single file is every split."""
        return read_file(self._file(config, split))

    def place(self, config: str, split: str) -> str:
        """Where these rows are."""
        return str(self._file(config, split))

    def _file(self, config: str, split: str) -> Path:
        if self._path.is_file():
            return self._path
        folder = self._path / config
        found = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
        if not found:
            raise UserError(f"dataset {folder} has no split {split!r}: expected {split}.jsonl, .csv or .parquet")
        return found[0]


@contextlib.contextmanager
def _offline_imports() -> Iterator[None]:
    """What libraries of the hub read when they are imported; engines that start later do not inherit it."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]


class _Hub:
    """A dataset of the Hugging Face hub."""

    def __init__(self, name: str, dataset: DatasetCard, *, offline: bool) -> None:
        self._name, self._dataset, self._offline = name, dataset, offline
        try:
            with _offline_imports() if offline else contextlib.nullcontext():
                from datasets import config, load_dataset  # a folder of that name is no library, and has neither
        except ImportError as error:
            raise UserError(
                f"{name}: its dataset {dataset.id} needs the library datasets: {_EXTRA}{_cure()}"
            ) from error
        self._load = load_dataset
        if offline:
            config.HF_HUB_OFFLINE = True

    def __str__(self) -> str:
        return self._dataset.id

    def configs(self, wanted: Sequence[str]) -> Sequence[str]:
        """All that are wanted."""
        return wanted or [""]

    def rows(self, config: str, split: str) -> list[Row]:
        """The rows of one split, at the pinned revision."""
        dataset = self._dataset
        try:
            found = self._load(dataset.id, config or None, split=split, revision=dataset.revision)
            _require_revision(found, dataset.revision)
            return [dict(row) for row in found]
        except Exception as error:
            what = f"{self.place(config, split)} at revision {dataset.revision[:12]}"
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(f"{self._name}: dataset {what} cannot be had: {said}{_cure(self._offline)}") from error

    def place(self, config: str, split: str) -> str:
        """Where these rows are."""
        return f"{self._dataset.id} ({config or 'default'}, {split})"


def _require_revision(found: Any, revision: str) -> None:
    """LookupError for another revision: where the hub does not answer, the library takes what its cache has."""
    files = [Path(file["filename"]) for file in getattr(found, "cache_files", ())]
    if other := [file.parent.name for file in files if revision not in file.parts]:
        raise LookupError(f"the cache has it at revision {other[0][:12]} alone")


def _cure(offline: bool = False) -> str:
    if offline:
        return "; run once without --kitt-offline, so that it is in the cache"
    return ". Next: check the network and HF_TOKEN, or say --kitt-offline for what is in the cache or ships as a sample"


def read_file(path: Path) -> list[Row]:
    """The rows of a file; UserError names it, and the line where it can."""
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dataset {path} cannot be read: {why(error)}") from error
    if path.suffix == ".csv":
        return _csv(path, text)
    if path.suffix != ".jsonl":
        raise UserError(f"dataset {path}: expected .jsonl, .csv or .parquet")
    # not splitlines: a text may hold the other characters that it takes for the end of a line
    return [_row(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _row(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number of very many digits is a ValueError of its own
        raise UserError(f"{path}:{number}: expected a JSON object") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
    if broken := [column for column, value in row.items() if not _can_be_sent([column, value])]:
        raise UserError(
            f"{path}:{number}: column {broken[0]!a}: half a character, or nested too deeply, cannot be sent"
        )
    return row


def _can_be_sent(value: Any) -> bool:
    """JSON can escape one half of a pair of surrogates, which is no character and has no bytes."""
    try:
        return bool(json.dumps(value, ensure_ascii=False).encode())
    except (UnicodeEncodeError, RecursionError):
        return False


def _csv(path: Path, text: str) -> list[Row]:
    """Rows with a field for each column; a header with different names."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
        if doubled := [name for name, count in Counter(columns).items() if count > 1]:
            raise UserError(f"{path}:1: two columns are called {doubled[0]!r}")
        rows: list[Row] = []
        for fields in filter(None, reader):
            if len(fields) != len(columns):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(fields)} fields, and the first line names {len(columns)} columns"
                )
            rows.append(dict(zip(columns, fields, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error
    return rows


def _parquet(path: Path) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(f"dataset {path}: parquet needs the library pyarrow: {_EXTRA}") from error
    try:
        return list(parquet.read_table(path).to_pylist())
    except ArrowException as error:
        raise UserError(f"dataset {path} is no parquet file: {' '.join(str(error).split())[:200]}") from error
