"""Which suites and benchmarks are there, and how does one begin a new one? ``kitt test``."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pytest_kitt.cli import complete, template
from pytest_kitt.cli.output import AsJson, say, show_json, show_table
from pytest_kitt.errors import UserError, nearest

if TYPE_CHECKING:
    from pytest_kitt.cli.collection import Collection

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@app.callback()
def _group() -> None:
    """Show suites and benchmarks, begin a benchmark of your own.

    Example: kitt test list

    Example: kitt test new first_token
    """


@app.command("list", short_help="List suites and benchmarks.")
def list_tests(
    category: Annotated[
        str,
        typer.Option(
            "-c",
            "--category",
            metavar="NAME",
            help="Only benchmarks of this category.",
            autocompletion=complete.categories,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List suites and benchmarks, those of installed plugins too. Nothing is run.

    Example: kitt test list

    Example: kitt test list -c quality --json
    """
    from pytest_kitt.cli.collection import collect
    from pytest_kitt.selection import whole

    found = collect()
    benchmarks = [b for b in found.benchmarks if category in ("", b.category)]
    if category and not benchmarks:
        known = nearest(category, {b.category for b in found.benchmarks})
        raise UserError(f"--category: no benchmark is of category {category!r}; {known}")
    in_suites = {b.name for b in benchmarks}
    suites = [suite for suite in found.suites if not category or in_suites & {whole(name) for name in suite.benchmarks}]
    _tell_broken(found)
    if as_json:
        show_json(
            {
                "suites": [suite.model_dump(mode="json", exclude={"folder"}) for suite in suites],
                "benchmarks": [
                    {
                        "name": b.name,
                        "category": b.category,
                        "version": b.version,
                        "description": b.description,
                        "suites": list(b.suites),
                    }
                    for b in benchmarks
                ],
            }
        )
        return
    rows = [[b.name, b.category, b.version, ", ".join(b.suites) or "-", b.description] for b in benchmarks]
    show_table(("benchmark", "category", "version", "suites", "what it says"), rows, nothing="no benchmarks found")
    say()
    show_table(
        ("suite", "benchmarks", "what it is"),
        [[suite.name, ", ".join(suite.benchmarks), suite.description] for suite in suites],
        nothing="no suites found",
    )


@app.command("new", short_help="Write a benchmark to begin with.")
def new_test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name: lower-case letters, digits, underscores.")],
    category: Annotated[
        str,
        typer.Option("-c", "--category", metavar="NAME", help="performance or quality.", autocompletion=complete.kinds),
    ] = "performance",
    folder: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to write it.")] = Path(),
) -> None:
    """Write a benchmark that can be run at once, and say how. A file that is there is never overwritten.

    Of category performance that is a test file, of quality a card and its questions.

    Example: kitt test new first_token

    Example: kitt test new right_answers -c quality -o benchmarks
    """
    if category not in template.CATEGORIES:
        raise UserError(f"--category: {category!r} is unknown; {nearest(category, template.CATEGORIES)}")
    files = template.files(category, _checked(name))
    paths = [folder.expanduser() / file for file in files]
    if there := [path for path in paths if path.exists()]:
        raise UserError(f"{there[0]} is there already, and nothing is overwritten; choose another name or -o DIR")
    for path, content in zip(paths, files.values(), strict=True):
        _write(path, content)
    here = importlib.util.find_spec("xllamacpp")
    flags = ["--kitt-engine=llama_cpp", "--kitt-runtime=embedded"] if here else ["--kitt-engine=simulated"]
    say(f"wrote {' and '.join(map(str, paths))}; to run it:")
    typer.echo(shlex.join(["pytest", str(paths[0]), *flags]))


def _write(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError as error:
        what = path if path.exists() else path.parent
        raise UserError(
            f"{what} is there already, and nothing is overwritten; choose another name or -o DIR"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; choose another folder with -o DIR") from error


def _checked(name: str) -> str:
    """The name, without a leading ``test_``; UserError when it is none, or taken."""
    name = name.removeprefix("test_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        tamed = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()[:40]
        hint = f", as in {tamed!r}" if _NAME.fullmatch(tamed) and not keyword.iskeyword(tamed) else ""
        raise UserError(
            f"{name!r} is no name for a benchmark: take up to 40 lower-case letters, digits and underscores, a letter "
            f"first{hint}"
        )
    from pytest_kitt.cli.collection import collect

    if taken := next((b for b in collect().benchmarks if b.name == name), None):
        where = f"in suite {taken.suites[0]}" if taken.suites else f"in {taken.file}"
        raise UserError(
            f"there is a benchmark {name!r} already ({where}), and two would mix in the store; choose another"
        )
    return name


def _tell_broken(found: Collection) -> None:
    """A module that cannot be read is named; the others are shown."""
    for module, reason in found.broken.items():
        say(f"kitt: {module} could not be collected: {reason}", err=True)
