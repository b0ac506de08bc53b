"""Do settings come from the right place, and do bad ones name theirs?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.errors import UserError
from pytest_kitt.settings import OPTIONS, Settings, masked_argv, read_config_file, resolve, shown


def made(**places: dict[str, Any]) -> Settings:
    """Settings from some of the four places."""
    return resolve(**{"cli": {}, "env": {}, "ini": {}, "file": {}, **places})


PLACES: list[tuple[str, dict[str, dict[str, Any]]]] = [
    ("cli", {"cli": {"seed": "1"}, "env": {"KITT_SEED": "2"}, "ini": {"seed": "3"}, "file": {"seed": 4}}),
    ("env", {"env": {"KITT_SEED": "1"}, "ini": {"seed": "3"}, "file": {"seed": 4}}),
    ("ini", {"ini": {"seed": "1"}, "file": {"seed": 4}}),
    ("file", {"file": {"seed": 1}}),
]


@pytest.mark.parametrize("origin, places", PLACES)
def test_precedence(origin: str, places: dict[str, dict[str, Any]]) -> None:
    """Command line over environment over ini over file, and the origin is known."""
    settings = made(**places)
    assert (settings.seed, settings.origins["seed"]) == (1, origin)


def test_defaults_have_no_origin() -> None:
    """What nobody set is the default."""
    assert made() == Settings()
    assert shown(made()) == []


def test_no_limit_is_a_limit_of_nothing() -> None:
    """An item's limit can be switched off again, say in an environment that sets one."""
    assert made(cli={"item_timeout": "0"}, env={"KITT_ITEM_TIMEOUT": "60"}).item_timeout == 0
    assert made(env={"KITT_ITEM_TIMEOUT": "60"}).item_timeout == 60


def test_lists_are_repeatable_and_comma_separated() -> None:
    """Names are split, in order, without repeats; in the environment one value a line."""
    assert made(cli={"engine": ["a,b", "c", "a"]}).engine == ("a", "b", "c")
    assert made(env={"KITT_ENGINE": "a,b"}).engine == ("a", "b")
    assert made(env={"KITT_ENGINE_ARG": "a=1\nb=x,y=z"}).engine_arg == (("a", "1"), ("b", "x,y=z"))
    assert made(file={"engine": ["a", "b"], "engine_arg": {"a": 1}}).engine_arg == (("a", "1"),)


BAD: list[tuple[dict[str, dict[str, Any]], str]] = [
    ({"cli": {"seed": "x"}}, "--kitt-seed: 'x' is not a number"),
    ({"env": {"KITT_START_TIMEOUT": "-1"}}, "environment variable KITT_START_TIMEOUT: '-1' is not a positive"),
    ({"env": {"KITT_START_TIMEOUT": "nan"}}, "is not a positive"),
    ({"cli": {"restart": "101"}}, "--kitt-restart: 101 is not between 0 and 100"),
    ({"cli": {"item_timeout": "-1"}}, "--kitt-item-timeout: '-1' is not a positive number of seconds"),
    ({"ini": {"api": "chatt"}}, "ini key kitt_api: 'chatt' is unknown; did you mean 'chat'?"),
    ({"file": {"runtime": "docker"}}, "key runtime of .*config.yaml: 'docker' is unknown"),
    ({"cli": {"engine_arg": ["novalue"]}}, "'novalue' is not KEY=VALUE$"),
    ({"cli": {"engine_arg": ["--f"]}}, "'--f' is not KEY=VALUE; a flag without a value is passed as '--f='$"),
    ({"cli": {"header": ["X: a\r\nY: b"]}}, "a header is 'Name: value' on one line"),
    ({"cli": {"header": ["secret-without-colon"]}}, "a header is 'Name: value' on one line"),
    (
        {"env": {"KITT_DRY_RUN": "maybe"}},
        "variable KITT_DRY_RUN: 'maybe' is neither yes nor no; say 1, true",
    ),
    ({"ini": {"keep_engine": "2"}}, "ini key kitt_keep_engine: '2' is neither yes nor no"),
    ({"file": {"dry_run": [True, "x"]}}, "key dry_run of .*config.yaml: 'x' is neither yes nor no"),
]


