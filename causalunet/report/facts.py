"""Facts of a study for its page: plan, provenance and tables, as text from stored attributes that may lack or lie."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.described import described
from causalunet.analysis.noise import noise_floor
from causalunet.analysis.selection import intervention_columns, outcomes
from causalunet.analysis.summary import summary_table
from causalunet.analysis.sweeps import sweeps
from causalunet.dims import CHANNEL, INTERVENTION, SAMPLE, STEP, X, Y
from causalunet.report.tables import cell
from causalunet.results.meaning.schema import COMPLETE, FAILED

__all__ = [
    "TableOf",
    "complete_count",
    "failed_count",
    "floor_facts",
    "plan_facts",
    "provenance_facts",
    "start_table",
    "study_json",
    "sweep_table",
]

Facts = list[tuple[str, str]]
"""Terms with what is known of them."""


@dataclass(frozen=True, slots=True)
class TableOf:
    """A table of text; the first cell of a row is its heading.

    Parameters
    ----------
    caption : str
    head : tuple of str
    rows : tuple of tuple of str
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def complete_count(results: xr.DataTree) -> int:
    """Number of samples that were run whole."""
    return int((results["outcomes"].to_dataset()["status"] == COMPLETE).all(INTERVENTION).sum())


def failed_count(results: xr.DataTree) -> int:
    """Number of samples with a cell that failed."""
    return int((results["outcomes"].to_dataset()["status"] == FAILED).any(INTERVENTION).sum())


def plan_facts(results: xr.DataTree) -> Facts:
    """Model, sampler, samples, interventions and U-Net calls."""
    attrs, baseline = results.attrs, results["baseline"].to_dataset()
    study = _mapping(attrs.get("study"))
    sampler = _mapping(study.get("sampler"))
    options = {name: value for name, value in _mapping(sampler.get("configuration")).items() if name != "steps"}
    image = " x ".join(str(baseline["image"].sizes[dim]) for dim in (CHANNEL, Y, X))
    kinds = Counter(map(str, outcomes(results)["kind"].values))
    prompts = len(set(baseline["prompt"].values.tolist()))
    samples, complete, failed = baseline.sizes[SAMPLE], complete_count(results), failed_count(results)
    told = f"{complete:,} complete" + (f", {failed:,} with cells that failed" if failed else "")
    facts = [
        ("Study", _text(study.get("name"))),
        ("Model", f"{_text(study.get('model'))}, images of {image} (channel, y, x)"),
        ("Sampler", f"{_text(sampler.get('name'))}, {baseline.sizes[STEP]} steps, {_listing(options)}"),
        ("Samples", f"{samples:,} of {prompts:,} prompts; {told}"),
        ("Interventions", f"{kinds.total():,}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"),
    ]
    planned, naive = attrs.get("unet_calls_planned"), attrs.get("unet_calls_naive")
    if isinstance(planned, int) and isinstance(naive, int) and planned:
        ratio = f"{naive / planned:.2f} times fewer"
        facts.append(("U-Net calls", f"{planned:,} shared, {naive:,} if every run started from noise ({ratio})"))
    return facts


def sweep_table(results: xr.DataTree) -> TableOf:
    """Interventions, a row per sweep."""
    dataset = outcomes(results)
    columns = intervention_columns(dataset)
    labels = [str(label) for label in dataset[INTERVENTION].values]
    rows = []
    for name, selection in sweeps(results).items():
        chosen = [labels.index(label) for label in selection[INTERVENTION]]
        counts = [_range(columns[number][chosen]) for number in ("start", "length", "cuts", "relax")]
        rows.append((name, str(len(chosen)), *counts, _range(dataset["unet_calls"].values[chosen])))
    head = ("sweep", "interventions", "starts", "length (steps)", "cuts", "relaxation (steps)", "U-Net calls per run")
    caption = "Sweeps: interventions alike in everything but their start, null interventions left out"
    return TableOf(caption, head, tuple(rows))


