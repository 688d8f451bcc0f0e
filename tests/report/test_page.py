"""The page: one file that holds together as HTML, shows what was stored, and runs nothing that it shows."""

from __future__ import annotations

import base64
import io
import itertools
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console

from causalunet.analysis import mean_curve, noise_floor
from causalunet.design import AblateBlock, SkipSteps, Window, sweep
from causalunet.errors import SpecError
from causalunet.report import plot_pairs, report, table_by_start
from causalunet.results import open_results
from tests.analysis.synthetic import edited, write_results
from tests.report.stores import rewrite_text, with_trajectory

ATTACK = "<script>alert(1)</script>"
HANDLER = '"><img src=x onerror=alert(2)>'
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """What a page holds: every element with its attributes, every text with the elements that it is in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, tag: str) -> list[str]:
        return [data.strip() for within, data in self.texts if tag in within and data.strip()]


def make(path: Path, **options: object) -> xr.DataTree:
    interventions = (
        *sweep(AblateBlock, bottom=(2, 4), start=(20, 10, 5), length=3),
        *sweep(SkipSteps, start=(19, 9), length=2),
        AblateBlock(bottom=3, window=Window(15, 3), label=HANDLER),
    )
    write_results(path, interventions, samples=6, block=2, **options)
    with edited(path) as root:
        root.attrs.update(
            {
                "unet_calls_planned": 1234,
                "unet_calls_naive": 2468,
                "versions": {"causalunet": "9.8.7", "python": ATTACK},
                "model_fingerprint": "f1f2f3",
                "identity": {"clip": True, "noise_schedule": "1000 timesteps", "tokens": {"x": "not told"}},
                "ssim": {"window": "Gaussian 11 x 11"},
            }
        )
        root["audit/seconds"][:] = 12.5 / 6
        root["audit/unet_calls"][:] = 200
    with_trajectory(path)
    return rewrite_text(path, "prompt", ATTACK)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return make(tmp_path_factory.mktemp("page") / "results.zarr")


@pytest.fixture(scope="module")
def written(results: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "folder" / "page.html"
    assert report(results, path, title=f"Title {ATTACK}", question=f"When? {HANDLER}") == path
    return path


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written)


@pytest.mark.thorough
def test_hostile_text_stays_text(page: Page) -> None:
    assert not page.of("script")
    assert ATTACK not in page.source
    assert not [attrs for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert {str(attrs["src"])[:11] for attrs in page.of("img")} == {"data:image/"}
    assert page.text("h1") == [f"Title {ATTACK}"]
    assert f"When? {HANDLER}" in page.text("p")
    assert any(ATTACK in str(attrs["alt"]) for attrs in page.of("img"))
    assert any(HANDLER in text for text in page.text("pre"))


@pytest.mark.thorough
def test_nothing_comes_from_elsewhere(page: Page) -> None:
    for tag, attrs in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/", "#")), f"<{tag} {name}={value!r:.60}>"
    assert "url(" not in "".join(page.text("style"))
    assert "@import" not in "".join(page.text("style"))
    (policy,) = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert str(policy).startswith("default-src 'none'")


def test_page_is_accessible(page: Page) -> None:
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("img")) >= 10
    assert all(len(str(attrs.get("alt") or "")) > 20 for attrs in page.of("img"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {attrs.get("scope") for attrs in page.of("th")} == {"row", "col"}
    assert len(page.of("caption")) == len(page.of("table")) == 2


def test_contents_lead_somewhere(page: Page) -> None:
    identifiers = Counter(str(attrs["id"]) for _, attrs in page.elements if "id" in attrs)
    assert set(identifiers.values()) == {1}
    targets = [str(attrs["href"])[1:] for attrs in page.of("a")]
    assert set(targets) <= set(identifiers)
    assert {"plan", "figures", "tables", "provenance"} <= set(targets)
    labelled = [str(attrs["aria-labelledby"]) for attrs in page.of("section")]
    assert set(labelled) <= set(identifiers)


def test_sections_fit_the_study(page: Page) -> None:
    assert page.text("h3") == [
        "Interventions",
        "Samples",
        "Trends by start",
        "Depths",
        "Images",
        "Distributions",
        "Factors",
        "Estimates",
        "Schedule",
        "Mean SSIM by start step",
        "Noise floor",
    ]


def test_plan_and_provenance_are_those_of_the_store(results: xr.DataTree, page: Page) -> None:
    facts = " | ".join(page.text("dd"))
    for part in (
        "synthetic",
        "20 steps",
        "guidance scale 3.0",
        "6 of 6 prompts; 6 complete",
        "10: 7 ablate_block, 2 skip_steps, 1 null",
        "1,234 shared, 2,468 if every run started from noise (2.00 times fewer)",
        "causalunet 9.8.7",
        "f1f2f3",
        "clip True, noise schedule 1000 timesteps",
        "12.5 s",
        "window Gaussian 11 x 11",
        str(results.attrs["digest"]),
        str(results.attrs["created_at"]),
        f"{float(noise_floor(results)['worst']):.6f}",
    ):
        assert part in facts
    (study,) = page.text("pre")
    assert '"name": "synthetic"' in study


def test_table_by_start_holds_the_means(results: xr.DataTree, page: Page) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", page.source)
    (row,) = [row for row in rows if row.startswith('<th scope="row">from 10</th>')]
    curve = mean_curve(results, kind="ablate_block", bottom=2).sel(start=10)
    low, high = curve["interval"].values * 1000
    low, high = math.floor(low) / 1000, math.ceil(high) / 1000
    assert f"<td>{float(curve['mean']):.3f} [{low:.3f}, {high:.3f}]</td>" in row
    assert "<td>-</td>" in row  # no steps are skipped from there


def test_figures_can_be_decoded(page: Page) -> None:
    kinds = Counter()
    for attrs in page.of("img"):
        head, _, content = str(attrs["src"]).partition(";base64,")
        data = base64.b64decode(content, validate=True)
        kinds[head] += 1
        if head == "data:image/png":
            pixels = matplotlib.image.imread(io.BytesIO(data))
            ratio = pixels.shape[1] / pixels.shape[0]
        else:
            assert b"<script" not in data.lower()
            width, height = (float(x) for x in re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', data).groups())
            ratio = width / height
        assert ratio == pytest.approx(int(str(attrs["width"])) / int(str(attrs["height"])), rel=0.02)
    assert min(kinds["data:image/png"], kinds["data:image/svg+xml"]) >= 4


def test_own_figures_are_shown_instead(results: xr.DataTree, tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2], [3, 4])
    page = Page(report(results, tmp_path / "page.html", figures={f"Mine {ATTACK}": figure}))
    (image,) = page.of("img")
    assert image["alt"] == f"Mine {ATTACK}"
    assert f"Mine {ATTACK}" in page.text("figcaption")
    assert page.text("h1") == ["synthetic"]


def test_only_pages_are_overwritten(results: xr.DataTree, written: Path, tmp_path: Path) -> None:
    before = written.read_bytes()
    figure = {"a": Figure(figsize=(1, 1))}
    report(results, written, figures=figure)
    assert written.read_bytes() != before
    again = written.read_bytes()
    report(results, written, figures=figure)
    assert written.read_bytes() == again
    note = tmp_path / "notes.html"
    note.write_text("mine")
    with pytest.raises(SpecError, match="not a page that report"):
        report(results, note, figures=figure)
    assert note.read_text() == "mine"
    assert Page(report(results, note, figures=figure, force=True)).of("img")
    with pytest.raises(SpecError, match=r"End the path in \.html"):
        report(results, tmp_path / "page.pdf")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(SpecError, match="is a folder"):
        report(results, tmp_path / "folder.html")
    with pytest.raises(SpecError, match="got Dataset"):
        report(results["baseline"].to_dataset(), tmp_path / "page.html")


@pytest.mark.thorough
def test_incomplete_study_without_factors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = make(tmp_path / "results.zarr", blocks_done=1, factors=False)
    page = Page(report(results, tmp_path / "page.html"))
    assert any("2 of 6 samples are complete" in text for text in page.text("p"))
    headings = page.text("h3")
    assert "Trends by start" in headings
    assert "Factors" not in headings
    assert any("n = 2" in text for text in page.text("caption"))
    assert "nan" not in " ".join(page.text("td")).lower()
    assert capsys.readouterr() == ("", "")


@pytest.mark.thorough
def test_study_of_one_start_has_curves_along_length(tmp_path: Path) -> None:
    path = tmp_path / "results.zarr"
    lengths = sweep(AblateBlock, bottom=2, start=15, length=(1, 2, 4))
    write_results(path, lengths, samples=2, block=2, factors=False)
    results = with_trajectory(path)
    page = Page(report(results, tmp_path / "page.html"))
    headings = page.text("h3")
    assert "Lengths and relaxations" in headings
    assert not {"Trends by start", "Depths", "Images", "Left out"} & set(headings)
    table = page.source[page.source.index('id="tables"') :]
    rows = re.findall(r'<th scope="row">(.*?)</th>', table)
    assert rows == [f"ablate_block bottom=2 length={length}" for length in (1, 2, 4)]
    assert '<th scope="col">from 15</th>' in table


def test_study_of_which_nothing_was_run_yet(tmp_path: Path) -> None:
    results = make(tmp_path / "results.zarr", blocks_done=0)
    page = Page(report(results, tmp_path / "page.html"))
    assert any("0 of 6 samples are complete" in text for text in page.text("p"))
    assert page.text("h3") == ["Interventions", "Schedule"]


@pytest.mark.thorough
def test_what_cannot_be_shown_is_told(tmp_path: Path) -> None:
    path = tmp_path / "results.zarr"
    write_results(path, sweep(SkipSteps, start=(19, 9), length=2), samples=1, block=1)  # without estimates
    page = Page(report(open_results(path), tmp_path / "page.html"))
    told = page.text("li")
    assert any("Estimates: The estimates of 1 of 1 samples" in text for text in told)
    assert any(text.startswith("Table by start:") and "needs at least 2" in text for text in told)
    assert np.all([attrs["alt"] for attrs in page.of("img")])


@pytest.mark.thorough
def test_control_characters_of_labels_are_spelt_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the page nor a warning of matplotlib (an error here) hands ESC and BEL on."""
    bad = "cut\x1b[2J\x07"
    path = tmp_path / "results.zarr"
    cuts = [AblateBlock(bottom=2, window=Window(start, 3), label=f"{bad}{start}") for start in (20, 10)]
    write_results(path, cuts, samples=3, block=3)
    with_trajectory(path)
    results = rewrite_text(path, "prompt", "a\x1b]0;title\x07")
    page = report(results, tmp_path / "page.html", title=f"title {bad}").read_text()
    table = table_by_start(results, {bad: {"kind": "ablate_block"}})
    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    console.print(table)
    shown = capfd.readouterr()
    for text in (page, console.file.getvalue(), shown.out, shown.err):
        assert not {"\x1b", "\x07"} & set(text)
    assert "title cut\\x1b[2J\\x07" in page
    figure = plot_pairs(results, {"intervention": f"{bad}20"}, best=1, worst=1)
    figure.savefig(io.BytesIO())
    assert any("\\x1b" in text.get_text() for text in figure.findobj(matplotlib.text.Text))
