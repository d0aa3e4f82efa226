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

#: Right edge of what reaches farthest, but for what scrolls in a box of its own.
WIDEST = """Math.max(...Array.from(document.querySelectorAll('main *'))
    .filter(e => !e.parentElement.closest('.scroll, svg, .hidden') && !e.matches('.hidden'))
    .map(e => e.getBoundingClientRect().right))"""

#: Texts whose contrast with the nearest background below 4.5, each kind once.
FAINT = """(() => {
    const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = (rgb) => {
        const part = rgb.slice(0, 3).map((v) => {
            const c = v / 255;
            return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const found = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim();
        const element = walker.currentNode.parentElement;
        if (!text || !element.checkVisibility() || element.closest('.hidden, script, title')) {
            continue;
        }
        const style = getComputedStyle(element);
        const colour = parse(element.closest('svg') ? style.fill : style.color);
        const pair = [light(colour), light(behind(element))].sort((a, b) => b - a);
        const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
        if (contrast < 4.5) {
            found.set(element.className + style.color, [text.slice(0, 40), contrast]);
        }
    }
    return Array.from(found.values());
})()"""


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
