"""A conversion on a cluster of three nodes, all on this machine, that loses one node or its head.

Real processes: Ray's own head and raylets, killed with SIGKILL. What is written in the end is equal
to the byte to what one process writes that nothing happens to.

They share a cluster: first those that leave it as it was, then the one that takes a node from it,
last the one that takes its head. It asks for Ray's tokens; another of one node does without them.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmdata.shards.features import FEATURES
from pipelines.conversion import dedupe
from pipelines.conversion.dedupe_shards import FinishTask, finish_shards
from pipelines.engine.events import Tick
from pipelines.features.options import Features
from pipelines.features.run import write_features
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import (
    Corpus,
    check_nothing_half_written,
    leftovers,
    make_corpus,
    run_cli,
    snapshot,
)
from tests.pipelines.clip.counting_encoder import CountingEncoder
from tests.processes import SLOW, Start, committed, descendants, hooked, starter, wait_for_shards

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(sys.platform != "linux", reason="a cluster on one machine needs Linux"),
]

#: Three units of 20 shards, one a node.
RECORDS = 60
TOKEN = "5f" * 32
MORE = ("--docs-per-shard", "1")
#: A look at the cluster's head every second, not every five.
SOON = """
from pipelines.engine import ray_session
ray_session._LOOK_SECONDS = 1.0
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), records=RECORDS, files=3)


@pytest.fixture(scope="module")
def reference(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("reference") / "out"
    convert_mmc4(corpus.options(output, docs_per_shard=1), quiet=True)
    return snapshot(output)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and two nodes, one core each, that ask for a token. Ray counts a GPU in each node."""
    with running_cluster("token", nodes=2) as made:
        yield made


@contextmanager
def running_cluster(mode: str, nodes: int) -> Iterator[Any]:
    """A head and nodes, one core each, with Ray's tokens or without."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch, ray_tokens(mode):
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "120")  # on a busy machine
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        made = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        try:
            for _ in range(nodes):
                made.add_node(**node, num_gpus=1)
            yield made
        finally:
            made.shutdown()


@contextmanager
def ray_tokens(mode: str) -> Iterator[None]:
    """This process and its children with Ray's tokens or without; Ray reads the mode but once."""
    from ray._raylet import AuthenticationTokenLoader, Config

    def read_again() -> None:
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", mode)
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        read_again()
        yield
    read_again()


@pytest.fixture
def start() -> Iterator[Start]:
    with starter() as begin:
        yield begin


def kill(node: Any, *kinds: str) -> None:
    for kind in kinds:
        os.kill(node.all_processes[kind][0].process.pid, signal.SIGKILL)


def wait_until_at_work(node: Any) -> list[int]:
    """The processes of a node that do units, as soon as there are any."""
    raylet = node.all_processes["raylet"][0].process.pid
    deadline = time.monotonic() + 300
    while True:
        below = descendants(raylet)
        busy = [pid for pid, name in below if name.startswith("ray::_attempt")]
        if busy:
            return busy
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"RAY_AUTH_MODE": ""}, "none was sent, since RAY_AUTH_MODE is not set here: run the same"),
        ({"RAY_AUTH_TOKEN": "a0" * 32}, "it has another token than the one in RAY_AUTH_TOKEN: put"),
        ({"RAY_AUTH_TOKEN": ""}, "is token here, and there is no token to send: put the cluster's"),
    ],
)
def test_a_token_that_does_not_fit_is_one_line(
    cluster: Any,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    told: str,
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run_cli(corpus.command(tmp_path / "out", "--ray-address", cluster.address))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"mmdata: Ray {cluster.address}: ")
    assert told in line


