"""A command's family is counted whole: also what nobody waited for, and its peaks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

#: A child that burns CPU and holds memory, left behind by its parent, which ends at once.
BURN = """
import pathlib, sys, time
block = bytearray(80 << 20)
start = time.process_time()
while time.process_time() < start + 1.0:
    pass
time.sleep(0.5)
pathlib.Path(sys.argv[1]).touch()
"""
LEAVE = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN!r}, sys.argv[1]])"
#: As Ray's raylet and its workers: the middle one ends, the driver goes on meanwhile.
DRIVER = f"""
import pathlib, subprocess, sys, time
subprocess.run([sys.executable, "-c", {LEAVE!r}, sys.argv[1]])
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
print("done")
"""
#: In a process of its own: `watch` makes its process adopt orphans for good.
MEASURE = f"""
import json, sys
from benchmarks.processes import watch
family = watch([sys.executable, "-c", {DRIVER!r}, sys.argv[1]])
peaks = [seen.peak_bytes >> 20 for seen in family.processes.values()]
print(json.dumps([family.output, family.cpu_seconds, max(peaks)]))
"""


def test_the_cpu_and_memory_of_an_orphan_count(tmp_path: Path) -> None:

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "burnt")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    output, cpu_seconds, peak_mib = json.loads(done.stdout)
    assert output == "done\n"
    assert 0.8 <= cpu_seconds <= 2.0
    assert 80 <= peak_mib <= 200


def test_a_command_that_fails_stops_the_benchmark() -> None:
    code = (
        "import sys; from benchmarks.processes import watch; watch([sys.executable, '-c', '1/0'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "exit code 1" in done.stderr
