"""The face: subcommands, a configuration file, errors as one line, exit codes."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmdata import __version__
from mmdata.cli import main as cli
from mmdata.cli.main import main
from mmdata.installation import how_to_install
from mmdata.show.options import Show
from pipelines.mmc4.options import ConvertMmc4
from tests.shard_factory import make_document, make_shard_of


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


def test_lists_are_given_behind_one_option_or_several(options: list[Any]) -> None:
    command = ["convert-custom", "a.json", "--output", "o"]
    assert main([*command, "--placeholder", "<a>", "<b>"]) == 0
    assert main([*command, "--placeholder", "<a>", "--placeholder=<b>"]) == 0
    assert main(["validate", "--select", "TAR", "a.tar", "--select", "IMG"]) == 0
    assert options[0].placeholder == options[1].placeholder == ("<a>", "<b>")
    assert (options[2].select, options[2].shards) == (("TAR", "IMG"), ("a.tar",))


def test_a_flag_of_the_file_is_turned_off_on_the_command_line(
    options: list[Any], tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("shards: [a]\noutput: o\ndry-run: true\n")
    assert main(["repair", "--config", str(file)]) == 0
    assert main(["repair", "--config", str(file), "--no-dry-run"]) == 0
    assert main(["repair", "a", "--output", "o", "--no_dry_run"]) == 0
    assert [given.dry_run for given in options] == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--config is given twice, {file} and {file}: give one file"),
        (["--config=b"], "--config is given twice, {file} and b: give one file"),
    ],
)
def test_a_second_file_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\n")
    again = arguments or ["--config", str(file)]
    assert main(["validate", "x", "--config", str(file), *again]) == 2
    assert capsys.readouterr().err == f"mmdata: {said.format(file=file)}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["valdate"], "no command 'valdate'; did you mean validate?"),
        (["--wrong"], "no option '--wrong'; `mmdata --help` lists them"),
        (["show"], "show: expected SHARDS; `mmdata show --help` explains them"),
        (["status", "a", "b"], "status: expected one OUTPUT, got a and b"),
        (["train", "x"], "train: 'x' belongs to no option; all of them have names"),
        (["repair", "a", "--overwrite", "--no-overwrite", "--output", "o"],
         "--overwrite and --no-overwrite: choose one, they contradict"),
        (["validate", "a", "--config"], "--config: expected a file behind it"),
        (["--config", "x"], "--config goes with a command: mmdata COMMAND --config run.yaml"),
    ],
)  # fmt: skip
def test_what_the_command_line_cannot_mean_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"mmdata: {said}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minside: 3", "no option 'minside'; did you mean min-side?"),
        ("colour: 3", "no option 'colour'; there are allow-symlinks-to, clip-actors"),
        ("section: 3", "no option 'section'; "),
        ("min-side: x", "min-side: Expected int, got str"),
        ("- a", "expected 'option: value' lines"),
        ("seed: [", "not YAML: "),
        ("min-side: 3\nverify: full\nmin-side: 4", "line 3: min-side is given twice: give it once"),
        ("min-side: 3\nmin_side: 4", "min_side is given twice: give it once"),
        ("max-aspect: .inf", "max-aspect inf: expected a finite number"),
        ("clip-model: ''", "clip-model: expected a value, got an empty text"),
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
        "import sys; sys.modules['open_clip'] = None; from mmdata.cli.main import main; "
        "sys.exit(main(['train', '--lm-path', 'x', '--run-name', 'r', '--mmc4-shards', 's']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"mmdata: mmdata train needs open_clip, which is not installed: {how_to_install('train')}\n"
    )


def test_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmdata {__version__}\n"


def test_says_nothing_when_its_reader_has_gone(tmp_path: Path) -> None:
    code = "from mmdata.cli.main import main; import sys; sys.exit(main(['--help']))"
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


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_no_encoding_of_the_output_ends_a_command(
    encoding: str, errors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "\u00dc\u5348"
    folder.mkdir()
    texts = ["K\u00f6ln", "\u5348\u5f8c", "b"]
    make_shard_of(folder, make_document() | {"text_list": texts})
    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding, errors))
    assert main(["show", str(folder)]) == 0
    assert main(["validate", str(folder), "--workers", "0"]) in (0, 1)
    sys.stdout.flush()
    assert b"000000000000" in sink.getvalue()
