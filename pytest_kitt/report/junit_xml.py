"""What would pytest's JUnit XML say of a stored run? The same cases, verdicts and properties, from the store alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from pytest_kitt.measure.results import CellFacts, Measurement
from pytest_kitt.report import junit

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INCONCLUSIVE = {"xfail": ("skipped", "pytest.xfail"), "skip": ("skipped", "pytest.skip"), "fail": ("failure", "")}
_ELEMENTS = {
    "failed": ("failure", ""),
    "error": ("error", ""),
    "invalid": ("error", ""),
    "skipped": ("skipped", "pytest.skip"),
}
_COUNTED = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def render(found: Mapping[str, Any], *, inconclusive: str = "xfail") -> bytes:
    """The run as a document: ``found`` as ``document.read`` gives it.

    ``inconclusive`` is the setting of that name: what pytest made of a result that is neither a pass nor a failure.
    """
    run, results = found["run"], found["results"]
    root = ElementTree.Element("testsuites", name="pytest tests")
    suite = ElementTree.SubElement(root, "testsuite", name="pytest")
    facts = {"run": run["id"], "status": run["status"], "version": run["kitt_version"], "suite": run["suite"]}
    _properties(suite, ((f"kitt.{name}", value) for name, value in facts.items()))
    counts = dict.fromkeys(_COUNTED.values(), 0)
    for result in results:
        if verdict := _case(suite, result, {**_ELEMENTS, "inconclusive": _INCONCLUSIVE[inconclusive]}):
            counts[_COUNTED[verdict]] += 1
    for name, count in counts.items():
        suite.set(name, str(count))
    suite.set("tests", str(len(results)))
    suite.set("time", f"{sum(result['duration_s'] for result in results):.3f}")
    suite.set("timestamp", run["started_at"])
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def plain(text: object) -> str:
    """A text with what XML cannot hold spelt out, as pytest does it: ``#x1B``."""
    return _NOT_XML.sub(lambda found: f"#x{ord(found[0]):02X}", str(text))


def address(nodeid: str) -> tuple[str, str]:
    """Class name and name of a test case: ``a/b.py::T::test[x]`` is ``a.b.T`` and ``test[x]``."""
    path, bracket, variant = nodeid.partition("[")
    file, *names = path.split("::")
    parts = [file.replace("/", ".").removesuffix(".py"), *names]
    return ".".join(parts[:-1]), f"{parts[-1]}{bracket}{variant}"


def _case(suite: ElementTree.Element, result: Mapping[str, Any], elements: Mapping[str, tuple[str, str]]) -> str:
    """Adds a case; the name of the element that says why it did not pass, empty when it passed."""
    classname, name = address(result["nodeid"])
    took = f"{result['duration_s']:.3f}"
    case = ElementTree.SubElement(suite, "testcase", classname=plain(classname), name=plain(name), time=took)
    _properties(case, _facts(result))
    tag, kind = elements.get(result["outcome"], ("", ""))
    if tag:
        verdict = ElementTree.SubElement(case, tag, {"type": kind} if kind else {}, message=plain(result["reason"]))
        verdict.text = plain(f"{result['outcome']}: {result['reason']}")
    return tag


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """What pytest's own file says of an item; an invalid one has no numbers, so that nothing charts them."""
    for key, value in result["params"].items():
        if key.rpartition(".")[2] == "certificate" and isinstance(value, dict):
            lead = key.removesuffix("certificate")
            yield f"kitt.{lead}certified", str(not value.get("broken")).lower()
    if result["outcome"] != "invalid":
        yield from junit.properties(Measurement(**metric) for metric in result["metrics"])
        yield from junit.data_properties(result["params"])
    if result["cell"]:
        yield from junit.cell_properties(CellFacts(**result["cell"]))


def _properties(parent: ElementTree.Element, facts: Iterator[tuple[str, object]]) -> None:
    found = [(plain(name), plain(value)) for name, value in facts]
    if found:
        holder = ElementTree.SubElement(parent, "properties")
        for name, value in found:
            ElementTree.SubElement(holder, "property", name=name, value=value)
