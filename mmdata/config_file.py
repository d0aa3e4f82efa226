"""`--config run.yaml`: options of a command from a file, checked against their types."""

from collections.abc import Iterable, Sequence
from typing import Any, get_type_hints

from flamingo.train.config import Train
from flamingo.train.streams import from_mapping
from mmdata.errors import UserError


def take_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take `--config FILE` out of the arguments."""
    for index, argument in enumerate(arguments):
        if argument == "--config":
            if index + 1 == len(arguments):
                raise UserError("--config: expected a file behind it")
            return arguments[index + 1], arguments[:index] + arguments[index + 2 :]
        if argument.startswith("--config="):
            return argument.partition("=")[2], arguments[:index] + arguments[index + 1 :]
    return None, arguments


def _meant(key: str, options: Iterable[str]) -> str:
    """The nearest option, or all where none is near."""
    from difflib import get_close_matches

    names = [name.replace("_", "-") for name in options]
    near = get_close_matches(key.replace("_", "-"), names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"


def read_config(path: str | None, options: type) -> dict[str, Any]:
    """The options that a YAML file gives, checked against their types.

    Raises:
        UserError: no such file, not YAML, an unknown option, or a value of another type.
    """
    if path is None:
        return {}
    import msgspec

    try:
        with open(path, "rb") as file:
            values = msgspec.yaml.decode(file.read())
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"--config {path}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: expected 'option: value' lines")
    hints = get_type_hints(options)
    found = {}
    for name, value in values.items():
        key = str(name).replace("-", "_")
        if key == "streams" and options is Train:
            found.update({flag: tuple(texts) for flag, texts in from_mapping(path, value).items()})
            continue
        if key not in hints:
            raise UserError(f"--config {path}: no option {name!r}{_meant(key, hints)}")
        try:
            found[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError as error:
            text = str(error).replace("`", "")
            raise UserError(f"--config {path}: {name}: {text}") from error
    return found


def read_changed(path: str, changes: Sequence[str]) -> dict[str, Any]:
    """The options of `mmdata train` that a YAML file gives, some of them changed.

    Args:
        path: of the file.
        changes: `option=value`, with values as on the command line.

    Raises:
        UserError: as `read_config`, or a changed option is unknown or of another type.
    """
    import msgspec

    found = read_config(path, Train)
    hints = get_type_hints(Train)
    for change in changes:
        name, _, text = change.partition("=")
        key = name.replace("-", "_")
        if key not in hints:
            raise UserError(f"--set {change}: no option {name}{_meant(key, hints)}")
        try:
            found[key] = msgspec.convert(text, hints[key], strict=False)
        except msgspec.ValidationError as error:
            raise UserError(f"--set {change}: {str(error).replace('`', '')}") from error
    return found
