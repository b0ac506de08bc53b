"""What is said of a row that cannot be asked? One sentence with file, row and column, and never a made-up question."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kitt.errors import UserError
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, prompts
from pytest_kitt.evals.prompts import Question

WRITTEN: dict[str, Any] = {
    "name": "mine",
    "summary": "Mine",
    "dataset": {"path": "mine.jsonl"},
    "prompt": "{{ question }}",
    "mode": "generate",
    "answer": "answer",
    "metrics": [{"metric": "exact_match"}],
}
COMPARED = WRITTEN | {"mode": "loglikelihood", "choices": "choices", "gold": "answer", "metrics": [{"metric": "acc"}]}
SEVERAL = COMPARED | {"metrics": [{"metric": "mc2", "labels": "labels"}], "gold": 0}
GOOD = {"question": "Why?", "answer": 1, "choices": ["a", "b"], "labels": [0, 1]}


def ask(folder: Path, card: dict[str, Any]) -> list[Question]:
    """The questions of a card in a folder, as a session would ask them."""
    path = folder / "mine.kitt.yaml"
    path.write_text(yaml.safe_dump(card), encoding="utf-8")
    read = cards.read(path)
    return prompts.ask(read, data.load(read, folder).subsets, path.name)


def told(folder: Path, card: dict[str, Any], content: str, name: str = "mine.jsonl") -> str:
    """The sentence that such a file gets."""
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        ask(folder, card | {"dataset": {"path": name}})
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()
    return str(error.value).replace(str(folder) + os.sep, "")


@pytest.mark.parametrize(
    "card, changes, words",
    [
        (WRITTEN, {"question": None}, "mine.kitt.yaml: prompt: column 'question': nothing (null) where a text belongs"),
        (WRITTEN, {"question": ["a"]}, "prompt: column 'question': a list where a text belongs"),
        (WRITTEN, {"question": {"text": "a"}}, "prompt: column 'question': an object where a text belongs"),
        (WRITTEN | {"prompt": "{{ choices | map('upper') }}"}, {}, "prompt: a value of type generator where a text"),
        (WRITTEN, {"question": "x" * 2_000_001}, "prompt: a text of 2000001 characters; the limit is 2000000"),
        (WRITTEN, {"answer": None}, "answer: column 'answer': expected a text, found None"),
        (WRITTEN, {"answer": {"a": "\x1b[31m"}}, "answer: column 'answer': expected a text, found {'a': '\\x1b[31m'}"),
        (WRITTEN, {"answer": ["a", None]}, "answer: expected a text, found None"),
        (COMPARED, {"choices": "ab"}, "choices: column 'choices': expected a list of texts, found 'ab'"),
        (COMPARED, {"choices": ["a", ["b"]]}, "choices: expected a text, found ['b']"),
        (COMPARED, {"choices": []}, "choices: there is none"),
        (COMPARED, {"choices": ["a", "x" * 2_000_001]}, "choices: a text of 2000001 characters; the limit is 2000000"),
        (
            COMPARED,
            {"answer": 2},
            "gold: column 'answer': expected one of the 2 choices or its number, from 0, found 2",
        ),
        (COMPARED, {"answer": -1}, "found -1"),
        (COMPARED, {"answer": 1.0}, "found 1.0"),
        (COMPARED, {"answer": "c"}, "found 'c'"),
        (COMPARED, {"answer": "1"}, "or its number, from 0 (of a text: gold: COLUMN | int), found '1'"),
        (COMPARED, {"answer": [0, 2]}, "gold: expected one of the 2 choices or its number, from 0, found 2"),
        (SEVERAL, {"labels": [1]}, "labels: column 'labels': expected 1 or 0 for each of 2 choices"),
        (SEVERAL, {"labels": [0, 0]}, "and at least one 1, found [0, 0]"),
        (SEVERAL, {"labels": [1, "0"]}, "found [1, '0']"),
        (SEVERAL, {"labels": None}, "labels: column 'labels': expected 1 or 0"),
    ],
)
def test_a_value_that_does_not_fit(tmp_path: Path, card: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    """The second of two rows."""
    said = told(tmp_path, card, "".join(json.dumps(row) + "\n" for row in (GOOD, GOOD | changes)))
    assert said.startswith(f"mine.jsonl, row {2 if changes else 1}: mine.kitt.yaml: ")
    assert words in said


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    """Whatever they are called."""
    said = told(tmp_path, WRITTEN, json.dumps({"\x1b[2Jquestoin": "a", "answer": "b"}))
    words = (
        "mine.jsonl, row 1: mine.kitt.yaml: prompt: 'question' is undefined; the row has: '\\x1b[2Jquestoin', answer"
    )
    assert said.startswith(words)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("mine.jsonl", '{"question": "\\ud83d", "answer": "a"}', "mine.jsonl:1: column 'question': half a character"),
        ("mine.jsonl", '\n{"question": ' + "9" * 5000 + "}", "mine.jsonl:2: expected a JSON object"),
        ("mine.csv", "question,answer\na,b\nc\n", "mine.csv:3: 1 fields, and the first line names 2 columns"),
        ("mine.csv", "question,answer\na,b,c\n", "mine.csv:2: 3 fields, and the first line names 2 columns"),
        ("mine.csv", 'question,answer\na,"b\nc,d\n', "mine.csv:3: not valid CSV: unexpected end of data"),
        ("mine.csv", f"question,answer\na,{'b' * 200_000}\n", "mine.csv:2: not valid CSV: field larger than"),
        ("mine.csv", "question,question\na,b\n", "mine.csv:1: two columns are called 'question'"),
        ("mine.csv", "question,answer\n", "mine: mine.csv holds no question"),
        ("mine.csv", "", "mine: mine.csv holds no question"),
    ],
)
def test_a_row_that_cannot_be_read(tmp_path: Path, name: str, content: str, words: str) -> None:
    """By file and line."""
    assert told(tmp_path, WRITTEN, content, name).startswith(words)


def test_a_pattern_of_a_card_that_is_none(tmp_path: Path) -> None:
    """The row shows it, the card is at fault."""
    said = told(tmp_path, WRITTEN | {"answer": "question | regex_replace('(')"}, json.dumps(GOOD))
    assert "mine.kitt.yaml: answer: missing ), unterminated subpattern" in said


def test_a_worked_example_that_does_not_fit_is_named_by_its_own_file(tmp_path: Path) -> None:
    """Not by the question in front of which it would stand."""
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "test.jsonl").write_text(json.dumps(GOOD))
    bad = [GOOD, GOOD | {"answer": 7}]
    (tmp_path / "all" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    card = COMPARED | {"dataset": {"path": "all"}, "fewshot": {"split": "train", "count": 2}}
    with pytest.raises(UserError, match=r"all.train\.jsonl, row 2: mine\.kitt\.yaml: gold: column 'answer'.*found 7"):
        ask(tmp_path, card)
    card["fewshot"] = {"samples": [GOOD, GOOD | {"choices": []}], "count": 2}
    with pytest.raises(UserError, match=r"mine: fewshot\.samples, row 2: mine\.kitt\.yaml: choices: there is none"):
        ask(tmp_path, card)


def test_no_question_is_its_own_example(tmp_path: Path) -> None:
    """Where worked examples come from the very rows that are asked, as from a single file."""
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(5)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for rule in ("first_n", "random"):
        asked = ask(tmp_path, WRITTEN | {"fewshot": {"split": "train", "count": 3, "rule": rule}})
        for row, one in zip(rows, asked, strict=True):
            assert (one.prompt.count("It is "), one.prompt.count(row["answer"])) == (3, 0)
            assert one.prompt.endswith(row["question"])


def test_numbers_are_texts_where_texts_belong(tmp_path: Path) -> None:
    """As a table has them."""
    row = {"question": 7, "answer": 1, "choices": [1, 2.5]}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    (compared,), (written,) = ask(tmp_path, COMPARED), ask(tmp_path, WRITTEN)
    assert (compared.pairs, compared.gold) == ([("7", " 1"), ("7", " 2.5")], (1,))
    assert written.references == ("1",)


def test_a_config_of_ones_own_that_is_missing_is_told(tmp_path: Path) -> None:
    """A sample may lack some, but who names his own wants them asked."""
    (tmp_path / "all" / "first").mkdir(parents=True)
    (tmp_path / "all" / "first" / "test.csv").write_text("question,answer\na,b\n")
    found = ask(tmp_path, WRITTEN | {"dataset": {"path": "all", "configs": ["first"]}})
    assert [(one.config, one.prompt, one.references) for one in found] == [("first", "a", ("b",))]
    with pytest.raises(UserError, match="all has no folder for the config 'second'; check"):
        ask(tmp_path, WRITTEN | {"dataset": {"path": "all", "configs": ["first", "second"]}})


# parquet


def test_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    """Lists and numbers as they are; in a folder per config as alone."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pytest-kitt[datasets]")
    from pyarrow import parquet

    (tmp_path / "all" / "first").mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist([GOOD, GOOD | {"answer": 0}]), tmp_path / "mine.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([GOOD]), tmp_path / "all" / "first" / "test.parquet")
    (one, other) = ask(tmp_path, COMPARED | {"dataset": {"path": "mine.parquet"}})
    assert (one.choices, one.gold, other.gold) == (("a", "b"), (1,), (0,))
    (third,) = ask(tmp_path, COMPARED | {"dataset": {"path": "all", "configs": ["first"]}})
    assert (third.config, third.choices, third.gold) == ("first", one.choices, one.gold)


def test_parquet_with_a_row_or_a_file_that_does_not_fit(tmp_path: Path) -> None:
    """A number that became a fraction, as tables with gaps have them; and what is no parquet."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pytest-kitt[datasets]")
    from pyarrow import parquet

    path = tmp_path / "mine.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([GOOD, GOOD | {"answer": None}]), path)
    card = COMPARED | {"dataset": {"path": "mine.parquet"}}
    with pytest.raises(UserError, match=r"mine\.parquet, row 2: mine\.kitt\.yaml: gold: column 'answer': .*None"):
        ask(tmp_path, card)
    for content in (b"", b"PAR1 and no more", path.read_bytes()[:-40]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"dataset .*mine\.parquet (is no parquet file|cannot be read): "):
            ask(tmp_path, card)


def test_parquet_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is read in its place."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "mine.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"parquet needs the library pyarrow: pip install 'pytest-kitt\[datasets\]'"):
        ask(tmp_path, COMPARED | {"dataset": {"path": "mine.parquet"}})
