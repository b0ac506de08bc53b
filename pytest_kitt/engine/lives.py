"""May a cell's engine be started again, and which item says why not?"""

from __future__ import annotations

import dataclasses
from typing import Any

from pytest_kitt.errors import EngineDiedError


@dataclasses.dataclass(slots=True)
class Lives:
    """The starts and deaths of one cell's engine in a session.

    Attributes:
        restarts: how many deaths are followed by another start.
        deaths: in order.
        told_in: node id of the item that the last death was an error of; empty while there is none.

    """

    restarts: int
    deaths: list[EngineDiedError] = dataclasses.field(default_factory=list)
    told_in: str = ""
    _life: int = 0
    _alive: bool = False

    @property
    def lost(self) -> bool:
        """Whether it died and was not started again since."""
        return bool(self.deaths) and not self._alive

    @property
    def over(self) -> bool:
        """Whether it is dead for good."""
        return self.lost and len(self.deaths) > self.restarts

    def begin(self) -> None:
        """Counts a start; the last death is raised when no start is left."""
        if self.over:
            raise self.deaths[-1]
        self._alive, self._life, self.told_in = True, len(self.deaths) + 1, ""

    def end(self, death: EngineDiedError, told_in: str = "") -> None:
        """Counts a death, once per life."""
        if self._alive:
            self._alive = False
            self.deaths.append(death)
        self.told_in = self.told_in or told_in

    def params(self) -> dict[str, Any]:
        """What is stored with a result that was measured after a restart."""
        if self._life < 2:
            return {}
        return {"engine_starts": self._life, "engine_died": str(self.deaths[self._life - 2]).splitlines()[0]}
