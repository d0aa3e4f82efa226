"""Every command answers whatever it is given: in one line and with the exit code that says so.

The cases are made from the dataclasses of the options, so that a new option or command is tried by
itself; only what a command needs to run at all stands here. All runs are in this process.
"""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from mmdata.cli.arguments import Option, options_of
from mmdata.cli.main import COMMANDS, main
from tests.corpus import make_corpus, picture
from tests.custom_factory import make_conversations
from tests.laion_factory import write
from tests.shard_factory import make_dataset, make_pairs

#: Commands that need no model: each is run with every path that can be wrong.
LIGHT = (
    *("convert-mmc4", "convert-custom", "convert-laion", "fetch-images", "validate"),
    *("repair", "index", "report", "status", "show"),
)
Inputs = dict[str, list[str]]
Say = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What each command runs on, without the words for where it writes."""
    place = tmp_path_factory.mktemp("inputs")
    corpus = make_corpus(place / "mmc4", records=2, files=1, suffix=".jsonl")
    custom = make_conversations(place / "custom", records=2, files=1)
    make_dataset(place / "shards", shards=1, documents=2)
    rows = [{"URL": "http://127.0.0.1:9/a.jpg", "TEXT": "a", "image": picture(1)}]
    shards = str(place / "shards")
    return {
        "convert-mmc4": [*corpus.docs, "--images", corpus.images, "--workers", "0"],
        "convert-custom": [*custom.inputs, "--image-root", custom.root, "--workers", "0"],
        "convert-laion": [
            str(write(place / "rows.parquet", rows)),
            *("--fetcher", "none", "--workers", "0"),
        ],
        "fetch-images": [*corpus.docs, "--workers", "0"],
        "validate": [shards, "--workers", "0"],
        "repair": [shards, "--workers", "0"],
        "report": [shards, "--workers", "0"],
        "status": [shards],
        "show": [shards],
        "index": ["--workers", "0"],
    }


def words_of(command: str, inputs: Inputs, folder: Path) -> list[str]:
    """A run of a command into a fresh folder."""
    words = list(inputs[command])
    if command == "index":
        make_pairs(folder / "pairs", samples=1)
        words = [str(folder / "pairs"), *words]
    if any(option.field == "output" for option in options_of(COMMANDS[command][0])):
        words += [] if command == "status" else ["--output", str(folder / "out")]
    return words


def with_value(words: list[str], option: Option, value: str) -> list[str]:
    """The same call with another value of one option."""
    named = [place for place, word in enumerate(words) if word.startswith("--")]
    if option.positional:
        return [value, *words[named[0] if named else len(words) :]]
    if option.name in words:
        place = words.index(option.name)
        words = words[:place] + words[place + 2 :]
    return [*words, option.name, value]


@dataclass
class Wrong:
    """Paths that are something else than what was expected."""

    folder: Path

    def paths(self) -> dict[str, str]:
        """Each kind, made anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "empty").mkdir(parents=True)
        (self.folder / "folder.tar").mkdir()
        (self.folder / "text").write_text("hello\n")
        (self.folder / "binary.tar").write_bytes(bytes(range(256)) * 8)
        return {
            "missing": str(self.folder / "nothing" / "here"),
            "an empty folder": str(self.folder / "empty"),
            "a folder for a file": str(self.folder / "folder.tar"),
            "a file for a folder": str(self.folder / "text"),
            "a file of no kind": str(self.folder / "binary.tar"),
            "below a file": str(self.folder / "text" / "x"),
            "too long a name": str(self.folder / ("n" * 300)),
        }


def judge(words: list[str], say: Say) -> int:
    """Run a command; whatever it finds wrong, it says so like a person.

    Further lines begin with two blanks: they list what a first line has announced.
    """
    say.readouterr()
    code = main(words)
    said = say.readouterr()
    assert code in (0, 1, 2), f"{words}: exit code {code}"
    if code == 2:
        first, *more = said.err.rstrip("\n").split("\n")
        assert first.startswith("mmdata: "), f"{words}: {said.err!r}"
        assert all(line.startswith("  ") for line in more), f"{words}: {said.err!r}"
    elif code == 1:
        assert said.out or said.err, f"{words}: exit code 1 without a word"
    return code


