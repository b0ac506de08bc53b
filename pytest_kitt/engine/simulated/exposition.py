"""How are metrics written for Prometheus? Its text format 0.0.4. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Observations counted by buckets.

    Attributes:
        bounds: upper bounds of the buckets, rising; a value at a bound is within it.
        sum: of all observations.

    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Each bound as text, the last +Inf, with how many are within it."""
        total = 0
        for bound, here in zip([*map(repr, map(float, self.bounds)), "+Inf"], self._counts, strict=True):
            total += here
            yield bound, total


class Page:
    """One answer of /metrics."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._lines: list[str] = []

    def add(self, kind: str, name: str, value: float, what: str) -> None:
        """A gauge or a counter of one sample."""
        self.add_family(kind, name, [({}, value)], what)

    def add_family(self, kind: str, name: str, samples: Iterable[tuple[Mapping[str, str], float]], what: str) -> None:
        """A gauge or a counter with labels of its own."""
        self._head(kind, name, what)
        for labels, value in samples:
            self._sample(name, labels, value)

    def add_histogram(self, name: str, histogram: Histogram, what: str) -> None:
        """Its buckets, sum and count."""
        self._head("histogram", name, what)
        for bound, count in histogram.cumulative():
            self._sample(f"{name}_bucket", {"le": bound}, count)
        self._sample(f"{name}_sum", {}, histogram.sum)
        self._sample(f"{name}_count", {}, histogram.count)

    def render(self) -> bytes:
        """The page."""
        return "".join(f"{line}\n" for line in self._lines).encode()

    def _head(self, kind: str, name: str, what: str) -> None:
        self._lines += [f"# HELP {name} {_escaped(what)}", f"# TYPE {name} {kind}"]

    def _sample(self, name: str, labels: Mapping[str, str], value: float) -> None:
        pairs = ",".join(f'{key}="{_quoted(text)}"' for key, text in {**self._labels, **labels}.items())
        self._lines.append(f"{name}{{{pairs}}} {value}")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
