"""`mmdata train`: from options to a trained model, in the order that finds mistakes earliest.

Tokenizer and streams come first (a stream that yields nothing stops the run in seconds), then the
model, whose parts are checked against each other before their weights load.
"""

import dataclasses
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from flamingo.data.cache import ShardCache
from flamingo.data.mix import mix_shares, mix_slots, whole_share
from flamingo.data.order import Position
from flamingo.data.preview import write_preview
from flamingo.data.stream import Stream
from flamingo.model.factory import create_model_and_transforms
from flamingo.model.flamingo import Flamingo
from flamingo.train.checkpoint import (
    RunState,
    find_checkpoint,
    read_state,
    restore_optimizer,
    save_checkpoint,
)
from flamingo.train.config import Train
from flamingo.train.device import (
    choose_device,
    configured_image_size,
    pixels_of,
    quiet_loading,
    tower_name,
)
from flamingo.train.features import expect_features
from flamingo.train.loop import StreamFeed, Trainer
from flamingo.train.optim import make_optimizer
from flamingo.train.schedule import run_steps
from flamingo.train.streams import mix_of, sequence_of, training_streams, validation_streams
from flamingo.train.telemetry import StepReport, Telemetry, plot_losses
from flamingo.train.validate import Validation
from mmdata.errors import UserError
from mmdata.storage.atomic import write_atomically
from mmdata.usage.tokenizer import load_tokenizer
from mmdata.usage.tokens import MediaTokenizer

OPTIONS_NAME = "options.json"
PREVIEW_NAME = "preview.html"
_PREVIEW_BATCHES = 2
#: In the record of a sequence of samples: what --allow-new-batch-size may change.
_STEP_SAMPLES, _LANES = "samples of a step", "lanes"


@dataclass(slots=True)
class TrainResult:
    """What a run came to.

    Attributes:
        folder: of the run.
        steps: optimizer steps done in all.
        first: mean loss of each stream over this run's first steps (at most 5).
        last: over its last.
        checkpoint: the last one written.
        plot: the loss plot.
        preview: the page of a dry run.
        drops: what selection left out in this run, by reason.
        skipped_steps: not finite, in all.
        validation: the last loss measured on each validation stream.
        resumed_from: step that the run went on from; 0 for a fresh one.
    """

    folder: str
    steps: int = 0
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    plot: str | None = None
    preview: str | None = None
    drops: dict[str, int] = field(default_factory=dict)
    skipped_steps: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    resumed_from: int = 0


def train(options: Train) -> TrainResult:
    """Train as the options say; a run that is there already goes on from its last checkpoint.

    Raises:
        UserError: something does not fit; in one line.
        NotFiniteError: the loss is not finite any more.
    """
    quiet_loading()
    folder = options.run_name
    tokenizer = load_tokenizer(
        options.tokenizer_path or options.lm_path,
        local_files_only=options.offline,
        trust_remote_code=options.trust_remote_code,
    )
    tower = tower_name(options.vision_encoder_path)
    media_tokenizer = MediaTokenizer(tokenizer)
    with ExitStack() as stack:
        cache = _cache(options)
        if cache is not None:
            stack.enter_context(cache)
        size = configured_image_size(tower)
        streams = make_streams(options, media_tokenizer, size, cache)
        validation = make_validation(options, media_tokenizer, size, cache)
        os.makedirs(folder, exist_ok=True)
        if options.dry_run:
            return _dry_run(options, streams, media_tokenizer)
        return _train(options, tower, streams, validation)


def _train(
    options: Train, tower: str, streams: list[Stream], validation: list[Stream]
) -> TrainResult:
    folder = options.run_name
    batch = {stream.config.name: stream.share.batch_size for stream in streams}
    total_steps = run_steps(options, batch)
    checkpoint = options.resume_from_checkpoint or find_checkpoint(folder)
    sequence = _sequence(options, streams, batch)
    before, goes_on = _state_to_resume(options, checkpoint, sequence)
    result = TrainResult(folder, resumed_from=before.step, steps=before.step)
    if before.step >= total_steps:
        return result
    resumed = _folder_of(checkpoint) if checkpoint is not None and before.step else None
    # A checkpoint to go on from is also what the parts are checked against before they load.
    weights = resumed or _first_weights(options.init_from)
    has_features = expect_features([*streams, *validation], tower, options)
    model, image_processor, tokenizer = _model(options, tower, weights, without_tower=has_features)
    starts = _starts(streams, before, goes_on=goes_on)
    trainer = _trainer(options, model, image_processor, streams, starts, before.step, total_steps)
    if resumed is not None:
        restore_optimizer(resumed, trainer.optimizer)
        trainer.skipped_steps = before.skipped_steps
    measured = Validation(folder, validation, every=options.val_every, done=before.step)
    _run(options, trainer, tokenizer, sequence, measured, result)
    return result


