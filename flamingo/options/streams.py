"""The streams of a run: any number, by name, from flags or from a file's `streams:`.

`--mmc4-shards` and `--laion-shards` are two such with flags of their own; `--stream name=SPEC` adds
others, `--stream-opt name.key=value` changes any of them. What is not said for one comes from the
flags that are for all. Standard library only, as everything that the command line asks early.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from flamingo.data.config import StreamConfig
from flamingo.options.sections import TrainSections
from mmdata.errors import UserError

_Rule = Literal["interleaved", "caption"]
#: Streams with flags of their own, by name, and what stands there where no shard says otherwise.
_FLAGGED: dict[str, _Rule] = {"mmc4": "interleaved", "laion": "caption"}
#: Of a stream in the trainer, beside what the data side takes.
_OWN = {"loss_multiplier": float, "train_num_samples": int}
#: Set by the run and not by a stream's options.
_NOT_OPTIONS = frozenset(("name", "shards", "global_batch_size", "image_size", "decode_threads"))
_OPTIONS: dict[str, Any] = {
    name: hint for name, hint in get_type_hints(StreamConfig).items() if name not in _NOT_OPTIONS
} | _OWN
#: In `streams:` of a file: what the stream reads.
_SHARDS_KEY = "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStream:
    """A stream of a run.

    Attributes:
        config: what is read and how.
        loss_multiplier: weight of its loss.
        train_num_samples: of what counts as an epoch; None: not said.
        likely_rule: by which it is read where neither its options nor shards say it.
    """

    config: StreamConfig
    loss_multiplier: float = 1.0
    train_num_samples: int | None = None
    likely_rule: _Rule = "interleaved"

    @property
    def name(self) -> str:
        return self.config.name


def training_streams(options: TrainSections, *, image_size: int = 224) -> list[TrainStream]:
    """The streams to train on: interleaved and captions by their flags first, then as named.

    Raises:
        UserError: a name is given twice over, or an option is unknown or of another type.
    """
    specs = _named("--stream", options.stream)
    for name in _FLAGGED:
        shards = getattr(options, f"{name}_shards")
        if shards is not None and name in specs:
            raise UserError(f"--stream {name}=…: --{name}-shards names the same stream; give one")
    flagged: dict[str, tuple[str, ...]] = {
        name: (getattr(options, f"{name}_shards"),)
        for name in _FLAGGED
        if getattr(options, f"{name}_shards") is not None
    }
    if options.estimate and not flagged and not specs:  # shards may be still to come
        flagged = dict.fromkeys(_FLAGGED, ("",))
    return _streams(options, flagged | specs, image_size)


def validation_streams(options: TrainSections, *, image_size: int = 224) -> list[TrainStream]:
    """The streams to measure the loss on."""
    specs = _named("--val-stream", options.val_stream)
    return _streams(options, specs, image_size, {"random_flip": False})


def check_streams(options: TrainSections) -> None:
    """Find what is wrong with the streams before anything is opened.

    Raises:
        UserError: an option of a stream makes no sense; or the mixture, an option or --keep-best
            is of a stream that is not there.
    """
    names = [stream.name for stream in training_streams(options)]
    measured = [stream.name for stream in validation_streams(options)]
    known = [*names, *measured]
    if not names:
        raise UserError(
            "nothing to train on: give --mmc4-shards, --laion-shards or --stream name=SHARDS"
        )
    for text in options.stream_opt:
        name = text.partition("=")[0].partition(".")[0]
        if name not in known:
            raise UserError(f"--stream-opt {text}: no stream {name!r}; there are {_list(known)}")
    shares = mix_of(options)
    if shares is not None and set(shares) != set(names):
        raise UserError(f"--mix {options.mix}: expected a share for each of {_list(names)}")
    if options.keep_best is not None and options.keep_best not in measured:
        told = _list(measured) or "none is given"
        raise UserError(f"--keep-best {options.keep_best}: expected a --val-stream: {told}")


def mix_of(options: TrainSections) -> dict[str, float] | None:
    """The shares of --mix; None without it.

    Raises:
        UserError: not `name=share,name=share`.
    """
    if options.mix is None:
        return None
    shares = {}
    for part in options.mix.split(","):
        name, equals, value = part.strip().partition("=")
        if name in shares:
            raise UserError(f"--mix {options.mix}: {name} is given twice: give it once")
        try:
            shares[name] = float(value)
        except ValueError as error:
            raise UserError(f"--mix {options.mix}: expected name=share,name=share") from error
        if not equals or not name:
            raise UserError(f"--mix {options.mix}: expected name=share,name=share")
    return shares


def from_mapping(path: str, streams: object) -> dict[str, list[str]]:
    """`streams:` of a file as what the flags say: {"stream": […], "stream_opt": […]}.

    Raises:
        UserError: not name: {shards: …, option: value}.
    """
    if not isinstance(streams, Mapping):
        raise UserError(f"--config {path}: streams: expected 'name: {{shards: …}}'")
    stream, stream_opt = [], []
    for name, given in streams.items():
        described = {_SHARDS_KEY: given} if isinstance(given, str | list) else given
        if not isinstance(described, Mapping) or _SHARDS_KEY not in described:
            raise UserError(f"--config {path}: streams: {name}: expected its shards")
        for key, value in described.items():
            if key == _SHARDS_KEY:
                specs = [value] if isinstance(value, str) else value
                stream += [f"{name}={spec}" for spec in specs]
            else:
                text = str(value).lower() if isinstance(value, bool) else value
                stream_opt.append(f"{name}.{str(key).replace('-', '_')}={text}")
    return {"stream": stream, "stream_opt": stream_opt}


def _named(flag: str, given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Specifications by name; a name that comes again adds shards."""
    specs: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, equals, spec = text.partition("=")
        if not equals or not spec or not name.replace("_", "").replace("-", "").isalnum():
            raise UserError(f"{flag} {text}: expected name=SHARDS")
        specs[name] = (*specs.get(name, ()), spec)
    return specs


