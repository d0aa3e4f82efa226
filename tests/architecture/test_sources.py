"""Rules on the source files that no other tool holds: size, words at the top, no private places."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mmdata", "pipelines", "flamingo", "schemas")
#: What is longer stands below with the reason why it reads better in one piece; the lists are read
#: in review. Nothing is split only to get under a number, and nothing is long without a reason.
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
#: path -> why.
LONG_FILES: dict[str, str] = {
    "flamingo/launch/run.py": "a run from its options to its end, in the order of what happens",
    "flamingo/models/family.py": "the seam in one place, both of its sides; mostly docstrings",
    "flamingo/models/flamingo/network.py": "the passes, which share the ragged stack of images",
}
#: `path:function` -> why.
LONG_FUNCTIONS: dict[str, str] = {
    "flamingo/models/flamingo/build.py:create_model_and_transforms": (
        "OpenFlamingo's arguments and ours, one a line, and the order in which parts are checked"
    ),
}

#: Written in pieces, so that this file does not break its own rule.
FORBIDDEN_TEXT = re.compile(
    "|".join(
        (
            r"pypi\." + "org",
            r"pythonhosted\." + "org",
            r"conda\." + "anaconda",
            r"download\.pytorch\." + "org",
            r"https?://[^\s\"')]+/" + r"simple\b",
            r"--(?:extra-)?" + "index-url",
            r"(?<![\w.~/-])/(?:ro" + r"ot|home/\w+|Us" + r"ers/\w+|work)/\w",
        )
    )
)


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def tracked_files() -> list[Path]:
    """Files of the repository: git's list where there is a git, with what is not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
class TestSource:
    def test_is_no_longer_than_a_sitting_or_says_why(self, path: Path) -> None:
        if path.relative_to(ROOT).as_posix() not in LONG_FILES:
            assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES

    def test_functions_fit_a_screen_or_say_why(self, path: Path) -> None:
        too_long = {
            f"{name}: {lines}"
            for name, lines in functions(path)
            if lines > MAX_FUNCTION_LINES and name not in LONG_FUNCTIONS
        }
        assert too_long == set()

    def test_says_what_it_is_for(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        if text.strip():  # an empty __init__.py needs no words
            assert ast.get_docstring(ast.parse(text))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(`path:function`, lines without decorators) of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            name = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
            yield name, node.end_lineno - node.lineno + 1


def test_exceptions_are_still_needed() -> None:
    lengths = {name: lines for path in sources() for name, lines in functions(path)}
    stale = {name for name in LONG_FUNCTIONS if lengths.get(name, 0) <= MAX_FUNCTION_LINES}
    short = {
        name
        for name in LONG_FILES
        if len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    }
    assert stale | short == set()


def test_every_exception_has_its_reason() -> None:
    reasons = LONG_FILES | LONG_FUNCTIONS
    assert {name for name, why in reasons.items() if len(why.split()) < 4} == set()


def test_no_registry_host_and_no_path_of_somebodys_machine() -> None:
    found = []
    for path in tracked_files():
        if not path.is_file() or path.is_relative_to(ROOT / "examples" / "mmc4" / "images"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}: {match[0]}" for match in FORBIDDEN_TEXT.finditer(text)
        ]
    assert found == []


def test_constraints_are_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+", line)] == []
    assert lines == sorted(lines, key=str.lower)


def requirements() -> list[Requirement]:
    """All that `pyproject.toml` asks for, of other projects."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    return [one for one in map(Requirement, wanted) if one.name != "mmdata"]


def constrained() -> dict[str, str]:
    """Version of every package in `constraints.txt`, by its normalised name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(name): version for name, _, version in (x.partition("==") for x in lines)
    }


def test_every_direct_requirement_is_constrained_to_what_its_bounds_allow() -> None:
    pinned = constrained()
    unfit = {
        str(one): pinned.get(canonicalize_name(one.name), "not there")
        for one in requirements()
        if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0"))
    }
    assert unfit == {}


#: Broke us within a major version.
BOUND_AT_A_MINOR = {"ray", "torchao", "transformers"}


def test_every_direct_requirement_ends_before_a_version_that_may_break() -> None:
    """`<` one number, the next major; two numbers, the next minor, for those known to break."""
    for one in requirements():
        (bound,) = [x.version for x in one.specifier if x.operator == "<"]
        assert len(Version(bound).release) == 1 + (one.name in BOUND_AT_A_MINOR), str(one)


def test_the_sample_is_what_it_is_said_to_be() -> None:
    """At most 4 MB, and every picture's source is stated."""
    folder = ROOT / "examples"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    rows = (folder / "mmc4/IMAGES.tsv").read_text(encoding="utf-8").splitlines()[1:]
    present = {tuple(row.split("\t")[:2]) for row in rows if row.endswith("\tyes")}
    there = {(path.parent.name, path.name) for path in folder.glob("mmc4/images/*/*")}
    assert present == there


@pytest.mark.parametrize("package", PACKAGES)
def test_parquet_is_read_in_the_thread_that_asks(package: str) -> None:
    """A thread of Arrow's that lets go of Python's bytes while Python ends aborts the process."""
    readers = ("pq.ParquetFile", "pq.read_table")
    for path in sorted((ROOT / package).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in readers:
                told = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert told.get("pre_buffer") == "False", f"{path}:{call.lineno}"
