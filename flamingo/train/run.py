"""`mmdata train`: from options to a trained model, in the order that finds mistakes earliest.

Tokenizer and streams come first (a stream that yields nothing stops the run in seconds), then the
model, whose parts are checked against each other before their weights load.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any

from flamingo.data.config import StreamConfig
from flamingo.data.order import Position
from flamingo.data.preview import write_preview
from flamingo.data.stream import Stream
from flamingo.data.tokens import MediaTokenizer
from flamingo.model.factory import create_model_and_transforms
from flamingo.model.flamingo import Flamingo
from flamingo.model.tokenizer import load_tokenizer
from flamingo.model.vision import tower_identity
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
from flamingo.train.loop import StreamFeed, Trainer
from flamingo.train.optim import make_optimizer
from flamingo.train.schedule import run_steps
from flamingo.train.telemetry import StepReport, Telemetry, plot_losses
from mmdata.errors import UserError
from mmdata.storage.atomic import write_atomically

OPTIONS_NAME = "options.json"
PREVIEW_NAME = "preview.html"
_PREVIEW_BATCHES = 2
#: Options that decide which samples come in which order: a resumed run keeps them.
_SEQUENCE = (
    "mmc4_textsim_threshold",
    "mmc4_max_num_images",
    "mmc4_min_num_images",
    "mmc4_min_image_bytes",
    "mmc4_max_tokens",
    "laion_max_tokens",
    "mmc4_rule",
    "laion_rule",
    "keep_single_image",
    "surplus",
    "long_documents",
    "pack",
    "pack_tokens",
    "random_flip",
    "exact_preprocess",
    "shuffle_shards",
)


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
    streams = make_streams(options, media_tokenizer, configured_image_size(tower))
    os.makedirs(folder, exist_ok=True)
    if options.dry_run:
        return _dry_run(options, streams, media_tokenizer)
    accumulation = options.gradient_accumulation_steps
    batch = {stream.config.name: stream.config.batch_size * accumulation for stream in streams}
    total_steps = run_steps(options, batch)
    checkpoint = options.resume_from_checkpoint or find_checkpoint(folder)
    sequence = _sequence(options, streams, batch)
    before = _state_to_resume(checkpoint, sequence)
    result = TrainResult(folder, resumed_from=before.step, steps=before.step)
    if before.step >= total_steps:
        return result
    resumed = _folder_of(checkpoint) if checkpoint is not None and before.step else None
    # A checkpoint to go on from is also what the parts are checked against before they load.
    weights = resumed or _first_weights(options.init_from)
    model, image_processor, tokenizer = _model(options, tower, weights)
    trainer = _trainer(options, model, image_processor, streams, before, total_steps)
    if resumed is not None:
        restore_optimizer(resumed, trainer.optimizer)
        trainer.skipped_steps = before.skipped_steps
    _run(options, trainer, tokenizer, sequence, result)
    return result


def make_streams(options: Train, tokenizer: MediaTokenizer, image_size: int) -> list[Stream]:
    """The streams that the options name, captions last."""
    streams = []
    for name in ("mmc4", "laion"):
        shards = getattr(options, f"{name}_shards")
        if shards is not None:
            streams.append(_stream(options, tokenizer, image_size, name, shards))
    return streams


def _stream(
    options: Train, tokenizer: MediaTokenizer, image_size: int, name: str, shards: str
) -> Stream:
    config = StreamConfig(
        name=name,
        shards=(shards,),
        rule=getattr(options, f"{name}_rule"),
        batch_size=getattr(options, f"batch_size_{name}"),
        max_tokens=getattr(options, f"{name}_max_tokens"),
        image_size=image_size,
        shuffle_shards=options.shuffle_shards,
        min_similarity=options.mmc4_textsim_threshold,
        min_image_bytes=options.mmc4_min_image_bytes,
        max_images=options.mmc4_max_num_images,
        min_images=options.mmc4_min_num_images,
        keep_single_image=options.keep_single_image,
        surplus=options.surplus,
        long_documents=options.long_documents,
        pack_tokens=options.pack_tokens if options.pack else None,
        random_flip=options.random_flip,
        exact_preprocess=options.exact_preprocess,
        features=getattr(options, f"{name}_features"),
        decode_threads=options.workers,
    )
    return Stream(config, tokenizer, seed=options.seed)


def _dry_run(options: Train, streams: list[Stream], tokenizer: MediaTokenizer) -> TrainResult:
    path = os.path.join(options.run_name, PREVIEW_NAME)
    batches = []
    for stream in streams:
        source = stream.batches()
        batches += [next(source) for _ in range(_PREVIEW_BATCHES)]
    write_preview(batches, tokenizer, path)
    return TrainResult(options.run_name, preview=path)


def _model(options: Train, tower: str, weights: str | None) -> tuple[Flamingo, Any, Any]:
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
    )


def _first_weights(path: str | None) -> str | None:
    """What --init-from names: a file, a checkpoint, or a run, which stands for its latest."""
    return path if path is None else find_checkpoint(path) or path


def _trainer(
    options: Train,
    model: Flamingo,
    image_processor: Any,
    streams: list[Stream],
    before: RunState,
    total_steps: int,
) -> Trainer:
    device = choose_device(options.device)
    model.to(device)
    if options.pack:
        model.allow_packing()
    model.train()
    pixels = pixels_of(image_processor)
    if any(stream.config.features for stream in streams):
        tower = tower_identity(model.vision_encoder, options.vision_tokens, pixels.mean, pixels.std)
        for stream in streams:
            stream.expect_tower(tower)
    feeds = []
    for stream in streams:
        start = Position(**before.positions.get(stream.config.name, {}))
        multiplier = getattr(options, f"loss_multiplier_{stream.config.name}")
        feeds.append(StreamFeed(stream.config.name, stream.batches(start), multiplier, start))
    return Trainer(
        model=model,
        optimizer=make_optimizer(model, options),
        feeds=feeds,
        options=options,
        pixels=pixels,
        device=device,
        total_steps=total_steps,
        done=before.step,
    )


def _run(
    options: Train,
    trainer: Trainer,
    tokenizer: Any,
    sequence: dict[str, Any],
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
        while trainer.done < trainer.total_steps:
            report = trainer.step()
            telemetry.report(report)
            reports.append(report)
            last = trainer.done == trainer.total_steps
            if last or (options.save_steps and trainer.done % options.save_steps == 0):
                state = RunState(
                    step=trainer.done,
                    positions={
                        feed.name: dataclasses.asdict(feed.position) for feed in trainer.feeds
                    },
                    skipped_steps=trainer.skipped_steps,
                    options=record,
                    sequence=sequence,
                )
                result.checkpoint = save_checkpoint(
                    folder, trainer.model, tokenizer, trainer.optimizer, state, keep=keep
                )
    finally:
        telemetry.close()
    result.steps, result.skipped_steps = trainer.done, trainer.skipped_steps
    result.drops = dict(sorted(telemetry.drops.items()))
    result.first, result.last = _mean_losses(reports[:5]), _mean_losses(reports[-5:])
    result.plot = plot_losses(folder)


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
    chosen: dict[str, Any] = {name: getattr(options, name) for name in _SEQUENCE}
    for stream in streams:
        chosen[f"{stream.config.name}: samples of a step"] = batch[stream.config.name]
        chosen[f"{stream.config.name}: rule"] = stream.rule
        chosen[f"{stream.config.name}: shards, seed and window"] = stream.identity
    return chosen


def _state_to_resume(checkpoint: str | None, sequence: dict[str, Any]) -> RunState:
    """Where to go on; a fresh state without a checkpoint.

    Raises:
        UserError: the options would give another sequence of samples.
    """
    if checkpoint is None:
        return RunState()
    state = read_state(_folder_of(checkpoint))
    changed = [
        f"{name}: was {state.sequence.get(name)}, is {sequence.get(name)}"
        for name in sorted(state.sequence.keys() | sequence.keys())
        if state.sequence.get(name) != sequence.get(name)
    ]
    if changed:
        raise UserError(
            f"{checkpoint}: was trained on another sequence of samples ({'; '.join(changed)}); "
            "use the same options, or another --run-name with --init-from for its weights alone"
        )
    return state


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
    left_out = ", ".join(f"{reason} {count}" for reason, count in result.drops.items())
    lines.append(f"left out by selection: {left_out or 'nothing'}")
    if result.skipped_steps:
        lines.append(f"{result.skipped_steps} steps were not finite and were skipped")
    lines += [f"checkpoint: {result.checkpoint}", f"plot:       {result.plot}"]
    return "\n".join(lines) + "\n"
