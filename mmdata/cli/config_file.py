"""`--config run.yaml`: options of a command from a file, checked against their types."""

from collections.abc import Iterable, Sequence
from typing import Any, get_type_hints

from flamingo.models.registry import options_type
from flamingo.options.run import RunOptions
from flamingo.options.streams import from_mapping
from mmdata.cli.arguments import check_value, is_option, meant, options_of
from mmdata.errors import UserError


def take_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take `--config FILE` out of the arguments.

    Raises:
        UserError: no file stands behind it, or it is given twice.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found: list[str] = []
    rest: list[str] = []
    place = 0
    while place < end:
        word, equals, path = arguments[place].partition("=")
        place += 1
        if word != "--config":
            rest.append(arguments[place - 1])
            continue
        if not equals and place < end and not is_option(arguments[place]):
            path = arguments[place]
            place += 1
        if not path:
            raise UserError("--config: expected a file behind it")
        found.append(path)
    if len(found) > 1:
        raise UserError(f"--config is given twice, {' and '.join(found)}: give one file")
    return (found[0] if found else None), rest + arguments[end:]


def _meant(key: str, options: Iterable[str]) -> str:
    """The nearest option, or all where none is near."""
    names = sorted(name.replace("_", "-") for name in options)
    return meant(key.replace("_", "-"), names, f"there are {', '.join(names)}")


def read_config(path: str | None, options: type) -> dict[str, Any]:
    """The options that a YAML file gives, checked against their types.

    Raises:
        UserError: no such file, not YAML, an unknown option, or a value of another type.
    """
    if path is None:
        return {}
    hints = get_type_hints(options)
    known = {option.field: option for option in options_of(options)}
    found: dict[str, Any] = {}
    for name, value in _read_yaml(path).items():
        key = str(name).replace("-", "_")
        if key in found:
            raise UserError(f"--config {path}: {name} is given twice: give it once")
        if key == "streams" and issubclass(options, RunOptions):
            found.update({flag: tuple(texts) for flag, texts in from_mapping(path, value).items()})
            continue
        if key not in known:
            raise UserError(f"--config {path}: no option {name!r}; {_meant(key, known)}")
        told = f"--config {path}: {name}"
        found[key] = _converted(value, hints[key], told, strict=True)
        check_value(found[key], known[key], told)
    return found


def _read_yaml(path: str) -> dict[Any, Any]:
    """The lines of a file, of which no two say the same option."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        _refuse_repeated(path, yaml.compose(text, Loader=yaml.SafeLoader))
        values = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: expected 'option: value' lines")
    return values


def _refuse_repeated(path: str, node: Any) -> None:
    """YAML itself takes the last of keys that are equal."""
    if isinstance(node.value if node else None, str | None):
        return
    keys: set[str] = set()
    for part in node.value:
        key, value = part if isinstance(part, tuple) else (None, part)
        if key is not None and key.value in keys:
            line = key.start_mark.line + 1
            raise UserError(
                f"--config {path}: line {line}: {key.value} is given twice: give it once"
            )
        if key is not None and isinstance(key.value, str):
            keys.add(key.value)
        _refuse_repeated(path, value)


def _converted(value: Any, hint: Any, told: str, *, strict: bool) -> Any:
    """A value of a type, or why it is none."""
    import msgspec

    try:
        return msgspec.convert(value, hint, strict=strict)
    except msgspec.ValidationError as error:
        raise UserError(f"{told}: {str(error).replace('`', '')}") from error


def read_changed(path: str, changes: Sequence[str]) -> dict[str, Any]:
    """The options of `mmdata train` that a YAML file gives, some of them changed.

    Args:
        path: of the file.
        changes: `option=value`, with values as on the command line.

    Raises:
        UserError: as `read_config`, or a changed option is unknown or of another type.
    """
    options = options_type()
    found = read_config(path, options)
    hints = get_type_hints(options)
    known = {option.field: option for option in options_of(options)}
    changed: set[str] = set()
    for change in changes:
        name, _, text = change.partition("=")
        key = name.replace("-", "_")
        if key not in known:
            raise UserError(f"--set {change}: no option {name}; {_meant(key, known)}")
        if key in changed:
            raise UserError(f"--set {change}: {name} is given twice: give it once")
        changed.add(key)
        found[key] = _converted(text, hints[key], f"--set {change}", strict=False)
        check_value(found[key], known[key], f"--set {change}")
    return found
