"""How much is here of what comes in layers? Each tells its own bytes; they become known one after another."""

from __future__ import annotations


class Layers:
    """The bytes of all layers that are known so far."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def take(self, name: str, done: int, total: int) -> bool:
        """Takes how much of a layer is here; whether that is news."""
        news = self._known.get(name) != (done, total)
        self._known[name] = done, total
        return news

    def complete(self, name: str) -> bool:
        """All of a layer is here; whether that is news. One that never told its size does not count."""
        return name in self._known and self.take(name, self._known[name][1], self._known[name][1])

    @property
    def done(self) -> int:
        """Bytes that are here."""
        return sum(done for done, _ in self._known.values())

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return sum(total for _, total in self._known.values())
