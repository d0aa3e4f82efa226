"""`mmdata train`: from options to a trained model, in the order that finds mistakes earliest.

Tokenizer and streams come first (a stream that yields nothing stops the run in seconds), then the
model, whose parts are checked against each other before their weights load. Every rank runs this;
the first one writes.
"""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from flamingo.data.order import Position
from flamingo.data.preview import write_preview
from flamingo.data.stream import Stream
from flamingo.data.text_layout import TextLayout
from flamingo.memory.batch_size import layout_of_world, with_largest_batch
from flamingo.memory.largest_batch import merges_streams, shapes_of
from flamingo.memory.out_of_memory import watched_preflight, watched_step
from flamingo.memory.phases import MemoryLog
from flamingo.models.registry import find_family, record_of
from flamingo.modules.hub import quiet_loading
from flamingo.options.run import RunOptions
from flamingo.options.streams import training_streams
from flamingo.parallel.world import (
    Mark,
    World,
    choose_device,
    join,
    prefer_expandable_segments,
    unmarked,
)
from flamingo.parallel.wrap import Wrapped
from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.losses import MeanLoss, end_losses_of
from flamingo.telemetry.names import METRICS_NAME, OPTIONS_NAME
from flamingo.telemetry.steps import StepReport
from flamingo.telemetry.writers import check_services
from flamingo.train.build import build_model
from flamingo.train.checkpoint.checkpoint import Checkpointer, RunState, restore
from flamingo.train.checkpoint.initial import first_weights
from flamingo.train.checkpoint.resume import (
    Resume,
    check_ranks_agree,
    describe_sequence,
    find_resume,
    own_part,
    starts_of,
    tell_kept_batch,
)
from flamingo.train.checkpoint.retention import SaveRule
from flamingo.train.loaders import StreamLoader, make_streams, make_validation, open_cache
from flamingo.train.loop import Trainer
from flamingo.train.optim import expect_optimizer, make_optimizer
from flamingo.train.precision import LossScale, fp32_matmul, settle
from flamingo.train.schedule import epoch_steps, run_steps
from flamingo.train.signals import StopRequest
from flamingo.train.telemetry import Telemetry
from flamingo.train.validation_loss import Validation
from mmdata.storage.atomic import write_atomically
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.wording import plural

PREVIEW_NAME = "preview.html"
_PREVIEW_BATCHES = 2


@dataclass(slots=True)
class TrainResult:
    """What a run came to.

    Attributes:
        folder: of the run.
        steps: optimizer steps done in all.
        losses: of each stream at the start and at the end of the run, earlier starts included.
        checkpoint: the last one written.
        preview: the page of a dry run.
        drops: what selection left out in this run, by reason.
        skipped_steps: not finite, in all.
        validation: the last loss measured on each validation stream.
        resumed_from: step that the run went on from; 0 for a fresh one.
        is_told: whether this rank is the one that tells it.
        memory: where it went in the last step that was measured, for a person.
        exit_code: 0, or what a signal asked for that stopped the run after a save.
    """

    folder: str
    steps: int = 0
    losses: dict[str, tuple[MeanLoss, MeanLoss]] = field(default_factory=dict)
    checkpoint: str | None = None
    preview: str | None = None
    drops: dict[str, int] = field(default_factory=dict)
    skipped_steps: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    resumed_from: int = 0
    is_told: bool = True
    memory: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class _Setup:
    """What is known before the model loads.

    Attributes:
        options: of the run, as it goes on.
        layout: of the batches' text.
        resume: where the run goes on.
        streams: to train on, this rank's part.
        validation: to measure on, likewise.
        sequence: what decides which samples come in which order.
        starts: of each stream.
        total_steps: of the run; 0 for a dry one, whose length need not be said.
        save_rule: when to save, and what to keep.
    """

    options: RunOptions
    layout: TextLayout
    resume: Resume
    streams: list[Stream]
    validation: list[Stream]
    sequence: dict[str, Any]
    starts: dict[str, Position]
    total_steps: int
    save_rule: SaveRule


