"""What is to hold in the first ten minutes on a GPU, in the order in which one wants to know it.

Each check is a function of the place where it is made, which returns what it found and raises what
is wrong. On the pretended GPU everything is tiny, and what needs a GPU's time or memory is left out
with that reason.
"""

import json
import math
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import train_gpu, training_memory
from benchmarks.checks import Check
from benchmarks.gpu_place import Place, lever_rows, losses_and_result, losses_of
from benchmarks.train_gpu_batches import Size, loaders
from benchmarks.train_gpu_shapes import SHAPES
from flamingo.models.flamingo.options import Train

GPU = torch.device("cuda")
_NO_TIME = "how long a pretended GPU takes says nothing"
_NO_MEMORY = "a pretended GPU allocates nothing"
_GIB = 2**30
#: Of a GPU's losses in fp32, which multiplies in TF32, against a CPU's.
LEAST_TOLERANCE = 2e-3
#: Of the first losses of the 3B shape's loops: frozen weights in bf16 against fp32.
FIRST_LOSS_TOLERANCE = 0.05
WAITS_A_STEP = 1
#: Loops of the 3B shape; the first is what the others are compared with.
SPEED: dict[str, dict[str, Any] | None] = {
    train_gpu.PADDED: None,
    **{name: train_gpu.VARIANTS[name] for name in ("mmdata", "--pack", "--compile")},
    "--compile --pack": train_gpu.VARIANTS["--compile --pack"],
}


def checks_of(place: Place) -> list[Check]:
    """All checks; the same ones each time they are asked for."""
    Path(place.folder).mkdir(parents=True, exist_ok=True)
    checks = [
        Check("device and NVML agree", 60, partial(device_and_nvml, place)),
        Check("one wait a step", 120, partial(waits_of_a_step, place)),
        Check("features as on a CPU", 120, partial(features, place)),
        *_levers(place),
        Check("resume", 180, partial(resume, place)),
    ]
    for name, changes in training_memory.SETTINGS.items():
        checks.append(Check(f"memory, {name}", 120, partial(memory, place, changes)))
    for name in SPEED:
        checks.append(Check(f"3B shape, {name}", 300, partial(speed, place, name)))
    checks.append(Check("3B shape, times the padded loop", 30, partial(factor, place)))
    checks.append(Check("data wait", 300, partial(data_wait, place)))
    return [check for check in checks if place.only in check.name]


def _levers(place: Place) -> list[Check]:
    """The plain runs, and a check for each row of the covering array.

    Where the array cannot be had there is one check, that fails.
    """
    try:
        rows = lever_rows(Path(place.folder))
    # What the tests need may not be installed, say: that is a row, and the others are made.
    except Exception as error:  # noqa: BLE001
        return [Check("levers", 60, partial(_raise, error))]
    # A process that has computed gradients on a CPU can pretend no GPU for them any more.
    checks = [Check("plain runs on the CPU", 300, partial(plain_runs, place, rows), is_last=True)]
    for number, chosen in enumerate(rows):
        words = " ".join(f"{name}={value}" for name, value in chosen.items())
        limit = 300 if chosen.get("compile") else 120
        checks.append(Check(f"levers {number}: {words}", limit, partial(lever, place, chosen)))
    return checks


def _raise(error: Exception) -> str:
    raise error


def device_and_nvml(place: Place) -> str:
    """torch's GPU and NVML's are one: name, memory, and what is allocated shows up."""
    place.needs_a_real_gpu("NVML knows no pretended GPU")
    from flamingo.telemetry.nvml import open_gpu

    found = torch.cuda.get_device_properties(0)
    gpu, problem = open_gpu(f"GPU-{found.uuid}")
    if gpu is None:
        raise RuntimeError(problem)
    try:
        if gpu.name() != found.name:
            raise RuntimeError(f"torch says {found.name}, NVML says {gpu.name()}")
        before = gpu.read()
        total = before["memory_bytes"] / before["memory_share"]
        if abs(total / found.total_memory - 1) > 0.05:
            raise RuntimeError(f"torch says {found.total_memory:,} bytes, NVML {total:,.0f}")
        held = torch.empty(_GIB, dtype=torch.uint8, device=GPU)
        torch.cuda.synchronize()
        grown = gpu.read()["memory_bytes"] - before["memory_bytes"]
        del held
    finally:
        gpu.close()
    if grown < 0.95 * _GIB:
        raise RuntimeError(f"NVML saw {grown:,.0f} bytes of 1 GiB that torch allocated")
    return (
        f"{found.name}, {found.total_memory / 1e9:.0f} GB, capability {found.major}.{found.minor}, "
        f"torch {torch.__version__} with CUDA {torch.version.cuda}"
    )


