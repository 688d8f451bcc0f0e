"""Stores to look at: without a model, and with texts that would do harm on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from causalunet.design import AblateBlock, AblateSkip, Null, SkipSteps, Window
from causalunet.results import open_results
from causalunet.scenes import FACTORS
from tests.analysis.synthetic import edited, write_results
from tests.report.stores import rewrite_text, with_trajectory

__all__ = ["HOSTILE", "hostile_store", "whole_store", "write"]

HOSTILE = '<img src=x onerror="window.harmed=1"><script>window.harmed=2</script>\'"&$$\\href{javascript:1}{x}$$'
"""Markup, a script, quotes and TeX."""


def write(path: Path, *, blocks_done: int | None = None) -> xr.DataTree:
    """Two depths at two lengths, skip connections, skipped steps and a null intervention; six samples of 20 steps."""
    items = [
        *(AblateBlock(b, Window(s, n)) for b in (2, 4) for n in (2, 4) for s in (18, 12, 6)),
        *(AblateSkip(1, Window(s, 2)) for s in (18, 12, 6)),
        SkipSteps(Window(12, 2)),
        Null(Window(12, 2)),
    ]
    return write_results(path, items, samples=6, block=2, blocks_done=blocks_done)


def whole_store(path: Path) -> xr.DataTree:
    """One with states of the baseline, and names of what its factors can be."""
    write(path)
    with_trajectory(path)
    return _attributes(path, factors={name: list(values) for name, values in FACTORS.items()})


def hostile_store(path: Path) -> xr.DataTree:
    """One with `HOSTILE` in prompt, label, kind, place and factor, and in what its attributes say."""
    write(path)
    with_trajectory(path)
    for name, at in (("prompt", 0), ("intervention", 1), ("kind", 0), ("place", 0), ("factor", 0)):
        rewrite_text(path, name, HOSTILE, at=at)
    return _attributes(
        path,
        study=dict(open_results(path).attrs["study"]) | {"name": HOSTILE, "model": HOSTILE},
        model_fingerprint=HOSTILE,
        digest=HOSTILE,
        versions={HOSTILE: HOSTILE},
        sources=[{"name": HOSTILE, "sha256": HOSTILE, "text": HOSTILE}],
        factors={HOSTILE: [HOSTILE] * 9} | {name: [HOSTILE] * 9 for name in list(FACTORS)[1:]},
    )


def _attributes(path: Path, **attrs: Any) -> xr.DataTree:
    with edited(path) as root:
        root.attrs.update(attrs)
    return open_results(path)