def train(options: RunOptions, *, mark: Mark = unmarked) -> TrainResult:
    """Train as the options say; a run that is there already goes on from its last checkpoint.

    Under torchrun's variables this process is one rank of several, and all of them call this.
    `mark` is told what the rank does.

    Raises:
        UserError: something does not fit; in one line.
        NotFiniteError: the loss is not finite any more.
        RelayedError: another rank found something wrong.
    """
    check_services(options.services)
    quiet_loading()
    device = choose_device(options.device)
    if device.type == "cuda":
        prefer_expandable_segments(os.environ)
    joined = join(
        options.parallel,
        device=device,
        timeout_seconds=options.dist_timeout,
        shard_ranks=options.shard_ranks,
        mark=mark,
    )
    with joined as world, ExitStack() as stack:
        with world.together():
            resume = Resume() if options.dry_run else find_resume(options)
        before = None if resume.before is None else resume.before.options
        options, said = settle(options, world.device, before)
        if world.is_first and not options.dry_run:
            sys.stdout.writelines(f"{line}\n" for line in said)
        stack.enter_context(fp32_matmul(options))
        if options.auto_batch_size:
            options = with_largest_batch(options, world)
        with world.together():
            setup = _set_up(options, resume, world, stack)
            options = setup.options
            os.makedirs(options.run_name, exist_ok=True)
            if options.dry_run:
                return _dry_run(options, setup, world)
        check_ranks_agree(options, setup.resume, setup.sequence, world)
        return _train(options, setup, world)


def _set_up(options: RunOptions, resume: Resume, world: World, stack: ExitStack) -> _Setup:
    """All that can be found wrong in seconds."""
    expect_optimizer(options)
    family = find_family(options.family)
    tokenizer = MediaTokenizer(family.tokenizer(options))
    size, layout = family.image_size(options), family.text_layout(tokenizer, options)
    cache = open_cache(options)
    if cache is not None:
        stack.enter_context(cache)
    if resume.before is not None:
        options = family.resumed(options, resume.before, is_told=world.is_first)
    reads: dict[str, Any] = {"cache": cache, "world": world, "layout": layout}
    kept = resume.kept(options)
    streams = make_streams(options, tokenizer, size, kept=kept, **reads)
    batch = {stream.config.name: stream.share.batch_size for stream in streams}
    sequence = describe_sequence(options, streams)
    starts = starts_of(options, resume, streams, sequence)
    if kept:
        tell_kept_batch(options, streams, world)
    return _Setup(
        options=options,
        layout=layout,
        resume=resume,
        streams=streams,
        validation=make_validation(options, tokenizer, size, **reads),
        sequence=sequence,
        starts=starts,
        total_steps=0 if options.dry_run else run_steps(options, batch),
        save_rule=SaveRule() if options.dry_run else _save_rule(options, batch),
    )


def _save_rule(options: RunOptions, batch: dict[str, int]) -> SaveRule:
    """When to save, in steps. Raises UserError where --save-epochs has no epoch to count."""
    epochs = options.save_epochs
    return SaveRule(
        every_steps=options.save_steps,
        every_epoch_steps=epochs and epochs * epoch_steps(options, batch),
        keep_last=1 if options.delete_previous_checkpoint else options.keep_last,
        keep_every=options.keep_every,
        keep_best=options.keep_best,
    )


