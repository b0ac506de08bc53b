"""What does a run have already, so that it can be gone on with?

A result is found again by its key: cell, benchmark, version, parameters, API, seed and questions. What passed is done;
all else is measured again. Questions that an item had asked before it was cut off are not asked again.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_kitt.errors import UserError
from pytest_kitt.matrix import Cell

PLANNED = "planned"  # the event that says which results a session was to have


@dataclasses.dataclass(frozen=True, slots=True)
class Resumed:
    """What is known of the run to go on with; nothing for a new run.

    Attributes:
        run_id: the run; empty for a new one.
        started_at: when it began.
        done: keys of results that passed.
        attempts: how often the others were tried, by key.
        outcomes: of the last attempt at each result so far, by key.
        planned: keys of all results that it was to have.
        argv: the command line that began it.
        answers: rows of questions that were asked in an item that did not end, by key.
        images: of the containers that gave its numbers, by key of the cell.

    """

    run_id: str = ""
    started_at: str = ""
    done: frozenset[str] = frozenset()
    attempts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    outcomes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    planned: frozenset[str] = frozenset()
    argv: Sequence[str] = ()
    answers: Mapping[str, Sequence[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    images: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def require_overlap(self, planned: frozenset[str]) -> None:
        """UserError when nothing of what is to be measured belongs to the run."""
        known = self.planned | self.outcomes.keys()
        if planned and known and not planned & known:
            raise UserError(
                f"--kitt-resume: nothing of what you name belongs to run {self.run_id}, which was: "
                f"{shlex.join(self.argv)}; give its options again, or begin a new run"
            )

    def require_same_images(self, cells: Iterable[Cell], chosen: Mapping[str, str]) -> None:
        """UserError when a container would run another image, by engine, than the one whose numbers the run has."""
        for cell in cells:
            had, now = self.images.get(cell.key, ()), chosen.get(cell.engine, "")
            if cell.runtime == "container" and had and now and now not in had:
                raise UserError(
                    f"--kitt-resume: run {self.run_id} measured {cell.id} with image {had[0]}, and this session would "
                    f"with {now}: say --kitt-image={cell.engine}={had[0]}, or begin a new run"
                )

    def to_json(self) -> str:
        """All of it, for workers: they must not read the store, or their collections would differ."""
        said = {**dataclasses.asdict(self), "done": sorted(self.done), "planned": sorted(self.planned)}
        return json.dumps(said)

    @classmethod
    def from_json(cls, text: str) -> Resumed:
        """What ``to_json`` wrote."""
        said = json.loads(text)
        return cls(**{**said, "done": frozenset(said["done"]), "planned": frozenset(said["planned"])})


def read(db: str, ref: str, fingerprint_key: str) -> Resumed:
    """Reads a run from the store; UserError when there is none, or when another machine measured it."""
    from pytest_kitt.store import reader
    from pytest_kitt.store.database import exists, opened

    if not exists(db):
        raise UserError("--kitt-resume: there is no store yet, so nothing to go on with; leave it out to begin a run")
    if Path(ref).exists():
        raise UserError(f"--kitt-resume: {ref!r} was taken for the run: write --kitt-resume=last, or put it at the end")
    with opened(db) as engine, engine.connect() as connection:
        run = reader.show_run(connection, ref)["run"]
        if run["status"] == "running":
            raise UserError(f"--kitt-resume: run {run['id']} is still running; wait for its end, or end it")
        measured_on = (run["fingerprint"] or {}).get("key")
        if measured_on != fingerprint_key:
            raise UserError(
                f"--kitt-resume: run {run['id']} was measured on another machine ({measured_on}, this is "
                f"{fingerprint_key}); numbers of two machines do not mix: begin a new run"
            )
        latest = reader.latest_results(connection, run["id"])
        events = reader.read_events(connection, run["id"])
        return Resumed(
            run_id=run["id"],
            started_at=run["started_at"],
            done=frozenset(key for key, found in latest.items() if found["outcome"] == "passed"),
            attempts={key: found["attempt"] for key, found in latest.items() if found["outcome"] != "passed"},
            outcomes={key: found["outcome"] for key, found in latest.items()},
            planned=frozenset(key for plan in events if plan["kind"] == PLANNED for key in plan["payload"]["keys"]),
            argv=tuple(run["argv"]),
            answers={
                key: rows
                for key, found in latest.items()
                if found["outcome"] == "error" and (rows := reader.read_rows(connection, found["id"]))
            },
            images=reader.measured_images(connection, run["id"]),
        )