@pytest.mark.parametrize("places, sentence", BAD)
def test_bad_values_name_their_place(places: dict[str, dict[str, Any]], sentence: str) -> None:
    """One sentence: where, what, what is known."""
    with pytest.raises(UserError, match=sentence) as caught:
        made(**places)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "places, dry",
    [
        ({"cli": {"dry_run": "true"}, "env": {"KITT_DRY_RUN": "0"}}, True),
        ({"env": {"KITT_DRY_RUN": "1"}}, True),
        ({"env": {"KITT_DRY_RUN": "On"}}, True),
        ({"env": {"KITT_DRY_RUN": "off"}, "ini": {"dry_run": "true"}}, False),
        ({"env": {"KITT_DRY_RUN": " "}, "ini": {"dry_run": "yes"}}, True),
        ({"file": {"dry_run": True}}, True),
        ({"file": {"dry_run": False}}, False),
        ({}, False),
    ],
)
def test_switches(places: dict[str, dict[str, Any]], dry: bool) -> None:
    """A flag without a value is a word of yes or no elsewhere, and has the same precedence."""
    assert made(**places).dry_run is dry


def test_secrets_are_masked() -> None:
    """Headers are shown without their values, and a key not at all."""
    settings = made(cli={"header": ["X-Key: hush"]}, env={"KITT_API_KEY": "hush"})
    assert settings.api_key == "hush"
    assert shown(settings) == ["header=*** (cli)"]
    assert shown(made(env={"KITT_DB": "postgresql://me:hush@host/x"})) == ["db=postgresql://me:***@host/x (env)"]
    assert "hush" not in repr(settings).replace("('X-Key', 'hush')", "")


@pytest.mark.parametrize(
    "argv, masked",
    [
        (["--kitt-header", "X: hush", "t.py"], ["--kitt-header", "***", "t.py"]),
        (["--kitt-header=X: hush"], ["--kitt-header=***"]),
        (["-o", "kitt_header=X: hush"], ["-o", "kitt_header=***"]),
        (["-okitt_header=X: hush"], ["-okitt_header=***"]),
        (["--kitt-db=postgresql://me:hush@host/x"], ["--kitt-db=postgresql://me:***@host/x"]),
        (["--kitt-db", "postgresql://me:h@sh@host/x"], ["--kitt-db", "postgresql://me:***@host/x"]),
        (["--kitt-url=http://host:80/a@b"], ["--kitt-url=http://host:80/a@b"]),
        (["--kitt-seed=3", "-k", "a=b"], ["--kitt-seed=3", "-k", "a=b"]),
        (["--kitt-engine-arg=--api-key=h=ush"], ["--kitt-engine-arg=--api-key=***"]),
        (["--kitt-engine-arg=max_tokens=5"], ["--kitt-engine-arg=max_tokens=5"]),
        (["--kitt-api-key-file=key.txt", "t.py"], ["--kitt-api-key-file=key.txt", "t.py"]),
    ],
)
def test_the_stored_command_line_is_masked(argv: list[str], masked: list[str]) -> None:
    """However a secret is spelt, its value is not kept."""
    assert masked_argv(argv) == masked


def test_api_key_file(tmp_path: Path) -> None:
    """The key file holds one line; anything else is named without being shown."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(" hush \n")
    bad.write_text("two words")
    assert made(cli={"api_key_file": str(good)}, env={"KITT_API_KEY": "other"}).api_key == "hush"
    with pytest.raises(UserError, match="holds no usable key") as caught:
        made(cli={"api_key_file": str(bad)})
    assert "two words" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        made(cli={"api_key_file": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "text, sentence",
    [("sede: 3", "unknown key 'sede'; did you mean 'seed'"), ("- a", "expected a mapping"), ("a: [", "as YAML")],
)
def test_bad_config_file(text: str, sentence: str) -> None:
    """config.yaml is strict."""
    (Path(os.environ["KITT_HOME"]) / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_config_file()


def test_options_have_one_spelling_each() -> None:
    """Flag, variable and ini key follow from the name."""
    assert len({o.flag for o in OPTIONS}) == len(OPTIONS)
    (option,) = [o for o in OPTIONS if o.name == "engine_arg"]
    assert (option.flag, option.env, option.ini) == ("--kitt-engine-arg", "KITT_ENGINE_ARG", "kitt_engine_arg")
