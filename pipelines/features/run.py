"""`mmdata features`: the vision tower's patch tokens of every image of some shards, on disk.

One unit a shard; a Ray task hands it to an actor of the pool, which holds the tower, reads the
shard and writes the file, so that neither pixels nor tokens pass through the object store. An actor
on a GPU has two shards in hand: one is computed while the other is opened or ended. An actor gives
a sign of life a batch; one that gives none for `--stall-timeout` is ended and started again, and
the shard begun anew once. A file that is there already is kept when shard and tower are the same:
the same command again goes on.

The pool is handed its encoder from outside, since jobs know no torch. How much will be written is
said before the first shard: patch tokens are several times the JPEGs.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import msgspec

from mmdata.catalogue.find import find_shards
from mmdata.errors import UserError
from mmdata.shards.features import (
    FeatureResult,
    FeatureTask,
    TowerOptions,
    TowerSpec,
    features_path,
)
from mmdata.shards.naming import SIDECAR, TAR
from mmdata.shards.reader import ShardReader, read_samples_table, samples_path
from mmdata.storage.files import exists, make_folder, read_bytes, size_of
from mmdata.storage.urls import is_url
from mmdata.wording import plural
from pipelines.conversion.space import free_bytes
from pipelines.engine.actors import ActorPool, actor_results
from pipelines.engine.devices import Device, choose_device, num_gpus
from pipelines.engine.events import Alive, UnitFailure
from pipelines.engine.run_units import run_units, terminate_as_interrupt
from pipelines.features.options import Features
from schemas.manifest import Sidecar

logger = logging.getLogger(__name__)
_CALL_BYTES = 2**20


class Encoder(Protocol):
    """Holds a tower."""

    @property
    def spec(self) -> TowerSpec: ...
    def encode_shard(self, task: FeatureTask) -> Iterator[FeatureResult | None]:
        """Yields None as a sign of life now and then, and last what came of it."""
        ...


#: Makes an encoder in the process that it is called in.
EncoderOf = Callable[[TowerOptions], Encoder]


@dataclass(slots=True)
class FeaturesReport:
    """What a run came to.

    Attributes:
        output: the folder.
        shards: of the run.
        images: in the shards that are done.
        undecodable: of these.
        num_bytes: of all files.
        reused: shards whose features were there.
        failures: one line for each shard that was not done.
    """

    output: str
    shards: int
    images: int = 0
    undecodable: int = 0
    num_bytes: int = 0
    reused: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 done, 1 some shards failed."""
        return 1 if self.failures else 0

    def text(self) -> str:
        """For a person."""
        lines = [
            f"{self.output}: features of {plural(self.images, 'image')} in "
            f"{plural(self.shards, 'shard')}, "
            f"{self.num_bytes / 1e9:.2f} GB"
        ]
        if self.reused:
            lines.append(f"{plural(self.reused, 'shard')} had theirs already")
        if self.undecodable:
            lines.append(
                f"{plural(self.undecodable, 'image')} cannot be decoded and will be left out "
                "by training"
            )
        return "\n".join(lines + [f"failed: {one}" for one in self.failures]) + "\n"


def write_features(options: Features, encoder: EncoderOf) -> FeaturesReport:
    """Write the features of shards.

    Args:
        options: see `Features`.
        encoder: makes what holds the tower; called in each actor, and in this process, which asks
            it what will be written. This process needs a GPU only where it encodes itself.

    Raises:
        UserError: it cannot start as asked; nothing was written.
    """
    if is_url(options.output):
        raise UserError(f"--output {options.output}: features go to a disk, which maps them")
    output = os.path.abspath(options.output)
    paths = find_shards(options.shards)
    tasks = [FeatureTask(shard=path, output=features_path(output, path)) for path in paths]
    _check_names(tasks)
    device = choose_device(options.device, options.ray_address, flag="--device")
    tower = tower_options(options, device)
    local = encoder(tower if options.actors == 0 else replace(tower, device="cpu"))
    _say_size(tasks, local.spec, output)
    make_folder(output)
    report = FeaturesReport(output, len(tasks))
    with terminate_as_interrupt():
        if options.actors == 0:
            events = run_units(partial(_encode_here, local), tasks, workers=0)
        else:
            del local  # the actors have one each
            pool = _pool(options, tower, encoder)
            work = partial(_encode_at_actor, pool.names, options.stall_timeout)
            units = list(enumerate(tasks))
            events = run_units(
                work,
                units,
                workers=pool.calls_at_once,
                ray_address=options.ray_address,
                service=pool,
                stall_seconds=options.stall_timeout,
            )
        for index, event in events:
            if isinstance(event, UnitFailure):
                report.failures.append(f"{tasks[index].shard}: {event.error}")
            elif isinstance(event, FeatureResult):
                _add(report, event)
    return report


