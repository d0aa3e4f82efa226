"""An environment with the newest versions that the bounds allow; `make test-latest` runs it.

    python -m tests.newest install   # by the interpreter of that environment: what pip takes today
    python -m tests.newest tell      # what is newer than the bounds, and what others hold back

Large packages that `.venv` has already are linked from there first, file by file: the same version
need not be downloaded and unpacked a second time. pip then decides: what has a newer version goes.
What nothing needs any more is removed, so that the environment is what a fresh one would be.

A release beyond the bounds is a warning, never a failure, and so is a registry that does not answer
once the environment is there.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
#: All but `download`: img2dataset holds webdataset, pandas and others at old versions.
EXTRAS = (
    "clip",
    "forecast",
    "hf",
    "lora",
    "nvml",
    "s3",
    "tensorboard",
    "torchao",
    "train",
    "wandb",
)
#: What the tests themselves need, with the bounds of the extra `dev`.
TOOLS = ("hypothesis", "jsonschema", "packaging", "pytest", "pytest-xdist")
#: Smaller packages are not worth a link.
_LARGE_BYTES = 20 * 2**20
_ASK_SECONDS = 60
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def wanted() -> list[Requirement]:
    """What the environment is made for: direct requirements of ours, with their bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(one for name in EXTRAS for one in extras[name])]
    tools = [one for one in extras["dev"] if Requirement(one).name in TOOLS]
    return list({Requirement(one).name: Requirement(one) for one in [*lines, *tools]}.values())


def install() -> int:
    """Bring the environment to what pip takes today; its exit code."""
    complete = Path(sys.prefix) / ".installed-latest"
    if not complete.exists():
        linked = link_large(ROOT / ".venv", Path(sys.prefix))
        print(f"taken over from .venv: {', '.join(sorted(linked)) or 'nothing'}", flush=True)
    tools = [str(one) for one in wanted() if one.name in TOOLS]
    done = subprocess.run(
        [*_PIP, "install", "--quiet", "--upgrade", "--upgrade-strategy", "eager",
         "-e", f"{ROOT}[{','.join(EXTRAS)}]", *tools], check=False
    )  # fmt: skip
    if done.returncode and not complete.exists():
        return done.returncode
    if done.returncode:
        print("WARNING: pip did not bring newer versions; the tests run with those that are there")
        return 0
    prune()
    complete.touch()
    return 0


def link_large(source: Path, target: Path) -> set[str]:
    """Link the large packages of one environment that we need into another; their names."""
    folder = _site_packages(source)
    if not folder.is_dir():
        return set()
    there = {_name(one): one for one in metadata.distributions(path=[str(folder)])}
    return {
        name
        for name in needed(wanted(), there)
        if _size(there[name]) >= _LARGE_BYTES and link(there[name], source, target)
    }


def link(package: metadata.Distribution, source: Path, target: Path) -> bool:
    """Link the files of one package; whether it has any on record."""
    files = package.files or []
    for file in files:
        path = Path(os.path.normpath(str(package.locate_file(file))))
        if not path.is_relative_to(source) or not path.is_file():
            continue
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.name == "bin" and path.parent.parent == source:
            _copy_script(path, place, source, target)
        elif not place.exists():
            try:
                os.link(path, place)
            except OSError:  # another disk, or one without links
                shutil.copy2(path, place)
    return bool(files)


def _copy_script(path: Path, place: Path, source: Path, target: Path) -> None:
    """Copy a command of an environment, which names its interpreter."""
    text = path.read_bytes().replace(os.fsencode(source / "bin"), os.fsencode(target / "bin"))
    place.write_bytes(text)
    shutil.copymode(path, place)


def prune() -> None:
    """Remove what nothing needs any more."""
    there = {_name(one): one for one in metadata.distributions()}
    kept = needed(wanted(), there) | {"mmdata", "pip", "setuptools"}
    extra = sorted(set(there) - kept)
    if extra:
        subprocess.run([*_PIP, "uninstall", "--quiet", "--yes", *extra], check=True)


def needed(roots: Iterable[Requirement], there: dict[str, metadata.Distribution]) -> set[str]:
    """Packages among those that are there which the roots need, and theirs, and so on."""
    found: set[tuple[str, str]] = set()
    left = [(canonicalize_name(one.name), extra) for one in roots for extra in ("", *one.extras)]
    while left:
        name, extra = left.pop()
        if name not in there or (name, extra) in found:
            continue
        found.add((name, extra))
        for line in there[name].requires or []:
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                left += [(canonicalize_name(one.name), more) for more in ("", *one.extras)]
    return {name for name, _ in found}


def tell() -> int:
    """Print what is newer than the bounds, what is held back, and who was not reached; 0 always."""
    requirements = wanted()
    with ThreadPoolExecutor(4) as pool:
        known = list(pool.map(released, [one.name for one in requirements]))
    for one, versions in zip(requirements, known, strict=True):
        for warning in warnings_of(one, Version(metadata.version(one.name)), versions):
            print(f"WARNING: {warning}")
    silent = [one.name for one, found in zip(requirements, known, strict=True) if not found]
    if silent:
        print(f"WARNING: pip could not tell the newest versions of: {', '.join(silent)}")
    return 0


def warnings_of(one: Requirement, installed: Version, versions: Iterable[Version]) -> list[str]:
    """What there is to say about one requirement, of which these versions are released."""
    final = sorted(version for version in versions if not version.is_prerelease)
    allowed = [version for version in final if one.specifier.contains(version)]
    found = []
    if final and final[-1] not in allowed:
        found.append(
            f"{one.name} {final[-1]} is out, beyond the bounds of pyproject.toml "
            f"({one.specifier}): try it, and raise them"
        )
    if allowed and installed < allowed[-1]:
        found.append(
            f"{one.name} {allowed[-1]} is allowed, but another package holds it at {installed}"
        )
    return found


def released(name: str) -> list[Version]:
    """The versions for this Python that pip knows of a package; none without an answer."""
    try:
        done = subprocess.run(
            [*_PIP, "index", "versions", name],
            capture_output=True, text=True, timeout=_ASK_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return []
    return versions_in(done.stdout) if done.returncode == 0 else []


def versions_in(answer: str) -> list[Version]:
    """The versions in what `pip index versions` prints."""
    found = re.search(r"^Available versions: (.+)$", answer, re.MULTILINE)
    versions = []
    for text in found[1].split(", ") if found else []:
        with suppress(InvalidVersion):  # of old releases, before versions had rules
            versions.append(Version(text))
    return versions


def _site_packages(environment: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment / "lib" / version / "site-packages"


def _name(package: metadata.Distribution) -> str:
    return canonicalize_name(package.metadata["Name"])


def _size(package: metadata.Distribution) -> int:
    return sum(file.size or 0 for file in package.files or [])


def main() -> int:
    """One of the two steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("step", choices=("install", "tell"))
    return {"install": install, "tell": tell}[parser.parse_args().step]()


if __name__ == "__main__":
    sys.exit(main())