def _train(options: RunOptions, setup: _Setup, world: World) -> TrainResult:
    before = setup.resume.state
    result = TrainResult(
        options.run_name, resumed_from=before.step, steps=before.step, is_told=world.is_first
    )
    if before.step >= setup.total_steps:
        return result
    resumed = setup.resume.weights
    # A checkpoint to go on from is also what the parts are checked against before they load.
    weights = resumed or first_weights(options.init_from)
    wrapped = build_model(options, weights, [*setup.streams, *setup.validation], world)
    trainer = _trainer(options, wrapped, setup, world)
    memory = MemoryLog(
        options.run_name if world.is_first else None, trainer, every=options.memory_every
    )
    watched_preflight(trainer, memory, {one.config.name: one.rule for one in setup.streams})
    if resumed is not None:
        restore(resumed, trainer.model, trainer.optimizer, world)
        trainer.skipped_steps = before.skipped_steps
        trainer.loss_scale.resume(before.loss_scale)
    validation = Validation(
        options.run_name, setup.validation, every=options.val_every, done=before.step, world=world
    )
    saver = Checkpointer(
        options.run_name,
        setup.layout.tokenizer.tokenizer,
        setup.save_rule,
        world=world,
        asynchronous=options.async_checkpoint,
    )
    _run(options, trainer, saver, setup.sequence, validation, result, memory)
    return result


def _dry_run(options: RunOptions, setup: _Setup, world: World) -> TrainResult:
    path = os.path.join(options.run_name, PREVIEW_NAME)
    if world.is_first:
        batches = []
        for stream in setup.streams:
            source = stream.batches()
            batches += [next(source) for _ in range(_PREVIEW_BATCHES)]
        write_preview(batches, setup.layout, path)
    return TrainResult(options.run_name, preview=path, is_told=world.is_first)


def _trainer(options: RunOptions, wrapped: Wrapped, setup: _Setup, world: World) -> Trainer:
    multipliers = {one.name: one.loss_multiplier for one in training_streams(options)}
    loaders = []
    for stream in setup.streams:
        name = stream.config.name
        start = setup.starts[name]
        steps = stream.steps(start)
        position = own_part(stream, start)
        has_features = stream.config.features is not None
        loaders.append(
            StreamLoader(name, steps, multipliers[name], position, stream.damage, has_features)
        )
    rules = {one.config.name: one.rule for one in setup.streams}
    shapes = shapes_of(options, layout_of_world(world), rules)
    return Trainer(
        wrapped=wrapped,
        merges_streams=merges_streams(options, shapes, on_gpu=world.device.type == "cuda"),
        optimizer=make_optimizer(wrapped.model, options),
        loaders=loaders,
        options=options,
        total_steps=setup.total_steps,
        world=world,
        done=setup.resume.state.step,
        loss_scale=LossScale.of(options),
    )


def _run(
    options: RunOptions,
    trainer: Trainer,
    saver: Checkpointer,
    sequence: dict[str, Any],
    validation: Validation,
    result: TrainResult,
    memory: MemoryLog,
) -> None:
    """All steps that are left, with log and checkpoints."""
    folder, world = options.run_name, trainer.world
    record = record_of(options)
    if world.is_first:
        text = json.dumps(record, indent=1).encode() + b"\n"
        write_atomically(os.path.join(folder, OPTIONS_NAME), text)
    with world.together():  # a service may refuse the first rank
        telemetry = Telemetry(
            options, trainer.model, total_steps=trainer.total_steps, done=trainer.done, world=world
        )
    reports: list[StepReport] = []
    try:
        with StopRequest() as stop:
            _measure(validation, trainer, telemetry, result)
            while trainer.done < trainer.total_steps and not result.exit_code:
                report = watched_step(trainer, memory)
                telemetry.report(report)
                reports.append(report)
                losses = _measure(validation, trainer, telemetry, result)
                last = trainer.done == trainer.total_steps
                result.exit_code = 0 if last else _asked_to_stop(stop, saver, world)
                if last or result.exit_code or saver.is_due(trainer.done, losses):
                    world.mark(trainer.done, "saves")
                    state = RunState(
                        step=trainer.done,
                        positions=_positions(trainer),
                        skipped_steps=trainer.skipped_steps,
                        loss_scale=trainer.loss_scale.record(),
                        options=record,
                        sequence=sequence,
                        validation=losses,
                    )
                    saver.save(trainer.model, trainer.optimizer, state)
                    telemetry.saved(trainer.done, exit_code=result.exit_code)
            result.checkpoint = saver.close()
    finally:
        saver.abandon()
        telemetry.close()
        for loader in trainer.loaders:
            loader.steps.close()
    result.steps, result.skipped_steps = trainer.done, trainer.skipped_steps
    result.drops = dict(sorted(telemetry.drops.items()))
    result.losses = _end_losses(folder, reports, world)
    result.memory = memory.table()


