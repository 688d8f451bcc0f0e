"""What a worker does: load the model once, run one part at a time into a fork of the coordinator's session."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distributed import WorkerPlugin, get_worker
from distributed.utils import sync

from causalunet.cluster.workers import check_versions
from causalunet.errors import CausalUNetError, ClusterError, StorageError
from causalunet.execute.fill.open_store import versions
from causalunet.execute.fill.part_runner import Done, PartRunner
from causalunet.execute.fill.parts import Part
from causalunet.execute.measure.rounding import rounding_of
from causalunet.execute.walk.memory import budget_of
from causalunet.identity import differences
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.scored import KnownOutcome

__all__ = ["Job", "JobPlugin", "Ran", "run_part", "try_worker"]

_ALONE = threading.Lock()
"""Hooks change the model, so a process runs one part at a time, however many threads it has."""
_LOADED: dict[str, Any] = {}
"""The last model that this process loaded, by the digest of what loaded it."""


@dataclass(frozen=True)
class Job:
    """A study as its workers need it; it reaches each of them once.

    Parameters
    ----------
    layout : Layout
        With a plan that has no model.
    load : bytes
        Pickled, what loads it.
    location : Location
        Of the store.
    memory : int, optional
        As for `StoreFiller`.
    identity : mapping
        Of what makes the images, as the coordinator has it.
    versions : mapping
        Of its software.
    outcomes : sequence of KnownOutcome
    """

    layout: Layout
    load: bytes
    location: Location
    memory: int | None
    identity: Mapping[str, Any]
    versions: Mapping[str, str]
    outcomes: Sequence[KnownOutcome]


@dataclass(frozen=True)
class Ran:
    """What comes back of a part; its numbers are in the store already, and count once the coordinator commits.

    Parameters
    ----------
    done : Done
    written : bytes
        The fork, with which chunks were written.
    rounding : dict
        What calls round off on this worker.
    """

    done: Done
    written: bytes
    rounding: dict[str, Any]


class JobPlugin(WorkerPlugin):
    """Brings a study to every worker there is and to those that come later.

    Parameters
    ----------
    name : str
        Of this run.
    job : bytes
        A `Job`, pickled; it is read, and the model loaded, with the first part.
    """

    def __init__(self, name: str, job: bytes) -> None:
        self.name, self._job = name, job
        self._made: tuple[PartRunner, Repository, dict[str, Any]] | None = None
        self._profilers: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_job": self._job, "_made": None, "_profilers": {}}

    def setup(self, worker: Any) -> None:
        """Take the worker's profilers from it meanwhile.

        A hundred times a second they walk the stack of what runs, which is deep in a traced call, and hold Python's
        lock for it: an eighth of the time of a part. A worker that comes later starts what it has after this.
        """
        here = worker.periodic_callbacks
        self._profilers = {name: here.pop(name) for name in ("profile", "profile-cycle") if name in here}
        for one in self._profilers.values():
            one.stop()

    def teardown(self, worker: Any) -> None:
        """Give them back."""
        worker.periodic_callbacks.update(self._profilers)
        for one in self._profilers.values():
            one.start()
        self._profilers = {}

    def run(self, part: Part, fork: bytes) -> Ran:
        """Run a part."""
        runner, repository, rounding = self.made()
        writer = StudyWriter(repository, fork)
        try:
            done = runner.run(writer, part)
            return Ran(done, writer.written(), rounding)
        finally:
            writer.abandon()

    def made(self) -> tuple[PartRunner, Repository, dict[str, Any]]:
        """What runs parts, the store, and what calls round off here.

        Raises
        ------
        ClusterError
            This worker has other software, another model or another disk.
        """
        if self._made is None:
            here, worker = versions(), get_worker().address
            job = _read(self._job, worker)
            check_versions(job.versions, here, worker)
            spec = job.layout.plan.spec
            model = _loaded(job.load)
            if different := differences(job.identity, model, spec.sampler):
                raise ClusterError(
                    f"The worker {worker} loads another model than the one here: {'; '.join(different)}. Give Workers "
                    "a load= that loads the same, or model= what its loader gives."
                )
            if not Repository.exists(job.location):
                raise ClusterError(
                    f"The worker {worker} finds no store at {job.location}. It must be on a disk that all machines "
                    "share under the same path, or in an object store."
                )
            plan = replace(job.layout.plan, bound=replace(job.layout.plan.bound, model=model))
            runner = PartRunner(replace(job.layout, plan=plan), job.outcomes, budget_of(job.memory, model))
            self._made = runner, Repository.open(job.location), rounding_of(plan)
        return self._made


def run_part(name: str, key: str, part: Part, fork: bytes) -> Ran | CausalUNetError:
    """Run a part on this worker; an error that another try would end in too is given back and not raised.

    Parameters
    ----------
    name : str
        Of the run, as of its `JobPlugin`.
    key : str
        Of the task; the scheduler notes that it was begun.
    part : Part
    fork : bytes
        From `StudyWriter.fork`.
    """
    with _ALONE:
        worker = get_worker()
        # Told before anything else: of a worker that dies the scheduler knows what it had, and not what it was at.
        sync(worker.loop, worker.scheduler.log_event, topic=name, msg=key)
        try:
            return _job_of(worker, name).run(part, fork)
        except StorageError:
            raise  # may pass
        except CausalUNetError as error:
            return error


def try_worker(name: str) -> CausalUNetError | None:
    """Load the model on this worker, and see whether it is the right one and whether the store is there."""
    with _ALONE:
        try:
            _job_of(get_worker(), name).made()
        except CausalUNetError as error:
            return error
    return None


def _job_of(worker: Any, name: str) -> JobPlugin:
    plugin: JobPlugin = worker.plugins[name]
    return plugin


def _read(job: bytes, worker: str) -> Job:
    try:
        found: Job = pickle.loads(job)
    except Exception as error:  # of whatever a user's classes do
        raise ClusterError(
            f"The worker {worker} cannot read the study: {type(error).__name__}: {error}. What it is made of, such as "
            "interventions and outcomes of your own, must be importable there."
        ) from error
    return found


def _loaded(load: bytes) -> Any:
    digest = hashlib.sha256(load).hexdigest()
    if digest not in _LOADED:
        _LOADED.clear()  # one model fits into a worker, two may not
        try:
            made = pickle.loads(load)()
        except CausalUNetError:
            raise
        except Exception as error:  # of whatever a user's function does
            raise ClusterError(
                f"The worker {get_worker().address} cannot load the model: {type(error).__name__}: {error}. What loads "
                "it must be importable there, and the files that it reads must be within reach."
            ) from error
        from causalunet.models.checking import check_model

        check_model(made)
        _LOADED[digest] = made
    return _LOADED[digest]
