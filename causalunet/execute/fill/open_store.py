"""Opening the store of a plan for writing: made, gone on with, extended, or refused with the difference shown."""

from __future__ import annotations

import math
import platform
import uuid
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalunet.design.donor_samples import moved_runs
from causalunet.design.outcomes import usual_outcomes
from causalunet.design.outcomes.dims import brought_by
from causalunet.errors import StoreError, WriteConflictError
from causalunet.execute.measure.rounding import rounding_of
from causalunet.execute.walk.batches import samples_per_block
from causalunet.identity import FINGERPRINT, differences, short
from causalunet.metrics import SSIM_DEFINITION
from causalunet.plan import Plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.guard.checked_store import Reader, read_stored, stored_grid
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.grid import Grid
from causalunet.results.meaning.identity import stored_identity
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import FAILED, MISSING
from causalunet.results.meaning.scored import declared_outcome

__all__ = ["block_name", "open_writer", "record_rounding", "record_source", "versions"]

_MOST_NAMED = 3
_TRIES = 3


def open_writer(
    plan: Plan,
    path: str | Path | Location,
    *,
    micro_batch: int,
    memory: int,
    overwrite: bool,
    source: dict[str, Any] | None = None,
    shares: int = 1,
) -> tuple[StudyWriter, Layout]:
    """Make the store of a plan, go on with the one at the path, or extend it.

    Parameters
    ----------
    plan : Plan
    path : path or str
        Folder or address.
    micro_batch, memory : int
        As for `samples_per_block`.
    overwrite : bool
        Replace another study; its results stay in the store's history.
    source : dict, optional
        The study's file, see `causalunet.provenance`.
    shares : int
        How many blocks a store that is made now should at least have.

    Raises
    ------
    StoreError
        The store holds another study, something else lies there, or another process is at work on what would change.
    """
    location = Location.parse(path)
    factors = plan.bound.model.factors
    outcomes = tuple(declared_outcome(one, plan.bound.picture_shape, factors) for one in plan.spec.outcomes)
    measured = (*usual_outcomes(factors=bool(factors)), *plan.spec.outcomes)
    brought = {name: one.labels for name, one in brought_by(measured, plan.bound.picture_shape, factors).items()}
    block = min(samples_per_block(plan, memory, micro_batch), _largest_block(plan.samples, shares))
    fresh = Layout(plan, brought, block, outcomes=outcomes)
    for _ in range(_TRIES):
        with suppress(WriteConflictError):  # another process lays out the same object store
            return _open(location, fresh, overwrite=overwrite, source=source)
    return _open(location, fresh, overwrite=overwrite, source=source)


def _largest_block(samples: int, shares: int) -> int:
    """Samples of a block with which there is a block for every share, as far as there are samples."""
    block = math.ceil(samples / shares)
    while block > 1 and math.ceil(samples / block) < shares:  # six samples in twos are none for the fourth
        block -= 1
    return block


def _open(
    location: Location, fresh: Layout, *, overwrite: bool, source: dict[str, Any] | None
) -> tuple[StudyWriter, Layout]:
    plan, asked = fresh.plan, fresh.grid
    if not Repository.exists(location):
        made = replace(_made_by(plan, source), layout_id=uuid.uuid4().hex)
        writer = StudyWriter.create(location, fresh, made)
        if writer.known.layout_id == made.layout_id:  # and not that of a process that was faster
            return writer, fresh
    else:
        writer = StudyWriter(Repository.open(location))
        _check_ours(writer)  # before anything is written into what may be another's
    with writer.repository.exclusive():
        writer.refresh()
        attributes = _check_ours(writer)
        grid = asked
        different, made_otherwise = list[str](), list[str]()
        if attributes is not None:
            reader = Reader(read_stored(writer.root.store, location), location)
            grid = stored_grid(reader.stored, location)
            made_otherwise = differences(stored_identity(reader), plan.bound.model, plan.spec.sampler)
            different = _differences(plan, attributes, made_otherwise, asked.lacking(grid))
            different += [] if different else _donors_otherwise(plan, grid)
            different += _measured_otherwise(fresh, attributes)
        if attributes is None or (different and overwrite):
            made_by = _made_by(plan, source)
            _change(writer, len(grid.samples), fresh, made_by, "a study laid out", afresh=attributes is not None)
            return writer, fresh
        if different:
            other = any(not one.startswith("sampler.") for one in made_otherwise)
            raise StoreError(
                f"{location} holds another study: {'; '.join(different)}. Run into another path, or replace it with "
                f"overwrite=True{'; to go on with it, give the model that it was made with' if other else ''}."
            )
        brought = {**reader.stored.brought, **fresh.brought}
        known = replace(fresh, stored=attributes.declaration, block=attributes.block, brought=brought)
        return writer, _extended(writer, attributes, known, grid)