def tower_options(options: Features, device: Device) -> TowerOptions:
    """What the encoder is told."""
    return TowerOptions(
        model=options.vision_encoder_path,
        pretrained=options.vision_encoder_pretrained,
        vision_tokens=options.vision_tokens,
        device=device,
        batch_size=options.vision_chunk,
        decode_threads=options.decode_threads,
        exact=options.exact_preprocess,
        offline=options.offline,
    )


def _encode_here(encoder: Encoder, task: FeatureTask) -> Iterator[FeatureResult | Alive]:
    for result in encoder.encode_shard(task):
        yield Alive() if result is None else result


def _encode_at_actor(
    names: Sequence[str], stall_seconds: float, unit: tuple[int, FeatureTask]
) -> Iterator[FeatureResult | Alive]:
    """In a Ray task: have an actor do it, another one for the next shard."""
    turn, task = unit
    results = actor_results(
        names[turn % len(names)], "encode_shard", task, stall_seconds=stall_seconds
    )
    for result in results:
        yield Alive() if result is None else result


def _pool(options: Features, tower: TowerOptions, encoder: EncoderOf) -> ActorPool:
    gpu = tower.device == "cuda"
    number = options.actors or (num_gpus(options.ray_address) if gpu else os.cpu_count()) or 1
    return ActorPool(
        holder=encoder,
        argument=tower,
        names=tuple(f"tower-{index}" for index in range(number)),
        gpu=gpu,
        bytes_in_flight=_CALL_BYTES,
    )


def _add(report: FeaturesReport, result: FeatureResult) -> None:
    report.images += result.images
    report.undecodable += result.undecodable
    report.num_bytes += result.num_bytes
    report.reused += result.reused


def _check_names(tasks: Sequence[FeatureTask]) -> None:
    """Two shards of one name would write one file."""
    seen: dict[str, str] = {}
    for task in tasks:
        other = seen.setdefault(task.output, task.shard)
        if other != task.shard:
            raise UserError(
                f"{other} and {task.shard}: both would be {os.path.basename(task.output)}; give "
                "each folder an --output of its own"
            )


def _say_size(tasks: Sequence[FeatureTask], spec: TowerSpec, output: str) -> None:
    """Say what will be written, and refuse what does not fit.

    Raises:
        UserError: the disk is too small.
    """
    todo = [task for task in tasks if not exists(task.output)]
    images = sum(_num_images(task.shard) for task in todo)
    shard_bytes = sum(size_of(task.shard) for task in todo)
    total = images * spec.image_bytes
    sys.stderr.write(
        f"mmdata features: {plural(images, 'image')} x {spec.num_tokens} x {spec.width} bf16 = "
        f"{spec.image_bytes / 1e6:.2f} MB each, {total / 1e9:.2f} GB in {output} "
        f"(their shards: {shard_bytes / 1e9:.2f} GB)\n"
    )
    free = free_bytes(output)
    if free is not None and total > free:
        raise UserError(
            f"--output {output}: expected {total / 1e9:.1f} GB free, got {free / 1e9:.1f} GB"
        )


def _num_images(shard: str) -> int:
    """Images of a shard: by its sidecar, its samples table, or at least one a sample."""
    sidecar = shard.removesuffix(TAR) + SIDECAR
    if exists(sidecar):
        try:
            return msgspec.json.decode(read_bytes(sidecar), type=Sidecar).tally.images
        except msgspec.DecodeError:
            logger.debug("%s: another tool's", sidecar)
    if exists(samples_path(shard)):
        rows: list[Any] = read_samples_table(samples_path(shard), ["width"])["width"]
        return sum(map(len, rows))
    with ShardReader(shard) as reader:
        return len(reader)
