"""What every page of ours is: one HTML file that needs nothing else and reaches for nothing.

Its Content-Security-Policy allows the one style and the one script that it carries, by their
hashes, and pictures from data: URIs; so even markup that got in could neither run nor fetch.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files

from mmdata.html.markup import Child, Markup, element, joined, raw


def page(
    *children: Child,
    title: str,
    kind: str,
    about: str,
    sections: Mapping[str, str],
    made_by: str,
    styles: Sequence[str] = (),
) -> bytes:
    """The page, as UTF-8.

    Args:
        children: its sections.
        title: the heading.
        kind: of the page, as `Dataset report`.
        about: a line below the heading.
        sections: identity -> words, for the links at the top.
        made_by: the command.
        styles: style sheets of our own, behind the common one.
    """
    style, script = "\n".join((asset("report.css"), *styles)), asset("report.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_source(style)}",
            f"script-src {_source(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{title} - {kind.lower()}"),
        element("link", rel="icon", href="data:,"),
        raw("style", style),
        raw("script", script),
    )
    body = element(
        "body",
        element("a", "Skip to the figures", href="#main", class_="skip"),
        _header(title, kind, about, sections),
        element("main", *children, id="main"),
        element("footer", element("p", f"Made by {made_by}; it loads nothing from anywhere.")),
    )
    document = joined([Markup("<!doctype html>\n"), element("html", head, body, lang="en"), "\n"])
    return document.encode("utf-8")


@cache
def asset(name: str, package: str = "mmdata.report") -> str:
    """A file of ours that goes into the page."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def _source(content: str) -> str:
    """How a policy names content of the page: by its hash."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode('ascii')}'"


def _header(title: str, kind: str, about: str, sections: Mapping[str, str]) -> Markup:
    links = [
        element("li", element("a", words, href=f"#{identity}"))
        for identity, words in sections.items()
    ]
    themes = [
        element(
            "label",
            element("input", type="radio", name="theme", value=value, checked=value == "auto"),
            element("span", words),
        )
        for value, words in (("auto", "Auto"), ("light", "Light"), ("dark", "Dark"))
    ]
    theme = element("legend", "Theme", class_="hidden")
    return joined(
        [
            element(
                "header",
                element(
                    "div",
                    element("p", kind, class_="kicker"),
                    element("h1", title),
                    element("p", about, class_="muted"),
                ),
                element("fieldset", theme, themes, id="theme"),
                class_="top",
            ),
            element("nav", element("ul", links), aria_label="Sections"),
        ]
    )