def start_table(results: xr.DataTree, variable: str, *, allow_incomplete: bool) -> TableOf:
    """Mean outcome with interval by start step and sweep; whichever there are fewer of are the columns."""
    summary = summary_table(results, variable=variable, allow_incomplete=allow_incomplete)
    attrs, told = summary["interval"].attrs, described(variable, summary["mean"].attrs)
    caption = (
        f"Mean {told.label} to the baseline by start step, in brackets the {100 * attrs['probability']:g} % interval "
        f"({attrs['interval_kind']}), n = {int(summary['samples'].max())}"
    )
    dims = ("start", "selection") if summary.sizes["start"] >= summary.sizes["selection"] else ("selection", "start")
    rows, columns = (
        [f"from {value}" if dim == "start" else str(value) for value in summary[dim].values.tolist()] for dim in dims
    )
    summary = summary.transpose(*dims, ...)
    mean, interval, samples = (summary[part].values for part in ("mean", "interval", "samples"))
    cells = [
        [cell(mean[i, j], interval[i, j], told.digits) if samples[i, j] else "-" for j in range(len(columns))]
        for i in range(len(rows))
    ]
    head = ("start" if dims[0] == "start" else "sweep", *columns)
    return TableOf(caption, head, tuple((name, *of_row) for name, of_row in zip(rows, cells, strict=True)))


def floor_facts(results: xr.DataTree, variable: str, *, allow_incomplete: bool) -> Facts:
    """The noise floor: an outcome of runs in which nothing is changed."""
    floor = noise_floor(results, variable, allow_incomplete=allow_incomplete)
    told = described(variable, floor["mean"].attrs)
    return [
        (f"{'Lowest' if told.sign > 0 else 'Highest'} {told.label}", f"{float(floor['worst']):.6f}"),
        (f"Mean {told.label}", f"{float(floor['mean']):.6f}"),
        ("Of", f"{', '.join(floor.attrs['interventions'])}; n = {floor.attrs['samples']}"),
    ]


def provenance_facts(results: xr.DataTree) -> Facts:
    """What made the results: versions, digests, definitions, time."""
    attrs, spent = results.attrs, results["audit"].to_dataset()[["seconds", "unet_calls"]].sum()
    made_by = {name: part for name, part in _mapping(attrs.get("identity")).items() if name != "tokens"}
    took = f"{float(spent['seconds']):,.1f} s; {int(spent['unet_calls']):,} U-Net calls"
    return [
        ("Created", _text(attrs.get("created_at"))),
        ("Digest of the study", _text(attrs.get("digest"))),
        ("Fingerprint of the model", _text(attrs.get("model_fingerprint"))),
        ("Model and sampler", _listing(made_by)),
        ("Versions", _listing(attrs.get("versions"))),
        ("SSIM", _listing(attrs.get("ssim"))),
        ("Time of all runs", took),
        ("Study file", _source(attrs.get("sources"))),
        ("Threads", _text(attrs.get("threads"))),
        ("Precision", _precision(attrs.get("rounding"))),
        ("Store", f"{_text(attrs.get('format'))}, format version {_text(attrs.get('format_version'))}"),
    ]


def _precision(measured: Any) -> str:
    """Where and in what models computed, TF32 named, and what calls rounded off."""
    told = []
    for one in map(_mapping, measured if isinstance(measured, list) else []):
        kinds, call = one.get("dtypes"), one.get("call")
        types = ", ".join(map(str, kinds)) if isinstance(kinds, list) else _text(kinds)
        rounds = f"{call:.1e}" if isinstance(call, float) else _text(call)
        tf32 = "with" if one.get("tf32") else "without"
        told.append(
            f"{types} on {_text(one.get('device_name'))}, {tf32} TF32; calls in other batches differ by {rounds}"
        )
    return "; ".join(told) or "not stored"


def _source(sources: Any) -> str:
    """Name the study's file, in its latest version."""
    latest = _mapping(sources[-1] if isinstance(sources, list) and sources else None)
    if not latest:
        return "none: run from an interactive session"
    git = _mapping(latest.get("git"))
    state = f"git {git.get('commit')!s:.12}{', changed' if git.get('changed') else ''}" if git else "not in git"
    return f"{_text(latest.get('name'))} (SHA-256 {latest.get('sha256')!s:.12}, {state})"


def study_json(results: xr.DataTree) -> str:
    """The whole study as indented JSON."""
    return json.dumps(results.attrs.get("study"), indent=1, ensure_ascii=False, default=str)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return "not stored" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _listing(value: Any) -> str:
    """Fields of a stored mapping in words."""
    words = [f"{str(name).replace('_', ' ')} {item}" for name, item in _mapping(value).items()]
    return ", ".join(words) or "not stored"


def _range(values: Sequence[int] | np.ndarray) -> str:
    lowest, highest = int(np.min(values)), int(np.max(values))
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"
