"""The command line: one subcommand a configuration dataclass, each run by the library behind it.

`mmdata.cli.arguments` and `help_pages` read the same dataclasses (names with dashes or
underscores), so there is one place where an option is said. Pipelines, numpy and ray load inside
the command that needs them: `mmdata --help` answers in about 0.1 s. `--config run.yaml` fills
options from a file; what stands on the command line wins.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import TextIOWrapper
from typing import Any

from flamingo.inference.export_options import Export
from flamingo.inference.options import Generate
from flamingo.models.registry import options_type
from flamingo.options.run import REFUSED, RunOptions
from flamingo.recipes.options import Recipes
from flamingo.report.options import TrainReport
from mmdata import __version__
from mmdata.cli.arguments import check_complete, is_option, meant, read_arguments
from mmdata.cli.config_file import read_changed, read_config, take_config
from mmdata.cli.help_pages import asks_for_help, commands_page, options_page
from mmdata.dependencies import refuse_base_versions, require
from mmdata.errors import EXIT_CANNOT_START, EXIT_INTERRUPTED, MMDataError, UserError
from mmdata.show.options import Show
from mmdata.wording import plural
from pipelines.align.options import Align
from pipelines.conversion.status_options import Status
from pipelines.custom.options import ConvertCustom
from pipelines.features.options import Features
from pipelines.fetch_images.options import FetchImages
from pipelines.laion.options import ConvertLaion
from pipelines.mmc4.options import ConvertMmc4
from pipelines.repair.options import Index, Repair
from pipelines.report.options import Report
from pipelines.validate.options import Validate


def _run_convert_mmc4(options: ConvertMmc4) -> int:
    if options.clip_model is not None:
        _need("clip", "convert-mmc4 --clip-model")
    from pipelines.mmc4.run import convert_mmc4

    return _converted(convert_mmc4(options))


def _run_convert_custom(options: ConvertCustom) -> int:
    if options.clip_model is not None:
        _need("clip", "convert-custom --clip-model")
    from pipelines.custom.run import convert_custom

    return _converted(convert_custom(options))


def _run_convert_laion(options: ConvertLaion) -> int:
    if options.clip_model is not None:
        _need("clip", "convert-laion --clip-model")
    from pipelines.laion.run import convert_laion

    return _converted(convert_laion(options))


def _run_fetch_images(options: FetchImages) -> int:
    from pipelines.fetch_images.print import print_fetched
    from pipelines.fetch_images.run import fetch_images

    result = fetch_images(options)
    print_fetched(result)
    return result.exit_code


def _run_align(options: Align) -> int:
    _need("clip", "align")
    from pipelines.align.run import align

    return _converted(align(options))


def _run_validate(options: Validate) -> int:
    if options.tokenizer is not None:
        _need("forecast", "validate --tokenizer")
    from mmdata.validation.render import render_rules
    from pipelines.validate.print import print_report
    from pipelines.validate.run import validate

    if options.rules:
        render_rules()
        return 0
    report = validate(options)
    print_report(report, options.format)
    return report.exit_code


def _run_repair(options: Repair) -> int:
    from pipelines.repair.run import repair

    return _converted(repair(options))


def _converted(result: Any) -> int:
    """Print what a run that writes shards came to; its exit code."""
    from pipelines.conversion.print import print_conversion

    print_conversion(result)
    return int(result.exit_code)


def _run_index(options: Index) -> int:
    from pipelines.repair.index import index
    from pipelines.repair.print import print_indexed

    result = index(options)
    print_indexed(result)
    return result.exit_code


def _run_report(options: Report) -> int:
    from pipelines.report.run import report

    result = report(options)
    print(
        f"{result.path}: {plural(result.documents, 'document')} in "
        f"{plural(result.shards, 'shard')}, "
        f"{result.shown:,} of them to look at ({result.bytes / 1e6:.1f} MB); open it in a browser"
    )
    if result.problems:
        print(f"{plural(result.problems, 'shard')} could not be read; the page names them")
    return result.exit_code


def _run_features(options: Features) -> int:
    _need("train", "features")
    from flamingo.inference.features import ShardEncoder
    from pipelines.features.run import write_features

    report = write_features(options, ShardEncoder)
    sys.stdout.write(report.text())
    return report.exit_code


def _run_status(options: Status) -> int:
    from pipelines.conversion.print_status import print_status
    from pipelines.conversion.status import status

    found = status(options)
    print_status(found)
    return found.exit_code


def _run_show(options: Show) -> int:
    from mmdata.show.text import show, show_json

    options = _with_key(options)
    if options.json:
        sys.stdout.write(show_json(options))
    elif options.preview or sys.stdout.isatty():
        from rich.console import Console

        from mmdata.show.terminal import show_in_terminal

        console = Console(force_terminal=options.preview or None, highlight=False)
        show_in_terminal(options, console, preview=options.preview is not False)
    else:
        sys.stdout.write(show(options) + "\n")
    return 0


def _with_key(options: Show) -> Show:
    """Take the key of a sample from behind the shards: what is no file, folder or pattern."""
    *shards, last = options.shards
    if options.key or not shards or os.path.exists(last) or any(c in last for c in "*?[{/."):
        return options
    return replace(options, shards=tuple(shards), key=last)


def _run_train(options: RunOptions) -> int:
    _need("train", "train")
    for extra, option, packages in options.extras():
        _need(extra, f"train {option}", packages)
    from flamingo.launch.entry import run_train

    return run_train(options)


def _run_train_report(options: TrainReport) -> int:
    _need("train", "train-report")
    from flamingo.report.page import train_report

    result = train_report(options)
    print(
        f"{result.path}: {plural(result.steps, 'step')} ({result.bytes / 1e6:.1f} MB); open "
        "it in a browser"
    )
    for problem in result.problems:
        print(f"not in the figures: {problem}")
    return result.exit_code


def _run_recipes(options: Recipes) -> int:
    _need("train", "recipes")
    from flamingo.recipes.command import run_recipes

    for text in run_recipes(options, read_changed):
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def _run_generate(options: Generate) -> int:
    _need("train", "generate")
    from flamingo.inference.generate import generate

    print(generate(options))
    return 0


def _run_export(options: Export) -> int:
    _need("train", "export")
    if options.merge_lora:
        _need("lora", "export --merge-lora")
    from flamingo.inference.export import export, summary

    sys.stdout.write(summary(export(options)))
    return 0


def _need(extra: str, command: str, packages: tuple[str, ...] | None = None) -> None:
    """Say what to do where what a command needs (of an extra, these) is not there, or fails."""
    require(extra, EXTRAS[extra] if packages is None else packages, f"mmdata {command}")


#: Modules that an optional extra brings.
EXTRAS = {
    "forecast": ("transformers",),
    "clip": ("torch", "torchvision", "open_clip"),
    "train": ("torch", "torchvision", "open_clip", "transformers"),
    "lora": ("peft",),
}

#: Every subcommand: its options, and what runs it.
COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "convert-mmc4": (ConvertMmc4, _run_convert_mmc4),
    "convert-custom": (ConvertCustom, _run_convert_custom),
    "convert-laion": (ConvertLaion, _run_convert_laion),
    "fetch-images": (FetchImages, _run_fetch_images),
    "align": (Align, _run_align),
    "validate": (Validate, _run_validate),
    "features": (Features, _run_features),
    "repair": (Repair, _run_repair),
    "index": (Index, _run_index),
    "report": (Report, _run_report),
    "status": (Status, _run_status),
    "show": (Show, _run_show),
    "train": (options_type(), _run_train),
    "train-report": (TrainReport, _run_train_report),
    "recipes": (Recipes, _run_recipes),
    "generate": (Generate, _run_generate),
    "export": (Export, _run_export),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    0 done, 1 findings or failed units, 2 could not start, 3 interrupted, 85 saved on a signal and
    to be queued again.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _print_in_any_encoding()
    if arguments == ["--version"]:
        print(f"mmdata {__version__}")
        return 0
    try:
        return _dispatch(arguments)
    except MMDataError as error:
        if str(error):  # else another rank says it
            print(f"mmdata: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mmdata: interrupted; run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            return _reader_has_gone()
        place = f"{error.filename}: " if error.filename else ""
        print(f"mmdata: {place}{error.strerror or error}", file=sys.stderr)
        return EXIT_CANNOT_START


def _print_in_any_encoding() -> None:
    """Let what the output's encoding lacks, or a name that is no text, be printed as an escape.

    Captions of the web in an ASCII or Latin-1 terminal must not end a command with a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # Under the locale C it is surrogateescape, which lets no other character through either.
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _reader_has_gone() -> int:
    """`mmdata show … | head`: keep Python from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_CANNOT_START


def _dispatch(arguments: list[str]) -> int:
    config, arguments = take_config(arguments)
    command = arguments[0].replace("_", "-") if arguments else ""
    if command not in COMMANDS:
        return _show_commands(arguments, config)
    if command == "train":
        _refuse_foreign(arguments)
    kind, run = COMMANDS[command]
    values = read_config(config, kind)
    if asks_for_help(arguments[1:]):
        sys.stdout.write(options_page(command, kind, values))
        return 0
    values |= read_arguments(command, kind, arguments[1:])
    check_complete(command, kind, values)
    refuse_base_versions(f"mmdata {command}")
    return run(kind(**values))


def _show_commands(arguments: Sequence[str], config: str | None) -> int:
    """All commands, for who names none; a word that is none of them is refused."""
    if config:
        raise UserError("--config goes with a command: mmdata COMMAND --config run.yaml")
    if arguments and not asks_for_help(arguments[:1]):
        otherwise = "`mmdata --help` lists them"
        what = "option" if is_option(arguments[0]) else "command"
        raise UserError(f"no {what} {arguments[0]!r}; {meant(arguments[0], COMMANDS, otherwise)}")
    sys.stdout.write(commands_page({name: kind for name, (kind, _) in COMMANDS.items()}))
    return 0


def _refuse_foreign(arguments: list[str]) -> None:
    """OpenFlamingo's flags that are not taken get an answer instead of a usage text."""
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--").replace("-", "_")
        if argument.startswith("--") and name in REFUSED:
            raise UserError(f"{argument.partition('=')[0]}: {REFUSED[name]}")
