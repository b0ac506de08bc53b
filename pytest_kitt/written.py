"""How does an evaluation that is written as a card become an item? As a module of one test, which evaluates it.

So it has cells, runs, marks and results as every other benchmark has.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, prompts
from pytest_kitt.fixtures import Evaluate

_NAMES = pytest.StashKey[dict[str, Path]]()


class CardFile(pytest.Module):
    """A ``NAME.kitt.yaml``."""

    def _getobj(self) -> types.ModuleType:
        """What pytest takes for the module; a card that is none ends the collection with its sentence."""
        try:
            card = cards.read(self.path)
            self._require_name_of_its_own(card.name)
            prompts.Renderer(card, str(self.path))
            data.require_file(card, self.path.parent)
        except UserError as error:
            raise self.CollectError(str(error)) from error
        path = self.path

        @pytest.mark.kitt(name=card.name, version=card.version, category="quality")
        def test(kitt_evaluate: Evaluate) -> None:
            scores = kitt_evaluate(path)
            try:
                scores.require_pass()
            except AssertionError as missed:
                pytest.fail(str(missed), pytrace=False)

        test.__name__, test.__doc__ = f"test_{card.name}", card.summary
        test.__code__ = test.__code__.replace(co_filename=str(path), co_firstlineno=1)
        module = types.ModuleType(path.name, card.summary)
        module.__file__ = str(path)
        setattr(module, test.__name__, test)
        return module

    def _require_name_of_its_own(self, name: str) -> None:
        """Results are told apart by it, in the store too."""
        if name in cards.shipped_names():
            raise UserError(f"{self.path}: {name} is a shipped evaluation, and results of both would mix; rename it")
        known = self.config.stash.setdefault(_NAMES, {})
        if known.setdefault(name, self.path) != self.path:
            raise UserError(f"{self.path}: {name} is the name of {known[name]}, too; rename one of them")

    def funcnamefilter(self, name: str) -> bool:
        """Its one test, whatever the user's own are called."""
        return name.startswith("test_")

    def classnamefilter(self, _: str) -> bool:
        """No class."""
        return False

    def _importtestmodule(self) -> Any:  # pragma: no cover - there is no module to import
        return self._getobj()