@pytest.mark.parametrize("command", COMMANDS)
def test_with_nothing_it_says_what_it_needs(command: str, capsys: Say) -> None:
    kind = COMMANDS[command][0]
    needed = {column.name for column in fields(kind) if column.default is MISSING}
    if not needed and command != "validate":  # recipes lists what there is
        return
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for option in options_of(kind):
        assert option.field not in needed or option.name in error


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_value_of_any_option_is_one_line_that_names_it(command: str, capsys: Say) -> None:
    for option in options_of(COMMANDS[command][0]):
        for value in wrong_values(option):
            assert main([command, f"{option.name}={value}"]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"mmdata: {option.name}"), error
            assert error.count("\n") == 1
        if not option.positional and option.hint is not bool:
            assert main([command, option.name]) == 2
            assert capsys.readouterr().err.startswith(f"mmdata: {option.name}: expected ")


def wrong_values(option: Option) -> list[str]:
    """Values that are none of an option's type."""
    if option.positional:
        return []
    if get_origin(option.hint) is Literal:
        assert "no-such-choice" not in get_args(option.hint)
        return ["no-such-choice", ""]
    kinds: dict[Any, list[str]] = {
        int: ["x", "1.5", ""],
        float: ["x", "nan", "inf", ""],
        bool: ["true"],
        str: ["\udcff", "a\0b"],
    }
    return kinds.get(option.hint, [])


def texts(command: str) -> list[Option]:
    """The options whose values may be paths: those that are no number, flag or choice."""
    options = options_of(COMMANDS[command][0])
    return [one for one in options if one.hint is str or get_args(one.hint)[:1] == (str,)]


@pytest.mark.parametrize("command", LIGHT)
def test_paths_that_are_not_what_was_expected(
    command: str, inputs: Inputs, tmp_path: Path, capsys: Say
) -> None:
    wrong = Wrong(tmp_path / "wrong")
    needed = {column.name for column in fields(COMMANDS[command][0]) if column.default is MISSING}
    for number, option in enumerate(texts(command)):
        for kind, path in wrong.paths().items():
            folder = tmp_path / f"{number}-{kind}"
            code = judge(
                [command, *with_value(words_of(command, inputs, folder), option, path)], capsys
            )
            if kind == "missing" and option.field in needed - {"output"}:
                assert code == 2, f"{option.name} {kind}"
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def without_power() -> Iterator[None]:
    """Take from this thread what lets root read any file."""
    if os.geteuid():
        yield
        return
    numbers = ctypes.c_uint32 * 2
    header = numbers(0x20080522, 0)  # version 3 of Linux's interface, this thread
    before = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(header, before):
        pytest.skip("the power of root cannot be given up here")
    lowered = (ctypes.c_uint32 * 6)(*before)
    lowered[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of the effective ones
    if libc.capset(header, lowered):
        pytest.skip("the power of root cannot be given up here")
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions of POSIX")
@pytest.mark.parametrize("command", LIGHT)
def test_what_may_not_be_read_is_said(
    command: str, inputs: Inputs, tmp_path: Path, capsys: Say
) -> None:
    secret, vault = tmp_path / "secret.tar", tmp_path / "vault"
    secret.write_bytes(b"x")
    vault.mkdir()
    (vault / "a.tar").write_bytes(b"x")
    assert judge([command, *words_of(command, inputs, tmp_path / "first")], capsys) in (0, 2)
    with closed(secret, vault), without_power():
        with pytest.raises(PermissionError):
            secret.read_bytes()
        for number, option in enumerate(texts(command)):
            for kind, path in enumerate((secret, vault, vault / "a.tar")):
                words = words_of(command, inputs, tmp_path / f"{number}-{kind}")
                judge([command, *with_value(words, option, str(path))], capsys)


@contextmanager
def closed(*paths: Path) -> Iterator[None]:
    """Paths that nobody may read, for a while."""
    for path in paths:
        path.chmod(0)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(0o755)


HEAVY: dict[str, Callable[[str], list[str]]] = {
    "align": lambda path: [path, "--output", f"{path}/out", "--clip-model", f"local-dir:{path}"],
    "features": lambda path: [path, "--output", f"{path}/out", "--vision-encoder-path", path],
    "train": lambda path: ["--mmc4-shards", path, "--lm-path", path, "--run-name", f"{path}/run"],
    "train-report": lambda path: [path],
    "generate": lambda path: ["--checkpoint", path, "--prompt", "x"],
    "export": lambda path: [path, "--format", "safetensors"],
    "recipes": lambda path: [path],
}


def test_every_command_is_tried() -> None:
    assert {*LIGHT, *HEAVY} == set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", HEAVY)
def test_commands_of_models_name_what_is_missing(command: str, tmp_path: Path, capsys: Say) -> None:
    """With every other input a folder or a file that is none."""
    for path in Wrong(tmp_path / "wrong").paths().values():
        assert judge([command, *HEAVY[command](path)], capsys) == 2
