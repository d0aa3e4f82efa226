"""A real browser for the tests that look at pages: one that is installed, or playwright's own.

`python -m tests.browser` (make test runs it) gets playwright's chromium where no browser is found.
Without one, and without a network to get it from, the tests that need it are skipped and say so.
"""

import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WHY_NOT = (
    "no browser: chromium or google-chrome is not on the PATH and playwright has none "
    "(`playwright install --with-deps chromium`, or Debian's package chromium)"
)


@functools.cache
def find_browser() -> str | None:
    """Path of a chromium or chrome; None where there is none."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


@contextmanager
def running_browser() -> Iterator["Browser"]:
    """A browser without a window. Its own sandbox is off: containers do not let it have one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


def main() -> None:
    """Get a browser where there is none; never fails, since the tests say what is missing."""
    if find_browser():
        return
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{WHY_NOT}; its tests are skipped", file=sys.stderr)


if __name__ == "__main__":
    main()
