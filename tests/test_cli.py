"""The face: subcommands, a configuration file, errors as one line, exit codes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmdata import __version__, cli
from mmdata.cli import main
from pipelines.config import ConvertMmc4, Show


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that the commands are run with, instead of running them."""
    seen: list[Any] = []

    def take(given: Any) -> int:
        seen.append(given)
        return 0

    for name, (kind, _) in list(cli.COMMANDS.items()):
        monkeypatch.setitem(cli.COMMANDS, name, (kind, take))
    return seen


def test_dashes_and_underscores_are_the_same(options: list[Any]) -> None:
    assert main(["convert-mmc4", "a", "b", "--images", "i", "--output", "o"]) == 0
    assert main(["convert_mmc4", "a", "b", "--images", "i", "--output", "o"]) == 0
    assert main(["convert-mmc4", "a", "--images=i", "--output=o", "--docs_per_shard", "7"]) == 0
    assert options[0] == options[1] == ConvertMmc4(docs=("a", "b"), images="i", output="o")
    assert options[2].docs_per_shard == 7


def test_a_file_fills_options_and_the_command_line_wins(options: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("docs: [a, b]\nimages: i\noutput: o\nmin-side: 32\nverify: full\n")
    assert main(["convert-mmc4", "--config", str(file), "--min-side", "64"]) == 0
    (given,) = options
    assert (given.docs, given.images, given.verify) == (("a", "b"), "i", "full")
    assert given.min_side == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minside: 3", "no option 'minside'; did you mean min-side?"),
        ("colour: 3", "no option 'colour'; there are output, docs-per-shard"),
        ("min-side: x", "min-side: Expected int, got str"),
        ("- a", "expected 'option: value' lines"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert main(["convert-mmc4", f"--config={file}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_last_word_that_is_no_file_is_the_key_to_show(options: list[Any], tmp_path: Path) -> None:
    assert main(["show", str(tmp_path), "000000000007"]) == 0
    assert main(["show", str(tmp_path), str(tmp_path / "x.tar")]) == 0
    shown = [cli._with_key(given) for given in options]
    assert shown[0] == Show(shards=(str(tmp_path),), key="000000000007")
    assert shown[1].key is None


def test_what_cannot_start_is_one_line_and_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert-mmc4", "x.jsonl", "--images", "/nowhere", "--output", "o"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mmdata: --images /nowhere: no such folder")
    assert error.count("\n") == 1


def test_a_command_whose_extra_is_missing_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['open_clip'] = None; from mmdata.cli import main; "
        "sys.exit(main(['train', '--lm-path', 'x', '--run-name', 'r', '--mmc4-shards', 's']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "mmdata: mmdata train needs open_clip, which is not installed: "
        "pip install 'mmdata[train]'\n"
    )


def test_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmdata {__version__}\n"


def test_says_nothing_when_its_reader_has_gone(tmp_path: Path) -> None:
    code = "from mmdata.cli import main; import sys; sys.exit(main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    error = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert b"Traceback" not in error
