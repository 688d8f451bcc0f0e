"""The built site in a browser: no errors, no missing parts, a search that finds, a layout that holds.

make look     # builds the site and runs this; needs Chromium
"""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

SITE = Path(__file__).parents[2] / "docs/_build/html"
PICTURES = SITE.parent / "pictures"
WIDTHS = {390: 844, 1440: 900}
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if "_modules" not in path.parts and "_static" not in path.parts
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    assert any(found), "there is no Chromium here; Debian's package is called chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=next(filter(None, found)), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def faults() -> list[str]:
    return []


def failed(asked: Any) -> list[str]:
    """What to note of a request without answer; those that the browser dropped as it left a page are none."""
    return [] if "ERR_ABORTED" in (asked.failure or "") else [f"{asked.url} failed: {asked.failure}"]


@pytest.fixture
def page(browser: Browser, faults: list[str], address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A window of the width that the test asks for; whatever goes wrong in it is noted."""
    width = getattr(request, "param", 1440)
    context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]})
    opened = context.new_page()
    opened.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("requestfailed", lambda asked: faults.extend(failed(asked)))
    opened.on("response", lambda got: faults.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((address, "data:")) else faults.append(f"asks {asked.url}"),
    )
    yield opened
    context.close()


def test_the_site_is_built() -> None:
    assert len(PAGES) > 60


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_pages_load_and_hold_their_layout(page: Page, name: str, address: str, faults: list[str]) -> None:
    page.goto(f"{address}/{name}", wait_until="networkidle")
    width = page.viewport_size["width"]  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
    pictures = (
        "[...document.images].filter(i => i.loading != 'lazy' && !(i.complete && i.naturalWidth)).map(i => i.src)"
    )
    assert page.evaluate(pictures) == []
    place = PICTURES / str(width) / f"{name.replace('/', '--').removesuffix('.html')}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=place, full_page=True)
    assert faults == []


def test_every_page_is_reached_by_the_navigation(page: Page, address: str) -> None:
    seen, waiting = set(), ["index.html"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        page.goto(f"{address}/{name}")
        links = page.eval_on_selector_all(
            "nav.bd-links a, .toctree-wrapper a, a.prev-page, a.next-page, main a", "found => found.map(a => a.href)"
        )
        inner = {link.removeprefix(f"{address}/").partition("#")[0] for link in links if link.startswith(address)}
        waiting += [link for link in inner - seen - set(waiting) if link.endswith(".html") and "_modules" not in link]
    assert set(PAGES) - seen - {"genindex.html", "py-modindex.html", "search.html"} == set()


@pytest.mark.parametrize("asked", ["skip connection", "AblateBlock", "noise floor", "DamageError"])
def test_search_finds(page: Page, address: str, asked: str, faults: list[str]) -> None:
    page.goto(f"{address}/search.html?q={asked.replace(' ', '+')}")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert page.locator("#search-results li").count() >= 3
    first = page.locator("#search-results li a").first
    first.click()
    page.wait_for_load_state("networkidle")
    assert asked.split(maxsplit=1)[0].lower() in page.inner_text("main").lower()
    assert faults == []
