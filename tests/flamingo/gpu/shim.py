"""Backward passes on the pretended GPU: a driver without devices, compiled when it is needed.

torch's engine asks the driver whether a device has a context before it runs a backward pass for it.
`shim.c` makes torch think that it has devices from a moment on, `libcuda.c` is a driver all of
whose calls fail. A process has to be started with them (`environment`).
"""

import os
import shutil
import subprocess
from pathlib import Path

_SOURCES = Path(__file__).with_name("native")


def find_compiler() -> str | None:
    """A C compiler on the path."""
    return next((found for name in ("gcc", "cc", "clang") if (found := shutil.which(name))), None)


def compile_shim(folder: Path) -> Path:
    """Compile both into a folder, if they are not there; returns the folder.

    Raises:
        RuntimeError: there is no compiler.
    """
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("no C compiler (gcc, cc or clang): backward passes cannot be pretended")
    for source, made in (("shim.c", "shim.so"), ("libcuda.c", "libcuda.so.1")):
        if not (folder / made).exists():
            command = [compiler, "-shared", "-fPIC", "-o", str(folder / made)]
            subprocess.run([*command, str(_SOURCES / source)], check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process that is to have what `compile_shim` made in a folder."""
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {
        **os.environ,
        "LD_PRELOAD": str(folder / "shim.so"),
        "LD_LIBRARY_PATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }


def rerun(folder: Path, command: list[str]) -> int:
    """Run a command with the shim, compiled into a folder; returns its exit code."""
    return subprocess.run(command, env=environment(compile_shim(folder)), check=False).returncode
