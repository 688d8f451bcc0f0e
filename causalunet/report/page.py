"""A study as one page: what was asked, what was done, what came out, and what made it. No network, no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from causalunet.analysis.described import described
from causalunet.analysis.direction import sign_of
from causalunet.analysis.selection import check_variable, outcomes
from causalunet.design.limits import plain
from causalunet.design.outcomes import Outcome
from causalunet.errors import CausalUNetError, SpecError
from causalunet.paths import given_path
from causalunet.report.embed import Drawn, embed
from causalunet.report.facts import (
    TableOf,
    complete_count,
    failed_count,
    floor_facts,
    plan_facts,
    provenance_facts,
    start_table,
    study_json,
    sweep_table,
)
from causalunet.report.fitting import fitting_figures

__all__ = ["report"]

_MARK = '<meta name="generator" content="causalunet.report">'
_HEAD = 2000  # bytes of a page in which its mark stands


def report(
    results: xr.DataTree,
    path: str | Path,
    *,
    title: str | None = None,
    question: str | None = None,
    figures: Mapping[str, Figure] | None = None,
    variable: str | Outcome = "ssim",
    threshold: float | None = None,
    force: bool = False,
) -> Path:
    """Write a study as one HTML page that needs no network and runs no scripts.

    Parameters
    ----------
    results : xarray.DataTree
        Complete or not; of incomplete studies the samples that were run whole are shown, and the page says so.
    path : path
        Ending in ``.html``. Folders are made.
    title : str, optional
        By default the name of the study.
    question : str, optional
        What the study is to answer.
    figures : mapping of str to matplotlib Figure, optional
        Captions to figures, shown instead of those chosen by what the study holds.
    variable : str or Outcome
        Outcome that figures and tables are of, with one number per cell and a direction.
    threshold : float, optional
        On it, for the figures; by default its own, which SSIM has: 0.8.
    force : bool
        Replace a file that is not such a page.

    Returns
    -------
    Path
        The file. The same results give the same bytes with the same versions of the packages.

    Raises
    ------
    SpecError
        What is given is not opened results, the path does not end in ``.html``, or it holds something else.
    """
    path = given_path(path)
    _check(results, path, force)
    complete = complete_count(results)
    variable = check_variable(cells := outcomes(results), variable)
    sign_of(cells[variable])
    told = described(variable, cells[variable].attrs)
    if figures is None:
        limit = told.threshold if threshold is None else threshold
        drawn, left_out = fitting_figures(results, variable=variable, threshold=limit, complete=complete)
    else:
        drawn, left_out = [Drawn("Figures", caption, caption, figure) for caption, figure in figures.items()], []
    plan = plan_facts(results)
    context = {
        "mark": _MARK,
        "title": title or dict(plan)["Study"],
        "question": question,
        "complete": complete,
        "failed": failed_count(results),
        "samples": results["baseline"].sizes["sample"],
        "plan": plan,
        "sweeps": sweep_table(results),
        "groups": _groups(drawn),
        "outcome": told.title,
        "tables": _tables(results, variable, left_out) if complete else [],
        "floor": _floor(results, variable, left_out) if complete else [],
        "left_out": left_out,
        "provenance": provenance_facts(results),
        "study": study_json(results),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_render(context), encoding="utf-8")
    return path


def _render(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("causalunet.report", "")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(context)


def _plain(value: Any) -> Any:
    """Spell out control characters of text from stores, which browsers and editors drop or act on."""
    return plain(value) if type(value) is str else value


def _groups(drawn: list[Drawn]) -> list[dict[str, Any]]:
    """Figures by the title of their section, numbered through."""
    numbered = list(enumerate(drawn, start=1))
    return [
        {"title": title, "figures": [{"number": number, "of": embed(one)} for number, one in members]}
        for title, members in groupby(numbered, key=lambda entry: entry[1].title)
    ]


def _tables(results: xr.DataTree, variable: str, left_out: list[str]) -> list[TableOf]:
    try:
        return [start_table(results, variable, allow_incomplete=True)]
    except CausalUNetError as error:
        left_out.append(f"Table by start: {error}")
        return []


def _floor(results: xr.DataTree, variable: str, left_out: list[str]) -> list[tuple[str, str]]:
    try:
        return floor_facts(results, variable, allow_incomplete=True)
    except CausalUNetError as error:
        left_out.append(f"Noise floor: {error}")
        return []


def _check(results: xr.DataTree, path: Path, force: bool) -> None:
    if not isinstance(results, xr.DataTree) or not {"baseline", "outcomes"} <= set(results.children):
        raise SpecError(
            f"A page needs results with the groups 'baseline' and 'outcomes'; got {type(results).__name__}. "
            "Give what study.run(path) or causalunet.open_results(path) returned."
        )
    if path.suffix.lower() not in (".html", ".htm"):
        raise SpecError(f"A page was asked at {path}, which browsers will not open as one. End the path in .html.")
    if path.is_dir():
        raise SpecError(f"A page was asked at {path}, which is a folder. Give the path of a file in it.")
    if path.exists() and not force:
        with path.open("rb") as file:
            if _MARK.encode() not in file.read(_HEAD):
                raise SpecError(
                    f"{path} exists and is not a page that report() wrote. Choose another path, or replace it with "
                    "force=True."
                )
