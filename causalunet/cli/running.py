"""The commands ``run`` and ``resume``."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from causalunet.cli.exits import Exit
from causalunet.cli.printing import one_line, quoted, tell
from causalunet.cli.sharing import runner
from causalunet.cli.studies import default_store, read_study
from causalunet.errors import CausalUNetError, DamageError, ModelError, StoreError
from causalunet.identity import differences
from causalunet.paths import given_path
from causalunet.provenance import describe
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.guard.checked_store import check_imported
from causalunet.results.meaning.completion import Completion
from causalunet.results.store import Results, open_results
from causalunet.study import Study, load_registered

if TYPE_CHECKING:
    from causalunet.models.base import DiffusionModel
    from causalunet.plan import Plan

__all__ = ["byte_count", "resume", "run"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_BYTES = re.compile(r"(?P<number>\d{1,15}(\.\d{1,9})?)\s*(?P<unit>([kmgt]i?)?)b?", re.IGNORECASE)


def byte_count(text: str) -> int:
    """Read a number of bytes such as ``1GB``, ``512 MiB`` or ``1000000``."""
    found = _BYTES.fullmatch(text.strip())
    number = int(float(found["number"]) * _UNITS[found["unit"].lower()]) if found else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes; give one such as 1GB, 512MiB or 1000000")
    return number


def run(options: argparse.Namespace) -> Exit:
    """Plan a study, run it into a store, and say where the results are."""
    path = given_path(options.file)
    study = read_study(path, options.study)
    store = options.store or str(default_store(study))
    stored = _stored(store)
    model = _load(study.model, options)
    plan = study.plan(model, memory=options.memory)
    tell(f"{plan}\n  store         {store}{_progress_of(stored)}")
    if options.dry_run:
        return Exit.DONE
    return _fill(
        plan, store, options, overwrite=options.overwrite, source=describe(path, keep_text=options.keep_script)
    )


def resume(options: argparse.Namespace) -> Exit:
    """Go on with the study that a store says it holds."""
    results = open_results(options.store)
    where = results.source.location
    if not results.source.commit:
        raise StoreError(f"{where} is an export, which is never written to. Resume the store that it was made of.")
    stored = results.attrs.get("study", {})
    check_imported(stored.get("interventions", ()), where, stored.get("sampler"))
    try:
        study = Study.from_stored(stored)
    except CausalUNetError as error:
        raise DamageError(f"{where} holds no study that can be read back: {one_line(error)}") from error
    model = _load_stored(study, results, options)
    plan = study.plan(model, calibrate=False)
    shape = f"{plan.samples} samples x {len(study.interventions)} interventions"
    tell(f"Study {quoted(study.name)} on {study.model}: {shape}")
    tell(f"  store         {where}{_progress_of(_stored(options.store))}")
    return _fill(plan, options.store, options)


def _fill(
    plan: Plan,
    store: str,
    options: argparse.Namespace,
    *,
    overwrite: bool = False,
    source: dict[str, Any] | None = None,
) -> Exit:
    with runner(plan, _chosen(options), options) as run_plan:
        run_plan(
            plan,
            store,
            memory=options.memory,
            overwrite=overwrite,
            retry_failed=options.retry_failed,
            source=source,
        )
    completion = Completion.read(store)
    tell(f"Results: {store}{_progress_of(completion)}")
    # What a shard leaves out is for the others.
    done = completion.complete or (options.shard and not completion.cells.failed + completion.baselines.failed)
    return Exit.DONE if done else Exit.INCOMPLETE


def _stored(store: str) -> Completion | None:
    """How far a store is; None if there is none yet."""
    if not Repository.exists(Location.parse(store)):
        return None
    try:
        return Completion.read(store)
    except StoreError:
        return None  # its creation was cut off, or it is told when it is opened for writing


def _progress_of(completion: Completion | None) -> str:
    return "" if completion is None else f", {completion.cells.complete:,} of {completion.cells.total:,} cells complete"


def _chosen(options: argparse.Namespace) -> dict[str, str]:
    """What the model's loader is to be given."""
    return {key: getattr(options, key) for key in ("checkpoint", "device") if getattr(options, key) is not None}


def _load(name: str, options: argparse.Namespace) -> DiffusionModel:
    chosen = _chosen(options)
    if not chosen:
        return load_registered(name)
    from causalunet.models import load_model

    try:
        return load_model(name, **chosen)
    except (AssertionError, RuntimeError, TypeError) as error:
        asked = ", ".join(f"--{key} {value}" for key, value in chosen.items())
        raise ModelError(f"The model {name!r} cannot be loaded with {asked}: {one_line(error)}") from error


def _load_stored(study: Study, results: Results, options: argparse.Namespace) -> DiffusionModel:
    """Load the model of a store, which must be the one that it was made with."""
    from causalunet.models import model_names

    where, sources = results.source.location, results.attrs.get("sources")
    entries = sources if isinstance(sources, list) else []
    names = [one_line(entry.get("name")) for entry in entries if isinstance(entry, dict)]
    script = f"its script {names[-1]}" if names else "the script that made it"
    if study.model not in model_names():
        raise ModelError(
            f"{where} was made with a model called {quoted(study.model)}, which is not registered here "
            f"(registered: {', '.join(model_names())}): a script made it. Run {script} again to go on."
        )
    model = _load(study.model, options)
    if different := differences(results.identity, model, study.sampler):
        raise ModelError(
            f"{where} was made with something else than the model {study.model!r} here: {'; '.join(different)}. Give "
            f"other weights with --checkpoint; or, if a script handed the model in, run {script} again to go on."
        )
    return model