def _check_ours(writer: StudyWriter) -> StoreAttributes | None:
    """Attributes of a store of this package; None of one whose creation was cut off."""
    attributes = writer.attributes
    if attributes is None and list(writer.root):
        raise StoreError(f"{writer.repository.location} is a zarr store, but not one of causalunet's results.")
    return attributes


def versions() -> dict[str, str]:
    """Versions of what makes results."""
    names = ("causalunet", "torch", "nnsight", "numpy", "xarray", "zarr", "icechunk")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def block_name(start: int, block: int) -> str:
    """Name of the claim on the block of samples that begins at a position."""
    return f"block-{start // block:06d}"


def record_source(writer: StudyWriter, source: dict[str, Any]) -> None:
    """Keep what is known of the study's file, unless this version of it is kept already."""
    for _ in range(_TRIES):
        with suppress(WriteConflictError), writer.repository.exclusive():  # another process does it in an object store
            writer.refresh()
            attributes = writer.known
            others = tuple(one for one in attributes.sources if one.get("sha256") != source["sha256"])
            kept = [one for one in attributes.sources if one not in others]
            if not kept or (source["text"] is not None and all(one.get("text") is None for one in kept)):
                changed = replace(attributes, sources=(*others, source))
                writer.update_attributes(changed, "another version of the study's file")
            return


def record_rounding(writer: StudyWriter, measured: dict[str, Any]) -> None:
    """Keep what calls round off where and in what the model computes now, unless as much of it is kept already."""
    for _ in range(_TRIES):
        if not _tells_more(writer, measured):
            return
        with suppress(WriteConflictError), writer.repository.exclusive():  # another process does it in an object store
            writer.refresh()
            if _tells_more(writer, measured):
                others = [one for one in writer.known.rounding if not _same_place(one, measured)]
                changed = replace(writer.known, rounding=(*others, measured))
                writer.update_attributes(changed, "what calls round off where the study is run")


def _tells_more(writer: StudyWriter, measured: dict[str, Any]) -> bool:
    kept = [one for one in writer.known.rounding if _same_place(one, measured)]
    return all(one.keys() < measured.keys() for one in kept)


def _same_place(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other[name] for name in ("device_name", "dtypes"))


def _extended(writer: StudyWriter, stored: StoreAttributes, asked: Layout, grid: Grid) -> Layout:
    """Go on with a store, which grows by what the study has and it has not; one that grows has the newest format."""
    joined, plan = grid.extended(asked.grid), asked.plan
    spec, group = joined.aligned(plan.spec), stored.group
    same = spec == plan.spec and group == plan.group
    aligned = plan if same else plan.of(spec, group)
    layout = replace(asked, plan=aligned, grid=joined)
    if joined != grid:
        identity = {**stored.identity, **_parts(aligned)}
        attributes = replace(stored, **_of_study(aligned), **_named(plan), identity=identity, layout_id=None)
        _change(writer, len(grid.samples), layout, attributes, f"grown by {_growth(grid, joined)}")
    for outcome in layout.outcomes:
        writer.declare(outcome)
    return layout


def _measured_otherwise(fresh: Layout, stored: StoreAttributes) -> list[str]:
    """Outcomes of the study that the store has, by another definition."""
    there = {outcome.name: stored.declaration.outcome(outcome.name) for outcome in fresh.outcomes}
    return [
        f"the outcome {outcome.name} is of another definition there (digest {known.digest}) and here ({outcome.digest})"
        for outcome in fresh.outcomes
        if (known := there[outcome.name]) is not None and known.digest != outcome.digest
    ]


