"""The explorer in Chromium: every control, at the width of a phone and of a screen, in light and in dark.

make test WORKERS=0 ARGS="-m slow tests/explore"     # needs Chromium; pictures are in the folder that pytest names
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIDTHS = {390: 844, 1440: 900}
VIEWS = ("curves", "images", "factors", "trajectory", "plan", "audit")
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def serve(store: Path) -> Iterator[str]:
    """Address of the command, as a user starts it."""
    command = [sys.executable, "-m", "causalunet", "explore", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        yield found.group().rstrip("/")
        process.terminate()


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    yield from serve(store)


@pytest.fixture(scope="module")
def hostile_address(hostile: Path) -> Iterator[str]:
    yield from serve(hostile)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    if not any(found):
        pytest.skip("there is no Chromium here; Debian's package is called chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=next(filter(None, found)), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def page(browser: Browser, faults: list[str], request: pytest.FixtureRequest) -> Iterator[Page]:
    """A window of the width that the test asks for; whatever goes wrong in it is noted."""
    width = getattr(request, "param", 1440)
    context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]}, accept_downloads=True)
    context.set_default_timeout(60_000)
    opened = context.new_page()
    opened.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("response", lambda got: faults.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
    local = ("http://localhost:", "data:", "blob:")
    opened.on("request", lambda asked: None if asked.url.startswith(local) else faults.append(f"asks {asked.url}"))
    yield opened
    context.close()


def look(page: Page, address: str, query: str = "") -> None:
    page.goto(f"{address}/?{query}", timeout=120_000)
    page.locator(".number").wait_for()


def shown(page: Page, text: str) -> None:
    """Wait until a text is on the page."""
    page.get_by_text(text).first.wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_views_hold_their_layout(
    page: Page, view: str, theme: str, address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    look(page, address, f"view={view}&intervention=ablate_block+bottom%3D4+18-15&theme={theme}")
    page.wait_for_timeout(1500)
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(14, 18, 22)") == (theme == "dark")
    page.screenshot(path=tmp_path_factory.getbasetemp() / f"{view}-{width}-{theme}.png", full_page=True)


@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_every_control(page: Page, address: str) -> None:
    look(page, address, "intervention=ablate_block+bottom%3D4+12-9&sample=2")
    shown(page, "ablate_block bottom=4 12-9 · sample 2")
    page.get_by_label("Depth").select_option("bottom 2")
    shown(page, "ablate_block bottom=2 12-9 · sample 2")
    page.get_by_label("Outcome").select_option("PSNR (dB)")
    page.wait_for_url("**outcome=psnr**")
    length, start, sample = 0, 1, 2  # in the order on the page
    for slider, key, text in (
        (start, "ArrowRight", "ablate_block bottom=2 6-3 ·"),
        (length, "ArrowLeft", "ablate_block bottom=2 6-5 ·"),
        (sample, "ArrowRight", "sample 3"),
    ):
        handle = page.locator(".noUi-handle").nth(slider)
        handle.focus()
        handle.press(key)
        shown(page, text)
    page.get_by_label("Kind").select_option("ablate_skip")
    shown(page, "ablate_skip top=1 6-5 ·")
    page.wait_for_url("**intervention=ablate_skip+top%3D1+6-5**")
    for view in VIEWS:
        page.get_by_role("button", name=view.capitalize(), exact=True).click()
        page.wait_for_url(f"**view={view}**")
    page.go_back()
    page.wait_for_url("**view=plan**")
    shown(page, "What the intervention edits")
    page.get_by_role("button", name="Light or dark").click()
    page.wait_for_url("**theme=dark**")
    page.locator(".number").wait_for()
    page.get_by_role("button", name="Light or dark").click()
    page.wait_for_url("**theme=light**")
    page.locator(".number").wait_for()


def test_keys(page: Page, address: str) -> None:
    look(page, address, "intervention=ablate_block+bottom%3D4+12-9&sample=2")
    page.wait_for_timeout(1500)
    for key, text in (
        ("ArrowRight", "bottom=4 6-3 · sample 2"),
        ("ArrowLeft", "bottom=4 12-9 · sample 2"),
        ("ArrowDown", "bottom=4 12-9 · sample 3"),
        ("PageUp", "bottom=2 12-9 · sample 3"),
        ("2", "The sample without and with"),
    ):
        page.keyboard.press(key)
        shown(page, text)


def test_clicks_on_tiles_go_there(page: Page, address: str) -> None:
    look(page, address, "view=images&intervention=ablate_block+bottom%3D4+12-9&sample=2")
    page.wait_for_timeout(2000)
    film = page.locator(".bk-Figure").last.bounding_box()
    page.mouse.click(film["x"] + film["width"] * 5 / 6, film["y"] + film["height"] / 3)
    shown(page, "ablate_block bottom=4 6-3 · sample 2")


@pytest.mark.parametrize("view", ["curves", "images"])
def test_figures_and_code_are_taken_along(page: Page, address: str, view: str) -> None:
    look(page, address, f"view={view}&intervention=ablate_block+bottom%3D4+12-9&sample=2")
    page.wait_for_timeout(2000)
    begins = {"PNG": b"\x89PNG", "SVG": b"<svg", "HTML": b"<!DOCTYPE html>"}
    for kind, begin in begins.items():
        with page.expect_download() as waited:
            page.get_by_text(kind, exact=True).click()
        content = Path(waited.value.path()).read_bytes()
        assert begin in content[:200]
        assert len(content) > 2000
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy code").click()
    page.wait_for_timeout(300)
    copied: Any = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("results = cu.open_results(")
    assert len(copied.splitlines()) == 2


@pytest.mark.parametrize("view", VIEWS)
def test_texts_of_a_store_do_no_harm(page: Page, hostile_address: str, view: str) -> None:
    look(page, hostile_address, f"view={view}")
    page.get_by_label("Kind").select_option("ablate_block")
    shown(page, "<script>window.harmed=2</script>")
    page.wait_for_timeout(1000)
    for figure in page.locator(".bk-Figure").all():
        box = figure.bounding_box()
        for share in (0.2, 0.35, 0.5, 0.65, 0.8):
            page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2.5)
            page.wait_for_timeout(80)
    assert page.evaluate("window.harmed") is None
    assert page.evaluate("document.title") == "causalunet explore"
