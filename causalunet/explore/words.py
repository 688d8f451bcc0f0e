"""What stands beside the figure of a view: number, caption, tables and code. All texts of a store are escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from causalunet.analysis.described import described
from causalunet.design.limits import plain
from causalunet.dims import PLACE
from causalunet.explore import numbers
from causalunet.explore.choice import Choice
from causalunet.explore.stored import Stored
from causalunet.report.facts import TableOf, complete_count, plan_facts, provenance_facts, sweep_table
from causalunet.report.pictures import prompt_name
from causalunet.report.tables import cell as bracketed

__all__ = ["caption", "code", "escaped", "escaped_lines", "headline", "notice", "sample_words", "tables", "title"]

_OF_VIEW: dict[str, tuple[str, ...]] = {
    "curves": ("intervention", "sample", "outcome"),
    "images": ("intervention", "sample"),
    "factors": ("intervention",),
    "trajectory": ("intervention", "sample", "step"),
    "attention": ("intervention", "sample", "step", "maps", "token"),
    "plan": ("intervention", "sample"),
    "audit": ("intervention", "sample"),
}
"""What of a choice the figure of a view depends on."""

_CAPTIONS = {
    "curves": "Means over samples by start step; the band is the 95 % BCa bootstrap interval of the sweep looked at. "
    "Dashed: the sample. Click a point to go there.",
    "images": "The sample without and with the intervention, and how much its pixels differ. Below: the same sample, "
    "with the window beginning at other steps. Click one to go there.",
    "factors": "Share of samples in whose image another value is read than in the baseline's, with 95 % Wilson "
    "intervals. Click a point to go there.",
    "trajectory": "Estimates of x_0 of the run without intervention, by step, and how far the intervened run is from "
    "it. Click a step to go there.",
    "attention": "Attention to the token, by head, in one range of colours; brighter is more.",
    "plan": "What the intervention edits, step by step.",
    "audit": "Whether every edit applied as declared, on this sample, and the time that each sample took.",
}


def escaped(text: object) -> str:
    """A text as HTML that shows it, control characters spelt out."""
    return html.escape(plain(str(text)))


def escaped_lines(text: str) -> str:
    """The same of several lines."""
    return "\n".join(map(escaped, text.split("\n")))


def title(stored: Stored) -> str:
    """Name of the study, as HTML."""
    study = stored.results.attrs.get("study")
    name = study.get("name") if isinstance(study, dict) else None
    return escaped(name or "a study")


def headline(stored: Stored, choice: Choice) -> str:
    """The outcome's mean over the samples of the intervention with its interval, and the sample's own, as HTML."""
    start = stored.rows_by_label[choice.intervention].start
    own = numbers.own_trend(stored, choice).sel(start=start)
    told = described(choice.outcome, own["mean"].attrs)
    mean = float(own["mean"])
    has = "interval" in own
    shown = bracketed(mean, own["interval"].values, told.digits) if has else f"{mean:.{told.digits}f}"
    unit = f" {told.units}" if told.units != "1" else ""
    n = own.attrs["samples"]
    value = float(numbers.of_sample(stored, choice).sel(start=start))
    sample = f"{value:.{told.digits}f}{unit}" if not np.isnan(value) else "not complete"
    return (
        f'<p class="number"><span>{escaped(told.title)}</span> <strong>{escaped(shown)}{escaped(unit)}</strong> '
        f'<span>n = {n}</span></p><p class="of">{escaped(choice.intervention)} · sample {choice.sample}: {sample}</p>'
    )


def caption(choice: Choice) -> str:
    """What the figure shows, as HTML."""
    return f"<p>{escaped(_CAPTIONS[choice.view])}</p>"


def notice(texts: Iterable[str]) -> str:
    """What is not there, as HTML; empty for nothing."""
    return "".join(f'<p class="notice" role="status">{escaped(text)}</p>' for text in texts)


def sample_words(stored: Stored, sample: int) -> str:
    """Prompt and seed of a sample, as HTML."""
    return f'<p class="of">“{escaped(prompt_name(stored.prompt(sample)))}”, seed {stored.seed(sample)}</p>'


def tables(stored: Stored, choice: Choice) -> str:
    """Tables of a view, as HTML; empty for views that have none."""
    if choice.view == "images":
        return _facts("This cell", _cell_facts(stored, choice))
    if choice.view == "factors":
        head = ("factor", "baseline", "intervened")
        rows = tuple(
            (factor, f"{before} ({p:.0%})", f"{after} ({q:.0%})")
            for factor, (before, p, after, q) in numbers.readings(stored, choice).items()
        )
        return _table(TableOf(f"Read in sample {choice.sample}, with the reader's probability", head, rows))
    if choice.view == "plan":
        return (
            _facts("This run", _cost(stored, choice))
            + _facts("Study", plan_facts(stored.results))
            + _table(sweep_table(stored.results))
        )
    if choice.view == "audit":
        return _facts("Checks", _checks(stored, choice)) + _facts("What made it", provenance_facts(stored.results))
    return ""


def code(stored: Stored, choice: Choice) -> str:
    """Two lines of Python that make the figure, after ``import causalunet as cu``."""
    source = getattr(stored.results, "source", None)
    where = str(source.location) if source else "results.zarr"
    chosen = {name: value for name, value in asdict(choice).items() if name in _OF_VIEW[choice.view]}
    given = "".join(f", {name}={value!r}" for name, value in chosen.items())
    return f"results = cu.open_results({where!r})\nfigure = cu.explore.draw(results, {choice.view!r}{given})"


def _cell_facts(stored: Stored, choice: Choice) -> list[tuple[str, str]]:
    cell = numbers.cell(stored, choice)
    told = [described(name, stored.cells[name].attrs) for name in cell.values]
    facts = [
        (one.label, f"{cell.values[one.name]:.{one.digits}f}" if np.isfinite(cell.values[one.name]) else "identical")
        for one in told
    ]
    return facts + _cost(stored, choice)


def _cost(stored: Stored, choice: Choice) -> list[tuple[str, str]]:
    cell = numbers.cell(stored, choice)
    saved = f"; {cell.saved:.1%} saved" if np.isfinite(cell.saved) else ""
    return [("U-Net calls", f"{cell.unet_calls:,}"), ("FLOPs", f"{cell.flops:.3g}{saved}")]


def _checks(stored: Stored, choice: Choice) -> list[tuple[str, str]]:
    found, spent = numbers.fired(stored, choice), numbers.spent(stored)
    wrong = int((found["declared"] != found["fired"]).sum())
    cells = int((found["declared"] > 0).sum())
    places = ", ".join(map(str, found[PLACE].values)) or "none"
    total = len(stored.samples)
    return [
        ("Edits of this run", f"{cells} of {places}; {'all as declared' if not wrong else f'{wrong} otherwise'}"),
        ("Largest null difference", f"{_largest(spent['null_difference'].values)}"),
        ("Largest drift", f"{_largest(spent['drift'].values)}"),
        ("Samples", f"{complete_count(stored.results):,} of {total:,} complete"),
        ("All checks", "causalunet verify STORE reads every chunk and checks it"),
    ]


def _largest(values: Any) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.max():.2g}" if len(finite) else "not measured"


def _facts(name: str, facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escaped(term)}</dt><dd>{escaped(fact)}</dd>" for term, fact in facts)
    return f"<h2>{escaped(name)}</h2><dl>{rows}</dl>"


def _table(of: TableOf) -> str:
    head = "".join(f'<th scope="col">{escaped(one)}</th>' for one in of.head)
    rows = "".join(
        f'<tr><th scope="row">{escaped(row[0])}</th>{"".join(f"<td>{escaped(one)}</td>" for one in row[1:])}</tr>'
        for row in of.rows
    )
    return (
        f"<h2>{escaped(of.caption)}</h2>"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