def _asked_to_stop(stop: StopRequest, saver: Checkpointer, world: World) -> int:
    """The exit code that a signal on any rank asked for; 0: none. One small all-reduce.

    Raises:
        StorageError: a save in the background has failed, on any rank.
    """
    *votes, failed = world.total([*stop.votes(), float(saver.has_failed)])
    if failed:
        saver.wait()
    return stop.decide(votes)


def _positions(trainer: Trainer) -> dict[str, Any]:
    """The positions of all lanes of each stream, from what each rank knows of its own."""
    parts = trainer.world.gather({loader.name: loader.position for loader in trainer.loaders})
    return {
        loader.name: Position.merge([part[loader.name] for part in parts]).record()
        for loader in trainer.loaders
    }


def _measure(
    validation: Validation, trainer: Trainer, telemetry: Telemetry, result: TrainResult
) -> dict[str, float]:
    """The loss on the validation streams where it is due, else nothing."""
    if not validation.is_due(trainer.done, is_last=trainer.done == trainer.total_steps):
        return {}
    trainer.world.mark(trainer.done, "measures the validation loss")
    result.validation = validation.measure(trainer)
    telemetry.validated(trainer.done, result.validation)
    return result.validation


def _end_losses(
    folder: str, reports: list[StepReport], world: World
) -> dict[str, tuple[MeanLoss, MeanLoss]]:
    """First and last losses of the whole run, from its log; on ranks without one, of this start."""
    if world.is_first:
        return end_losses_of(read_log(os.path.join(folder, METRICS_NAME)))
    return end_losses_of([report.line() for report in reports])


def _left_out(drops: Mapping[str, int]) -> str:
    """What selection left out: so many documents, so many images, each by reason."""
    told = []
    for what in ("document", "image"):
        reasons = {
            key.partition(":")[2]: count
            for key, count in drops.items()
            if key.partition(":")[0] == what
        }
        if reasons:
            named = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
            told.append(f"{plural(sum(reasons.values()), what)} ({named})")
    return "; ".join(told) or "nothing"


def summary(result: TrainResult) -> str:
    """What a person reads at the end of a run; nothing where another rank says it."""
    if not result.is_told:
        return ""
    if result.preview:
        return f"wrote {result.preview}: open it to see pictures beside their tags\n"
    if not result.losses:
        return (
            f"{result.folder}: the run is complete ({plural(result.steps, 'step')}); "
            "nothing to do\n"
        )
    lines = []
    if result.resumed_from:
        lines.append(f"went on from step {result.resumed_from}")
    for name, (first, last) in result.losses.items():
        lines.append(f"{name}: training loss {first} -> {last}")
    for name, loss in result.validation.items():
        lines.append(f"{name}: validation loss {loss:.4f}")
    lines.append(f"left out by selection: {_left_out(result.drops)}")
    if result.exit_code:
        lines.append(f"stopped by a signal after step {result.steps}; the same command goes on")
    if result.skipped_steps:
        steps = plural(result.skipped_steps, "step was", "steps were")
        lines.append(f"{steps} not finite and skipped")
    lines += [
        f"checkpoint: {result.checkpoint}",
        f"mmdata train-report {result.folder} makes a page of the run",
    ]
    return "\n".join(lines) + "\n" + result.memory