def _change(
    writer: StudyWriter,
    samples: int,
    layout: Layout,
    attributes: StoreAttributes,
    message: str,
    *,
    afresh: bool = False,
) -> None:
    """Lay out while nobody works on the store."""
    block = layout.block if writer.attributes is None else writer.attributes.block
    with writer.repository.at_work(), ExitStack() as claims:
        for start in range(0, samples, block):
            if not claims.enter_context(writer.claim(block_name(start, block), wait="known")):
                raise StoreError(
                    f"Another process is running the study in {writer.repository.location}, so it cannot be changed "
                    "now. Wait until that one has finished, or end it; nothing committed is lost."
                )
        writer.lay_out(layout, attributes, message, afresh=afresh)
        if not afresh:
            _mark_without_baseline(writer)


def _mark_without_baseline(writer: StudyWriter) -> None:
    """Mark new cells as failed where the baseline failed: they cannot be run."""
    cells, baseline = writer.read("outcomes/status"), writer.read("baseline/status")
    stranded = (baseline == FAILED) & (cells == MISSING)
    for sample in np.flatnonzero(stranded.any(axis=0)).tolist():
        at, rows = slice(sample, sample + 1), np.flatnonzero(stranded[:, sample]).tolist()
        reason = np.full((len(rows), 1), "baseline: failed before the study grew", dtype=object)
        writer.write_cells("outcomes/status", rows, at, np.full((len(rows), 1), FAILED))
        writer.write_cells("outcomes/failure", rows, at, reason)
    if stranded.any():
        writer.commit("cells without a baseline marked", {"failed": int(stranded.sum())})


def _growth(grid: Grid, joined: Grid) -> str:
    grown = {
        "interventions": len(joined.interventions) - len(grid.interventions),
        "samples": len(joined.samples) - len(grid.samples),
        "components": len({*joined.summary, *joined.activations} - {*grid.summary, *grid.activations}),
    }
    return ", ".join(f"{count} {name}" for name, count in grown.items() if count)


def _differences(
    plan: Plan,
    stored: StoreAttributes,
    made_otherwise: list[str],
    lacking: dict[str, list[str]],
) -> list[str]:
    """Say in which ways a study is not the stored one, nor that one extended."""
    asked, there = plan.spec.to_json(), stored.study
    different = [
        f"{name} is {short(there.get(name))} there and {short(asked[name])} here"
        for name in ("name", "model")
        if asked[name] != there.get(name)
    ]
    different += made_otherwise
    record = there.get("record", {})
    different += [
        f"record.{name} is {short(record.get(name))} there and {short(asked['record'].get(name))} here"
        for name in ("steps", "of", "dtype", "bins")
        if record.get(name) != asked["record"].get(name)
    ]
    if stored.factors != {name: list(values) for name, values in plan.bound.model.factors.items()}:
        different.append("the factors that the model reads differ")
    for part, missing in lacking.items():
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        different.append(f"{part}: the study lacks {', '.join(missing[:_MOST_NAMED])}{more}")
    return different


def _donors_otherwise(plan: Plan, stored: Grid) -> list[str]:
    """Fills that would take values from other runs than those of what is stored."""
    moved = moved_runs((item.edits() for item in stored.interventions), stored.samples, plan.spec.samples)
    return [
        f"the fill {name!r} takes values of runs that depend on all samples, and of this study's they are others"
        for name in moved
    ]


def _named(plan: Plan) -> dict[str, Any]:
    return {"study": plan.spec.to_json(), "digest": plan.spec.digest}


def _of_study(plan: Plan) -> dict[str, Any]:
    return {"unet_calls_planned": plan.unet_calls, "unet_calls_naive": plan.naive_calls}


def _made_by(plan: Plan, source: dict[str, Any] | None) -> StoreAttributes:
    """Attributes of a store that is laid out."""
    return StoreAttributes(
        model_fingerprint=plan.bound.identity[FINGERPRINT],
        identity=_parts(plan),
        model_flops=plan.anatomy.flops,
        factors={name: list(values) for name, values in plan.bound.model.factors.items()},
        ssim=SSIM_DEFINITION,
        versions=versions(),
        threads=torch.get_num_threads(),
        **_named(plan),
        **_of_study(plan),
        sources=(source,) if source else (),
        rounding=(rounding_of(plan),),
    )


def _parts(plan: Plan) -> dict[str, Any]:
    """Parts of the identity but for the fingerprint, which is kept beside them."""
    return {name: part for name, part in plan.bound.identity.items() if name != FINGERPRINT}