def make_streams(
    options: Train,
    tokenizer: MediaTokenizer,
    image_size: int,
    cache: ShardCache | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> list[Stream]:
    """The streams that the options name, each with this rank's part of the global batch."""
    wanted = training_streams(options, image_size=image_size)
    micro = {one.name: one.config.batch_size for one in wanted}
    shares = {
        one.name: whole_share(
            one.config.batch_size * options.gradient_accumulation_steps * world,
            num_lanes=one.config.lanes,
            rank=rank,
            world=world,
        )
        for one in wanted
    }
    mix = mix_of(options)
    if mix is not None:
        accumulation = options.gradient_accumulation_steps
        total = (options.batch_size or sum(micro.values())) * accumulation * world
        shares = mix_shares(mix_slots(mix, total), rank=rank, world=world)
        micro = {name: -(-len(one.lanes) // accumulation) or 1 for name, one in shares.items()}
    return [
        Stream(
            dataclasses.replace(
                one.config,
                batch_size=micro[one.name],
                global_batch_size=shares[one.name].batch_size,
            ),
            tokenizer,
            seed=options.seed,
            share=shares[one.name],
            cache=cache,
        )
        for one in wanted
    ]


def make_validation(
    options: Train,
    tokenizer: MediaTokenizer,
    image_size: int,
    cache: ShardCache | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> list[Stream]:
    """The streams that the loss is measured on."""
    return [
        Stream(
            one.config,
            tokenizer,
            seed=options.seed,
            validation=True,
            rank=rank,
            world=world,
            cache=cache,
        )
        for one in validation_streams(options, image_size=image_size)
    ]


def _cache(options: Train) -> ShardCache | None:
    if options.cache_dir is None:
        return None
    return ShardCache(options.cache_dir, int(options.cache_gb * 1e9))


def _dry_run(options: Train, streams: list[Stream], tokenizer: MediaTokenizer) -> TrainResult:
    path = os.path.join(options.run_name, PREVIEW_NAME)
    batches = []
    for stream in streams:
        source = stream.batches()
        batches += [next(source) for _ in range(_PREVIEW_BATCHES)]
    write_preview(batches, tokenizer, path)
    return TrainResult(options.run_name, preview=path)


def _model(
    options: Train, tower: str, weights: str | None, *, without_tower: bool
) -> tuple[Flamingo, Any, Any]:
    return create_model_and_transforms(
        tower,
        None if tower.startswith("local-dir:") else options.vision_encoder_pretrained,
        options.lm_path,
        options.tokenizer_path or options.lm_path,
        cross_attn_every_n_layers=options.cross_attn_every_n_layers,
        freeze_lm_embeddings=options.freeze_lm_embeddings,
        vision_tokens=options.vision_tokens,
        vision_chunk=options.vision_chunk,
        new_token_init=options.new_token_init,
        train_output_rows=options.train_output_rows,
        seed=options.seed,
        init_from=weights,
        offline=options.offline,
        trust_remote_code=options.trust_remote_code,
        gradient_checkpointing=options.gradient_checkpointing,
        without_tower=without_tower,
    )


def _first_weights(path: str | None) -> str | None:
    """What --init-from names: a file, a checkpoint, or a run, which stands for its latest."""
    return path if path is None else find_checkpoint(path) or path


def _trainer(
    options: Train,
    model: Flamingo,
    image_processor: Any,
    streams: list[Stream],
    starts: dict[str, Position],
    done: int,
    total_steps: int,
) -> Trainer:
    device = choose_device(options.device)
    model.to(device)
    if options.pack:
        model.allow_packing()
    model.train()
    multipliers = {one.name: one.loss_multiplier for one in training_streams(options)}
    feeds = [
        StreamFeed(name, stream.steps(starts[name]), multipliers[name], starts[name])
        for name, stream in ((stream.config.name, stream) for stream in streams)
    ]
    return Trainer(
        model=model,
        optimizer=make_optimizer(model, options),
        feeds=feeds,
        options=options,
        pixels=pixels_of(image_processor),
        device=device,
        total_steps=total_steps,
        done=done,
    )


def _run(
    options: Train,
    trainer: Trainer,
    tokenizer: Any,
    sequence: dict[str, Any],
    validation: Validation,
    result: TrainResult,
) -> None:
    """All steps that are left, with log and checkpoints."""
    folder = options.run_name
    record = dataclasses.asdict(options)
    write_atomically(
        os.path.join(folder, OPTIONS_NAME), json.dumps(record, indent=1).encode() + b"\n"
    )
    telemetry = Telemetry(
        folder,
        total_steps=trainer.total_steps,
        done=trainer.done,
        logging_steps=options.logging_steps,
    )
    reports: list[StepReport] = []
    keep = 1 if options.delete_previous_checkpoint else options.keep_checkpoints
    try:
        _measure(validation, trainer, telemetry, result)
        while trainer.done < trainer.total_steps:
            report = trainer.step()
            telemetry.report(report)
            reports.append(report)
            last = trainer.done == trainer.total_steps
            _measure(validation, trainer, telemetry, result)
            if last or (options.save_steps and trainer.done % options.save_steps == 0):
                state = RunState(
                    step=trainer.done,
                    positions={feed.name: feed.position.record() for feed in trainer.feeds},
                    skipped_steps=trainer.skipped_steps,
                    options=record,
                    sequence=sequence,
                )
                result.checkpoint = save_checkpoint(
                    folder, trainer.model, tokenizer, trainer.optimizer, state, keep=keep
                )
    finally:
        telemetry.close()
        for feed in trainer.feeds:
            feed.steps.close()
    result.steps, result.skipped_steps = trainer.done, trainer.skipped_steps
    result.drops = dict(sorted(telemetry.drops.items()))
    result.first, result.last = _mean_losses(reports[:5]), _mean_losses(reports[-5:])
    result.plot = plot_losses(folder)


def _measure(
    validation: Validation, trainer: Trainer, telemetry: Telemetry, result: TrainResult
) -> None:
    """The loss on the validation streams, where it is due."""
    if not validation.is_due(trainer.done, is_last=trainer.done == trainer.total_steps):
        return
    result.validation = validation.measure(trainer)
    losses = "  ".join(f"{name} {loss:.4f}" for name, loss in result.validation.items())
    telemetry.say(f"step {trainer.done:>6}  validation loss {losses}")


def _mean_losses(reports: list[StepReport]) -> dict[str, float]:
    used = [report for report in reports if not report.skipped]
    names = used[0].losses if used else {}
    return {name: sum(report.losses[name] for report in used) / len(used) for name in names}


def _folder_of(checkpoint: str) -> str:
    found = find_checkpoint(checkpoint)
    if found is None:
        raise UserError(f"--resume-from-checkpoint {checkpoint}: holds no checkpoint of ours")
    return found


def _sequence(options: Train, streams: list[Stream], batch: dict[str, int]) -> dict[str, Any]:
    """What decides which samples come in which order; it stays the same over a run's resumes."""
    chosen: dict[str, Any] = {}
    for one in training_streams(options):
        chosen |= sequence_of(one)
    for stream in streams:
        chosen[f"{stream.config.name}: {_STEP_SAMPLES}"] = batch[stream.config.name]
        chosen[f"{stream.config.name}: {_LANES}"] = stream.share.num_lanes
        chosen[f"{stream.config.name}: rule"] = stream.rule
        chosen[f"{stream.config.name}: shards, seed and window"] = stream.identity
    return chosen


def _state_to_resume(
    options: Train, checkpoint: str | None, sequence: dict[str, Any]
) -> tuple[RunState, bool]:
    """Where to go on, and whether in the same sequence; a fresh state without a checkpoint.

    Raises:
        UserError: the options would give another sequence of samples.
    """
    if checkpoint is None:
        return RunState(), True
    state = read_state(_folder_of(checkpoint))
    names = [
        name
        for name in sorted(state.sequence.keys() | sequence.keys())
        if state.sequence.get(name) != sequence.get(name)
    ]
    is_batch = bool(names) and all(name.endswith((_STEP_SAMPLES, _LANES)) for name in names)
    if names and not (is_batch and options.allow_new_batch_size):
        changed = [f"{n}: was {state.sequence.get(n)}, is {sequence.get(n)}" for n in names]
        advice = "use the same options"
        if is_batch:
            advice += ", start a new sequence of samples with --allow-new-batch-size"
        raise UserError(
            f"{checkpoint}: was trained on another sequence of samples ({'; '.join(changed)}); "
            f"{advice}, or another --run-name with --init-from for its weights alone"
        )
    return state, not names


def _starts(streams: list[Stream], before: RunState, *, goes_on: bool) -> dict[str, Position]:
    """Where each stream starts; in a new sequence, behind the epochs that were begun."""
    starts = {}
    for stream in streams:
        saved = Position.of_record(before.positions.get(stream.config.name, []))
        starts[stream.config.name] = saved if goes_on else stream.after(saved)
    return starts


def summary(result: TrainResult) -> str:
    """What a person reads at the end of a run."""
    if result.preview:
        return f"wrote {result.preview}: open it to see pictures beside their tags\n"
    if not result.first:
        return f"{result.folder}: the run is complete ({result.steps} steps); nothing to do\n"
    lines = []
    if result.resumed_from:
        lines.append(f"went on from step {result.resumed_from}")
    for name, first in result.first.items():
        lines.append(f"{name}: loss {first:.4f} at the start, {result.last[name]:.4f} at the end")
    for name, loss in result.validation.items():
        lines.append(f"{name}: validation loss {loss:.4f}")
    left_out = ", ".join(f"{reason} {count}" for reason, count in result.drops.items())
    lines.append(f"left out by selection: {left_out or 'nothing'}")
    if result.skipped_steps:
        lines.append(f"{result.skipped_steps} steps were not finite and were skipped")
    lines += [f"checkpoint: {result.checkpoint}", f"plot:       {result.plot}"]
    return "\n".join(lines) + "\n"