def test_an_interruption_leaves_the_cluster_soon_and_says_how_to_go_on(
    cluster: Any, start: Start, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    more = ("--ray-address", cluster.address)
    process = start(hooked(corpus.command(output, *MORE, *more), SLOW))
    wait_for_shards(process, output, 4)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 3, stdout + stderr
    assert "run the same command again to go on" in " ".join(stdout.split())
    assert "Traceback" not in stdout + stderr
    check_nothing_half_written(output)
    time.sleep(2)  # workers of the cluster outlive their driver a little
    assert committed(output) < RECORDS
    done = run_cli(corpus.command(output, *MORE, *more))  # the cluster is as good as before
    assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(output) == reference


def finish_and_note(task: FinishTask) -> Iterator[Tick]:
    import ray

    Path(f"{task.output}.address").write_text(str(ray.get_runtime_context().gcs_address))
    yield from finish_shards(task)


def test_duplicates_are_dropped_on_the_cluster_too(
    cluster: Any, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = corpus.options(tmp_path / "here", docs_per_shard=40, dedupe="exact")
    convert_mmc4(here, quiet=True)
    monkeypatch.setattr(dedupe, "_WORKERS_FROM", 0)
    monkeypatch.setattr(dedupe, "finish_shards", finish_and_note)
    address = cluster.address
    there = corpus.options(
        tmp_path / "there", docs_per_shard=40, dedupe="exact", ray_address=address, workers=2
    )
    assert convert_mmc4(there, quiet=True).complete
    assert snapshot(tmp_path / "there") == snapshot(tmp_path / "here")
    assert (tmp_path / "there.address").read_text() == address


def test_features_of_a_cluster_are_those_of_one_process(
    cluster: Any, corpus: Corpus, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    convert_mmc4(corpus.options(shards, docs_per_shard=20), quiet=True)
    written = []
    # On a GPU, which this process does not have: with two shards in hand.
    for actors, address in ((0, None), (1, cluster.address)):
        output = tmp_path / f"features-{actors}"
        options = Features(
            shards=(str(shards),), output=str(output), actors=actors, ray_address=address
        )
        report = write_features(options, CountingEncoder)
        assert (report.failures, report.shards) == ([], 3)
        written.append({path.name: path.read_bytes() for path in sorted(output.iterdir())})
    assert written[0] == written[1]
    assert list(written[0]) == [f"{number:09d}{FEATURES}" for number in range(3)]


def test_a_lost_node_costs_its_units_another_run_and_nothing_else(
    cluster: Any, start: Start, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    more = ("--ray-address", cluster.address, "--log-json", str(tmp_path / "log"))
    process = start(hooked(corpus.command(output, *MORE, *more), SLOW))
    wait_for_shards(process, output, 1)
    (node, *_) = cluster.worker_nodes
    workers = wait_until_at_work(node)
    kill(node, "raylet")
    for pid in workers:  # which may outlive their raylet for as long as their unit takes
        os.kill(pid, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert snapshot(output) == reference
    assert leftovers(output) == []
    assert "1 unit was run again after a crash of its worker or node" in " ".join(stdout.split())
    assert "it is run again" in stderr
    assert '"event": "again"' in (tmp_path / "log").read_text()
    assert "raylet" not in stdout  # what Ray has to say of it is 20 lines of its log
    assert "Traceback" not in stdout + stderr


def test_a_lost_head_ends_the_run_in_one_line_and_the_same_command_goes_on(
    cluster: Any, start: Start, corpus: Corpus, reference: dict[str, str], tmp_path: Path
) -> None:
    """Ray by itself ends the process after 60 s, without a word to whom it runs for."""
    output = tmp_path / "out"
    more = ("--ray-address", cluster.address)
    slower = SLOW.replace("0.3", "3") + SOON
    process = start(hooked(corpus.command(output, *MORE, *more), slower))
    wait_for_shards(process, output, 3)
    kill(cluster.head_node, "gcs_server", "raylet")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 3, stdout + stderr
    (line,) = stderr.splitlines()
    assert line.startswith(f"mmdata: Ray {cluster.address}: its head at ")
    assert line.endswith("run the same command again when the cluster is up")
    check_nothing_half_written(output)
    assert 0 < committed(output) < RECORDS
    done = run_cli(corpus.command(output, *MORE, "--workers", "0"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert snapshot(output) == reference


def test_a_cluster_without_tokens_is_used_without_and_a_token_sent_to_it_is_one_line(
    corpus: Corpus, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, tasks of a run that sends one never answer."""
    with running_cluster("disabled", nodes=0) as made:
        command = corpus.command(tmp_path / "out", *MORE, "--ray-address", made.address)
        with monkeypatch.context() as sending:
            sending.setenv("RAY_AUTH_MODE", "token")
            done = run_cli(command)
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith(
            f"mmdata: Ray {made.address}: it asks for no token, and this side sends"
        )
        assert "run the same command with RAY_AUTH_MODE=disabled" in line
        done = run_cli(command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert snapshot(tmp_path / "out") == reference
