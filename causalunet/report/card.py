"""What a hub or an archive is told of results that are put there: a dataset card."""

from __future__ import annotations

import json

import xarray as xr

from causalunet.report.facts import Facts, TableOf, floor_facts, plan_facts, provenance_facts, sweep_table
from causalunet.results.meaning.schema import COMPLETE

__all__ = ["card"]

_TAGS = ("causalunet", "diffusion-models", "interpretability", "causal-interventions", "zarr", "xarray")


def card(
    results: xr.DataTree,
    file: str = "results.zarr.zip",
    *,
    title: str | None = None,
    question: str | None = None,
    license_id: str | None = None,
) -> str:
    """Write a dataset card, the ``README.md`` beside an export on a hub, from what the store knows of itself.

    Parameters
    ----------
    results : xarray.DataTree
        Opened results.
    file : str
        Name of the export, for the lines that open it.
    title : str, optional
        By default the name of the study.
    question : str, optional
        What the study is to answer.
    license_id : str, optional
        Such as ``cc-by-4.0``. Nobody else knows under which terms results are shared, so by default none is stated.

    Returns
    -------
    str
        Markdown, with a head in YAML as the Hugging Face Hub reads it. Prompts are not in it, nor the study's file.
    """
    plan = plan_facts(results)
    name = title or dict(plan)["Study"]
    head = [f"pretty_name: {json.dumps(name)}", *([f"license: {license_id}"] if license_id else [])]
    head += ["tags:", *(f"- {tag}" for tag in _TAGS)]
    floor = floor_facts(results, "ssim", allow_incomplete=True) if _has_null(results) else []
    parts = [
        f"# {_inline(name)}",
        *([_inline(question)] if question else []),
        "Runs of a diffusion model with interventions and without, their outcomes, and what was recorded on the way, "
        "as an `xarray.DataTree` in zarr v3.",
        "## What was run",
        _listed(plan),
        _table(sweep_table(results)),
        "## What there is",
        _table(_variables(results)),
        *(["## Noise floor", _listed(floor)] if floor else []),
        "## How to read it",
        _reading(file),
        "## What made it",
        _listed(provenance_facts(results)),
    ]
    return "\n".join(["---", *head, "---", "", "\n\n".join(parts), ""])


def _has_null(results: xr.DataTree) -> bool:
    outcomes = results["outcomes"].to_dataset()
    whole = bool((outcomes["status"] == COMPLETE).any())
    return whole and "ssim" in outcomes and bool((outcomes["kind"] == "null").any())


def _variables(results: xr.DataTree) -> TableOf:
    rows = []
    for group in results.subtree:
        path = group.path.strip("/")
        for name, variable in sorted(group.data_vars.items()) if path else ():
            sizes = ", ".join(f"{dim} {size:,}" for dim, size in variable.sizes.items())
            told, units = (str(variable.attrs.get(key, "")) for key in ("long_name", "units"))
            rows.append((f"{path}/{name}", sizes, told, "" if units == "1" else units))
    return TableOf("Variables", ("variable", "dimensions", "meaning", "units"), tuple(rows))


def _reading(file: str) -> str:
    opened = 'zarr.storage.ZipStore({!r}, mode="r")' if file.endswith(".zip") else "{!r}"
    plain = opened.format(file)
    lines = ["```python", "import causalunet", "", f"results = causalunet.open_results({file!r})", "```", ""]
    lines += ["or, without this package:", "", "```python", "import xarray"]
    lines += ["import zarr"] if file.endswith(".zip") else []
    return "\n".join([*lines, "", f'results = xarray.open_datatree({plain}, engine="zarr")', "```"])


def _listed(facts: Facts) -> str:
    return "\n".join(f"- {_inline(term)}: {_inline(text)}" for term, text in facts)


def _table(table: TableOf) -> str:
    rows = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(_inline(one).replace("|", "\\|") for one in row) + " |" for row in rows)


def _inline(text: str) -> str:
    """In one line, and no HTML of a stranger's."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
