"""How is a time drawn, and what is its short form?

=====================================  ========================================================================
``20`` or ``constant:20``              always 20
``normal:MEAN:SD``                     normal with this mean and standard deviation, truncated at 0: what would be
                                       negative is drawn again, so the mean is a little above MEAN where SD is large
``lognormal:MEDIAN:SIGMA``             e to the power of a normal: half of the values are below MEDIAN, and the
                                       logarithm has the standard deviation SIGMA
``empirical:FILE``                     one of the file's values, each as likely as any other; one number a line
=====================================  ========================================================================

Each is the inverse of its cumulative distribution at a share in [0, 1), so one uniform number makes one value.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Protocol

FORMS = "a number, normal:MEAN:SD, lognormal:MEDIAN:SIGMA or empirical:FILE"

_UNIT = NormalDist()
# The inverse is not defined at 0 and 1; these are the nearest numbers to them that a share can be.
_LEAST, _MOST = 2.0**-53, 1.0 - 2.0**-53


class Distribution(Protocol):
    """Of times, in the unit of its parameters."""

    def at(self, share: float) -> float:
        """The value that so large a share of all values is below."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    value: float

    def at(self, _share: float) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal, truncated at 0."""

    mean: float
    sd: float

    def at(self, share: float) -> float:
        """The value that so large a share of what is not negative is below."""
        below_zero = _UNIT.cdf(-self.mean / self.sd)
        return max(0.0, self.mean + self.sd * _normal(below_zero + share * (1.0 - below_zero)))


@dataclass(frozen=True, slots=True)
class LogNormal:
    """The logarithm is normal."""

    median: float
    sigma: float

    def at(self, share: float) -> float:
        """The value that so large a share of all values is below."""
        return self.median * math.exp(self.sigma * _normal(share))


@dataclass(frozen=True, slots=True)
class Empirical:
    """What was measured somewhere."""

    values: tuple[float, ...]

    def at(self, share: float) -> float:
        """One of the values."""
        return self.values[int(share * len(self.values))]


def read(text: str) -> Distribution:
    """The distribution of a short form; ValueError says in one sentence what is wrong."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return Constant(_number(text, text))
    if kind == "constant":
        return Constant(_number(rest, text))
    if kind == "empirical":
        return Empirical(_values(rest))
    if kind not in ("normal", "lognormal"):
        raise ValueError(f"{text!r} is no distribution; expected {FORMS}")
    first, colon, second = rest.partition(":")
    if not colon:
        raise ValueError(f"{text!r} has one parameter too few; expected {FORMS}")
    center, width = _number(first, text), _number(second, text)
    if width == 0:
        return Constant(center)
    return Normal(center, width) if kind == "normal" else LogNormal(center, width)


def _normal(share: float) -> float:
    return _UNIT.inv_cdf(min(max(share, _LEAST), _MOST))


def _values(path: str) -> tuple[float, ...]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    values = tuple(_number(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip())
    if not values:
        raise ValueError(f"{path} holds no number; expected one a line")
    return values


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: {text.strip()!r} is no number; expected {FORMS}") from None
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{where}: {text.strip()} is not a number from 0 on")
    return value
