"""Which samples a run sees in which order: what decides it, and where a resume goes on in it."""

import logging
from dataclasses import dataclass, field
from typing import Any

from flamingo.data.order import Position
from flamingo.data.stream import Stream
from flamingo.models.family import Before
from flamingo.options.run import RunOptions
from flamingo.options.streams import sequence_of, training_streams
from flamingo.parallel.world import World
from flamingo.train.checkpoint.checkpoint import RunState, find_checkpoint, read_state
from mmdata.errors import UserError

logger = logging.getLogger(__name__)

#: In the record of a sequence of samples: what --allow-new-batch-size may change.
_STEP_SAMPLES, _LANES = "samples of a step", "lanes"


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a run goes on.

    Attributes:
        checkpoint: the folder to go on from; None for a fresh run.
        state: what it says.
    """

    checkpoint: str | None = None
    state: RunState = field(default_factory=RunState)

    @property
    def weights(self) -> str | None:
        """The checkpoint, once a step was taken."""
        return self.checkpoint if self.state.step else None

    @property
    def before(self) -> Before | None:
        """What the family is told of the run that goes on; None for a fresh one."""
        if self.checkpoint is None:
            return None
        return Before(self.checkpoint, self.state.options, self.state.trained)

    def kept(self, options: RunOptions) -> dict[str, int]:
        """B of each stream, which stays what it was at the first launch."""
        if options.allow_new_batch_size:
            return {}
        named = ((one.name, f"{one.name}: {_STEP_SAMPLES}") for one in training_streams(options))
        sequence = self.state.sequence
        return {name: sequence[key] for name, key in named if key in sequence}


def find_resume(options: RunOptions) -> Resume:
    """The checkpoint that the options mean, if there is one.

    Raises:
        UserError: --resume-from-checkpoint names none, or it cannot be read.
    """
    asked = options.resume_from_checkpoint
    found = find_checkpoint(asked or options.run_name)
    if found is None:
        if asked is not None:
            raise UserError(f"--resume-from-checkpoint {asked}: holds no checkpoint of ours")
        return Resume()
    state = read_state(found)
    return Resume(found, state)


def describe_sequence(options: RunOptions, streams: list[Stream]) -> dict[str, Any]:
    """What decides which samples come in which order; it stays the same over a run's resumes."""
    chosen: dict[str, Any] = {}
    for one in training_streams(options):
        chosen |= sequence_of(one)
    for stream in streams:
        chosen[f"{stream.config.name}: {_STEP_SAMPLES}"] = stream.share.batch_size
        chosen[f"{stream.config.name}: {_LANES}"] = stream.share.num_lanes
        chosen[f"{stream.config.name}: rule"] = stream.rule
        chosen[f"{stream.config.name}: shards, seed and window"] = stream.identity
    return chosen


def check_ranks_agree(
    options: RunOptions, resume: Resume, sequence: dict[str, Any], world: World
) -> None:
    """Find hosts that see another run folder or other shards; every rank has to call it.

    Raises:
        UserError: they do.
    """
    seen = world.gather((resume.checkpoint, resume.state.step, sequence))
    for rank, (_, step, theirs) in enumerate(seen):
        _, first_step, first = seen[0]
        if step != first_step:
            world.end_with(
                UserError(
                    f"--run-name {options.run_name}: rank 0 goes on from step {first_step}, rank "
                    f"{rank} from step {step}: the folder has to be the same one on all hosts"
                )
            )
        names = [n for n in sorted(first.keys() | theirs.keys()) if first.get(n) != theirs.get(n)]
        if names:
            name = names[0]
            world.end_with(
                UserError(
                    f"{name}: {first.get(name)} on rank 0, {theirs.get(name)} on rank {rank}: "
                    "the ranks have to be started with the same options on the same shards"
                )
            )


def starts_of(
    options: RunOptions, resume: Resume, streams: list[Stream], sequence: dict[str, Any]
) -> dict[str, Position]:
    """Where each stream starts; in a new sequence, behind the epochs that were begun.

    Raises:
        UserError: the options would give another sequence of samples.
    """
    goes_on = _is_same_sequence(options, resume, sequence)
    starts = {}
    for stream in streams:
        saved = Position.of_record(resume.state.positions.get(stream.config.name, []))
        starts[stream.config.name] = saved if goes_on else stream.after(saved)
    return starts


def _is_same_sequence(options: RunOptions, resume: Resume, sequence: dict[str, Any]) -> bool:
    if resume.checkpoint is None:
        return True
    before = resume.state.sequence
    names = [n for n in sorted(before.keys() | sequence.keys()) if before.get(n) != sequence.get(n)]
    is_batch = bool(names) and all(name.endswith((_STEP_SAMPLES, _LANES)) for name in names)
    if names and not (is_batch and options.allow_new_batch_size):
        changed = [f"{n}: was {before.get(n)}, is {sequence.get(n)}" for n in names]
        advice = "use the same options"
        if is_batch:
            advice += ", start a new sequence of samples with --allow-new-batch-size"
        raise UserError(
            f"{resume.checkpoint}: was trained on another sequence of samples "
            f"({'; '.join(changed)}); {advice}, or another --run-name with --init-from for its "
            "weights alone"
        )
    return not names


def tell_kept_batch(options: RunOptions, streams: list[Stream], world: World) -> None:
    """Say it where B is kept by another number of micro-batches than the options name."""
    for stream in streams if world.is_first else []:
        own = len(stream.share.lanes) * stream.share.samples_per_lane
        passes = -(-own // stream.config.batch_size)
        if passes != options.gradient_accumulation_steps and options.mix is None:
            logger.warning(
                "stream %s: %d micro-batches of %d on %d ranks keep the %d samples of a step, in "
                "place of --gradient-accumulation-steps %d",
                stream.config.name,
                passes,
                stream.config.batch_size,
                world.size,
                stream.share.batch_size,
                options.gradient_accumulation_steps,
            )


def own_part(stream: Stream, start: Position) -> Position:
    """A start as this rank tells it: of its own lanes alone, so that ranks' parts merge."""
    lanes = [None] * stream.share.num_lanes if not stream.share.lanes else start.lanes
    return Position(tuple(lanes))
