"""Every link, anchor and picture of the built site leads somewhere, and what pages show is meant to be read.

No browser is needed:

python docs/_ext/check_site.py docs/_build/html
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

_ATTRIBUTES = {
    "a": "href",
    "img": "src",
    "link": "href",
    "script": "src",
    "source": "src",
}
_WIDEST = 88  # characters of a line of code that a window of 1440 pixels shows whole
_DRAWN_OVER = re.compile(
    r"\x1b|\r|[━╸╺]{3,}.*\d+/\d+|\d+%\|.*\d+/\d+|^[\w -]+: [\d,]+( of [\d,]+)?, .* per second"
)


def pages_of(site: Path) -> list[Path]:
    """Pages of a site, without the templates that its theme leaves among the static files."""
    return [
        path
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.relative_to(site).parts
    ]


def broken(site: Path) -> Iterator[str]:
    """Say which references of a page lead nowhere."""
    pages = {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in pages_of(site)
    }
    anchors = {
        path: {tag["id"] for tag in page.find_all(id=True)}
        for path, page in pages.items()
    }
    for path, page in pages.items():
        name = path.relative_to(site)
        for tag, attribute in _ATTRIBUTES.items():
            for element in page.find_all(tag):
                if problem := _problem(str(element.get(attribute, "")), path, anchors):
                    yield f"{name}: {problem}"
        for image in page.find_all("img"):
            if image.get("alt") is None:
                yield f"{name}: {image.get('src')} has no text for those who cannot see it"
        yield from (f"{name}: {problem}" for problem in unreadable(page))


def unreadable(page: BeautifulSoup) -> Iterator[str]:
    """Say which blocks have code that is cut, or lines of progress that a terminal would have drawn over."""
    for block in page.find_all("pre"):
        lines = block.get_text().split("\n")
        if drawn := sum(bool(_DRAWN_OVER.search(line)) for line in lines):
            yield f"{drawn} lines of progress are shown, such as {lines[0][:60]!r}"
        if not block.find_parent(
            class_="cell_output"
        ):  # what cells print can be scrolled
            yield from (
                f"cut after {_WIDEST} characters: {line}"
                for line in lines
                if len(line) > _WIDEST
            )


def _problem(target: str, path: Path, anchors: dict[Path, set[str]]) -> str:
    parts = urlsplit(target)
    if not target or parts.scheme or parts.netloc or target == "#":
        return ""
    place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if place.is_dir():
        place /= "index.html"
    if not place.exists():
        return f"{target} is not there"
    if (
        parts.fragment
        and place in anchors
        and unquote(parts.fragment) not in anchors[place]
    ):
        return f"{target} has no such place"
    return ""


if __name__ == "__main__":
    found = sorted(set(broken(Path(sys.argv[1]).resolve())))
    print("\n".join(found) or "Every link and picture of the site is there.")
    sys.exit(bool(found))