def _streams(
    options: TrainSections,
    specs: Mapping[str, tuple[str, ...]],
    image_size: int,
    fixed: Mapping[str, Any] = MappingProxyType({}),
) -> list[TrainStream]:
    changes = _changes(options.stream_opt)
    streams = []
    for name, shards in specs.items():
        given = _defaults(options, name) | dict(fixed) | changes.get(name, {})
        own = {key: given.pop(key) for key in _OWN if key in given}
        config = StreamConfig(
            name=name,
            shards=shards,
            image_size=image_size,
            decode_threads=1 if options.workers is None else options.workers,
            **given,
        )
        likely = _FLAGGED.get(name, "interleaved")
        streams.append(TrainStream(config=config, likely_rule=likely, **own))
    return streams


def _defaults(options: TrainSections, name: str) -> dict[str, Any]:
    """What the flags say of a stream."""
    given: dict[str, Any] = {
        "shuffle_shards": options.shuffle_shards,
        "resampled": options.dataset_resampled,
        "max_bad_fraction": options.max_bad_fraction,
        "min_similarity": options.mmc4_textsim_threshold,
        "min_image_bytes": options.mmc4_min_image_bytes,
        "max_images": options.mmc4_max_num_images,
        "min_images": options.mmc4_min_num_images,
        "keep_single_image": options.keep_single_image,
        "surplus": options.surplus,
        "long_documents": options.long_documents,
        "pack_tokens": options.pack_tokens if options.pack else None,
        "random_flip": options.random_flip,
        "exact_preprocess": options.exact_preprocess,
    }
    if name in _FLAGGED:
        given |= {
            "rule": getattr(options, f"{name}_rule"),
            "batch_size": getattr(options, f"batch_size_{name}"),
            "max_tokens": getattr(options, f"{name}_max_tokens"),
            "features": getattr(options, f"{name}_features"),
            "loss_multiplier": getattr(options, f"loss_multiplier_{name}"),
            "train_num_samples": getattr(options, f"train_num_samples_{name}"),
        }
    return given


def _changes(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """--stream-opt by stream and option, of the right types."""
    changes: dict[str, dict[str, Any]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        name, dot, key = place.partition(".")
        key = key.replace("-", "_")
        if not equals or not dot:
            raise UserError(f"--stream-opt {text}: expected name.key=value")
        if key not in _OPTIONS:
            near = get_close_matches(key, _OPTIONS, n=1)
            told = f"did you mean {near[0]}?" if near else f"there are {_list(_OPTIONS)}"
            raise UserError(f"--stream-opt {text}: no option {key}; {told}")
        if key in changes.setdefault(name, {}):
            raise UserError(f"--stream-opt {text}: {name}.{key} is given twice: give it once")
        changes[name][key] = _value(text, value, _OPTIONS[key])
    return changes


def _value(text: str, value: str, hint: Any) -> Any:
    """A value of a type: int, float, bool, or one of some words; or None where it may be."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UserError(f"--stream-opt {text}: expected one of {_list(get_args(hint))}")
        return value
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    if bool in kinds:
        if value.lower() not in ("true", "false"):
            raise UserError(f"--stream-opt {text}: expected true or false")
        return value.lower() == "true"
    try:
        return kinds[0](value)
    except ValueError as error:
        kind = "a whole number" if kinds[0] is int else "a number"
        raise UserError(f"--stream-opt {text}: expected {kind}") from error


def _list(names: Any) -> str:
    return ", ".join(names)


def sequence_of(stream: TrainStream) -> dict[str, Any]:
    """What of a stream's options decides which samples come in which order."""
    order = ("rule", "batch_size", "global_batch_size", "lanes", "decode_threads", "shards")
    return {
        f"{stream.name}: {column.name}": getattr(stream.config, column.name)
        for column in fields(StreamConfig)
        if column.name not in (*order, "name", "image_size", "max_bad_fraction")
    }