def waits_of_a_step(place: Place) -> str:
    """The host waits for the device once a step: torch warns of every other time."""
    with place.gpu() as watch:
        bench = _bench(place, tiny=True)
        trainer = bench.trainer(loaders(bench.samples()))
        for _ in range(2):
            trainer.step()
        found = _pretended_waits(watch, trainer.step) if watch else _warnings_of(trainer.step)
    if len(found) != WAITS_A_STEP:
        raise RuntimeError(f"{len(found)} waits in a step, expected {WAITS_A_STEP}: {found}")
    return f"one: {found[0]}"


def _warnings_of(step: Callable[[], Any]) -> list[str]:
    """Where the host waited in a step, as torch says."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{one.filename}:{one.lineno}" for one in caught if "synchronizing" in str(one.message)]


def _pretended_waits(watch: Any, step: Callable[[], Any]) -> list[str]:
    watch.clear()
    step()
    counters = (watch.reads, watch.blocking, watch.waits)
    return [place for counter in counters for place in counter.elements()]


def features(place: Place) -> str:
    """A shard's patch tokens from the GPU are those of the CPU, in bf16."""
    from flamingo.inference.features import ShardEncoder
    from mmdata.shards.features import FeatureTask
    from pipelines.features.options import Features
    from pipelines.features.run import tower_options

    world = place.world()
    options = Features(
        shards=(str(world.shards),),
        output=place.folder,
        vision_encoder_path=str(world.clip),
        vision_chunk=4,
        offline=True,
    )
    shard, tokens = str(min(world.shards.glob("*.tar"))), []
    for device in ("cpu", "cuda"):
        output = Path(place.folder) / f"{device}.features"
        output.unlink(missing_ok=True)

        def encode(device: Any = device, output: Path = output) -> None:
            encoder = ShardEncoder(tower_options(options, device))
            for _ in encoder.encode_shard(FeatureTask(shard=shard, output=str(output))):
                pass

        if device == "cpu":
            encode()
        else:
            with place.gpu():
                encode()
        tokens.append(_tokens_of(output))
    here, there = tokens
    error = float((here - there).abs().max() / here.abs().max())
    if not error <= 0.05:
        raise RuntimeError(f"off by {error:.1%} of the largest value")
    return f"{len(here)} images, off by {error:.2%} of the largest value at most"


def _tokens_of(path: Path) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tokens: torch.Tensor = file.get_tensor("tokens")
        return tokens.float()


def lever(place: Place, chosen: dict[str, Any]) -> str:
    """A tiny run with these options has the losses of the plain run on a CPU."""
    from tests.flamingo.train.test_levers import loss_differences

    plain = json.loads(_plain_file(place).read_text(encoding="utf-8"))[_plain_key(chosen)]
    options = _fresh(place, "lever", device="cuda", **chosen)
    with place.gpu(saves=chosen.get("parallel") != "fsdp"):
        found, result = losses_and_result(options)
    if not place.steps_back:
        found = [found[0], plain[1]]
    wrong = loss_differences(options, found, plain, LEAST_TOLERANCE)
    if result.skipped_steps or not all(map(math.isfinite, found)):
        wrong.append(f"losses {found}, {result.skipped_steps} steps skipped")
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return _two(found, plain)


def plain_runs(place: Place, rows: list[dict[str, Any]]) -> str:
    """The losses of the plain runs on the CPU, in fp32, are kept for those on the GPU."""
    known: dict[str, list[float]] = {}
    for key in sorted(set(map(_plain_key, rows))):
        more = {"device": "cpu", "precision": "fp32"} | json.loads(key)
        known[key] = losses_of(_fresh(place, "plain", **more))
    _plain_file(place).write_text(json.dumps(known), encoding="utf-8")
    return "; ".join(f"{key}: losses {losses}" for key, losses in known.items())


def _plain_key(chosen: dict[str, Any]) -> str:
    """The options of a row that make other losses of a plain run."""
    from tests.flamingo.train.test_levers import OTHERS

    return json.dumps({name: chosen[name] for name in OTHERS if name in chosen}, sort_keys=True)


def _plain_file(place: Place) -> Path:
    return Path(place.folder) / "plain.json"


def _fresh(place: Place, name: str, **changes: Any) -> Train:
    """Options of a run whose folder is empty."""
    options = place.options(name, **changes)
    shutil.rmtree(options.run_name, ignore_errors=True)
    return options


def _two(found: list[float], expected: list[float]) -> str:
    told = ", ".join(f"{one:.4f}" for one in found)
    return f"losses {told}; {', '.join(f'{one:.4f}' for one in expected)} expected"


def resume(place: Place) -> str:
    """A run that stops after two steps and goes on has the losses of one that does not stop."""
    more = {"device": "cuda", "precision": "bf16-mixed", "save_steps": 2, "batch_size_laion": 2}
    with place.gpu():
        whole = losses_of(_fresh(place, "whole", **more, max_steps=4))
        losses_of(_fresh(place, "again", **more, max_steps=2))
        found, result = losses_and_result(place.options("again", **more, max_steps=4))
    if result.resumed_from != 2:
        raise RuntimeError(f"it went on from step {result.resumed_from}, not from 2")
    if max(abs(one - other) for one, other in zip(found, whole, strict=True)) > LEAST_TOLERANCE:
        raise RuntimeError(_two(found, whole))
    return _two(found, whole)


def memory(place: Place, changes: dict[str, Any]) -> str:
    """The estimate of a setting's memory is within 10% of torch's peak."""
    place.needs_a_real_gpu(_NO_MEMORY)
    options = Train(lm_path="lm", run_name="run", estimate=True, device="cuda", **changes)
    estimated, measured = training_memory.measure(training_memory.gpu_kind(), options)
    error = estimated / measured - 1
    told = f"{estimated / 1e9:.1f} GB estimated, {measured / 1e9:.1f} GB measured ({error:+.1%})"
    if abs(error) > training_memory.MAX_ERROR:
        raise RuntimeError(told)
    return told


def speed(place: Place, name: str) -> str:
    """Steps of the 3B shape; the first loss is that of the padded loop."""
    levers = SPEED[name]
    with place.gpu():
        bench = _bench(place, tiny=place.pretend)
        if levers is None:
            measured = bench.measure_peer(name, padded=True)
        else:
            measured = bench.measure(name, levers)
    known = _measured(place) | {name: asdict(measured)}
    (Path(place.folder) / "measured.json").write_text(json.dumps(known), encoding="utf-8")
    if not all(map(math.isfinite, measured.losses.values())):
        raise RuntimeError(f"first losses {measured.losses}")
    for stream, loss in known.get(train_gpu.PADDED, {"losses": {}})["losses"].items():
        if abs(measured.losses[stream] - loss) > FIRST_LOSS_TOLERANCE:
            raise RuntimeError(f"first loss of {stream} {measured.losses[stream]}, not {loss}")
    if place.pretend:
        told = ", ".join(f"{stream} {loss:.3f}" for stream, loss in measured.losses.items())
        return f"tiny shape, first loss {told}; {_NO_TIME}"
    return measured.line().strip().removeprefix(name).strip()


def factor(place: Place) -> str:
    """The best of ours against the padded loop."""
    place.needs_a_real_gpu(_NO_TIME)
    rates = {name: one["samples_per_second"] for name, one in _measured(place).items()}
    if train_gpu.PADDED not in rates or len(rates) < 2:
        raise RuntimeError("the padded loop or all of ours were not measured")
    times = {name: rate / rates[train_gpu.PADDED] for name, rate in rates.items()}
    told = ", ".join(f"{name} {one:.2f}" for name, one in times.items() if one != 1)
    if max(times.values()) < train_gpu.AIM_FACTOR:
        raise RuntimeError(f"{told}; expected {train_gpu.AIM_FACTOR} of the best")
    return told


def data_wait(place: Place) -> str:
    """The share of a step that waits for the loader, on real shards."""
    place.needs_a_real_gpu(_NO_TIME)
    bench = _bench(place, tiny=False)
    share = train_gpu.wait_percent(bench, Path(place.folder), 400, {"compile": True})
    if share > train_gpu.AIM_WAIT_PERCENT:
        raise RuntimeError(f"{share:.2f}% of a step, expected {train_gpu.AIM_WAIT_PERCENT}%")
    return f"{share:.2f}% of a step"


def _measured(place: Place) -> dict[str, Any]:
    """What `speed` has measured so far, by name."""
    kept = Path(place.folder) / "measured.json"
    if not kept.exists():
        return {}
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _bench(place: Place, *, tiny: bool) -> train_gpu.Bench:
    torch.set_float32_matmul_precision("high")
    if not tiny:
        return train_gpu.Bench(SHAPES["3b"], Size(), GPU, 8)
    bench = train_gpu.Bench(SHAPES["tiny"], Size(2, 3, 24, 12), GPU, 1)
    bench.warm_steps = 1
    return bench
