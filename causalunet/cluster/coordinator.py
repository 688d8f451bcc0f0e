"""Handing the parts of a study to workers, and committing what comes back: this process writes the history alone."""

from __future__ import annotations

import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import KilledWorker, wait

from causalunet.cluster.worker import Job, JobPlugin, Ran, run_part, try_worker
from causalunet.cluster.workers import Workers, adapts, asked, loader_bytes, number_of, workers_of
from causalunet.errors import CausalUNetError, CausalUNetWarning, ClusterError, WriteConflictError
from causalunet.execute.fill.failed import mark_failed
from causalunet.execute.fill.open_store import block_name, record_rounding, versions
from causalunet.execute.fill.part_runner import commit_parts
from causalunet.execute.fill.parts import Part, lacks
from causalunet.execute.fill.run_plan import run_plan
from causalunet.execute.fill.store_filler import StoreFiller
from causalunet.plan import Plan
from causalunet.results.engine.leases import Wait
from causalunet.results.engine.location import Location
from causalunet.results.engine.writer import StudyWriter

__all__ = ["DEATHS", "run_on_workers"]

DEATHS = 3
"""Workers that may die at a part before it is marked as failed."""
_TRIES = 5
_LOOK_SECONDS = 1.0


def run_on_workers(
    plan: Plan, path: str | Path | Location, client: Any, *, memory: int | None = None, **options: Any
) -> None:
    """Run what is not in the store yet, on the workers of a cluster.

    Parameters
    ----------
    plan : Plan
    path : path or str
        Of a store that all workers reach under the same name.
    client : distributed.Client or Workers
    memory : int, optional
        As for `run_plan`; of a worker's device.
    **options
        As for `run_plan`.

    Raises
    ------
    SpecError
        The model cannot be loaded by workers, or that is no client.
    ClusterError
        A worker has another model, other software or another disk; or the scheduler is gone.
    StorageError, WriteConflictError, FiringError, MemoryExhaustedError, KeyboardInterrupt
        As for `run_plan`.

    Warns
    -----
    CausalUNetWarning
        Workers died at a part, which is marked as failed.
    """
    workers = workers_of(client)
    load = loader_bytes(workers, plan.bound.model, plan.spec.model)

    def fill(filler: StoreFiller) -> None:
        waiting = filler.begin()
        if waiting:
            job = _job(filler, load, memory)
            _Crew(filler, workers, job).fill(waiting)

    run_plan(plan, path, memory=memory, **options, shares=max(1, number_of(workers.client)), fill=fill)


def _job(filler: StoreFiller, load: bytes, memory: int | None) -> bytes:
    plan = filler.layout.plan
    bare = replace(plan, bound=replace(plan.bound, model=None))
    job = Job(
        layout=replace(filler.layout, plan=bare),
        load=load,
        location=filler.writer.repository.location,
        memory=memory,
        identity=plan.bound.identity,
        versions=versions(),
        outcomes=filler.runner.outcomes,
    )
    sent: bytes = cloudpickle.dumps(job)
    return sent


@dataclass(eq=False)
class _Block:
    """A block of samples that is claimed, one part of which is under way at a time: parts of a block share chunks."""

    samples: slice
    name: str
    claim: ExitStack
    parts: list[Part] = field(default_factory=list)
    conflicts: int = 0
    whole: bool = True


@dataclass(eq=False)
class _Sent:
    """A part that is under way, with the session that its fork belongs to."""

    block: _Block
    part: Part
    writer: StudyWriter
    key: str
    begun: int = 0


class _Crew:
    """The workers at a study.

    Parameters
    ----------
    filler : StoreFiller
    workers : Workers
    job : bytes
    """

    def __init__(self, filler: StoreFiller, workers: Workers, job: bytes) -> None:
        self._filler, self._workers, self._client, self._job = filler, workers, workers.client, job
        self._name = f"causalunet-{uuid.uuid4().hex[:12]}"
        self._under_way: dict[Any, _Sent] = {}
        self._number = 0
        self._alone = False
        self._left: list[Part] = []
        self._elsewhere: list[slice] = []

    def fill(self, blocks: list[slice]) -> None:
        """Run what some blocks of samples lack."""
        with self._told_workers(), self._filler.writer.repository.at_work():
            self._try()
            self._pass(iter(blocks), wait="no")
            while later := self._elsewhere:
                self._say(f"Waiting for another process that runs {len(later)} blocks of this study.")
                self._elsewhere = []
                self._pass(iter(later), wait="free")
        if self._left:
            warnings.warn(
                f"Workers died at {len(self._left)} parts that record activations of stored runs; they were left out. "
                "Run the study again to try them again.",
                CausalUNetWarning,
                stacklevel=2,
            )

    def _pass(self, blocks: Iterator[slice], *, wait: Wait) -> None:
        """Run blocks, as many at a time as there are workers; those that another process has claimed are noted."""
        more = True
        try:
            while more or self._under_way:
                workers = number_of(self._client)  # asked of the scheduler, once a round
                self._tell_alone(workers)
                room = self._room(workers) - len(self._under_way)
                while more and room > 0:
                    samples = next(blocks, None)
                    more = samples is not None
                    if samples is None:
                        break
                    # Waiting for another process would keep the parts under way from being committed.
                    if wait == "free" and self._under_way:
                        self._collect(everything=True)
                    self._begin(samples, wait=wait)
                    room = self._room(workers) - len(self._under_way)
                self._collect()
        except BaseException:
            self._give_up()
            raise

    def _tell_alone(self, workers: int) -> None:
        """Say that nobody is at work, once each time: what is under way waits for workers that may never come."""
        alone = bool(self._under_way) and not workers
        if alone and not self._alone:
            self._say("No worker is left; what is under way waits for others.")
        self._alone = alone

    def _room(self, workers: int) -> int:
        """Parts that may be under way: one for each worker and one more, or many where those bring workers."""
        return 2 * workers + 2 if adapts(self._client) else workers + 1

    def _begin(self, samples: slice, *, wait: Wait) -> None:
        """Claim a block and send its first part, unless another process has claimed it."""
        name = block_name(samples.start, self._filler.layout.block)
        with ExitStack() as claim:
            if not claim.enter_context(self._filler.writer.claim(name, wait=wait)):
                self._elsewhere.append(samples)
                return
            block = _Block(samples, name, claim.pop_all())
        self._plan_of(block)

    def _plan_of(self, block: _Block) -> None:
        """Find what a block lacks now, and send the first part of it."""
        try:
            block.parts = self._filler.missing(block.samples, self._opened())
            block.whole = True
            self._next(block)
        except BaseException:
            block.claim.close()
            raise

    def _next(self, block: _Block) -> None:
        """Send a block's next part that is still lacking; without any, let the block go."""
        if not self._filler.writer.repository.holds(block.name):
            self._elsewhere.append(block.samples)
            block.claim.close()
            return
        while block.parts:
            part, writer = block.parts.pop(0), self._opened()
            self._filler.check_layout(writer)
            if lacks(writer, part):
                self._number += 1
                self._send(_Sent(block, part, writer, f"{self._name}-{self._number}"))
                return
            block.whole = False
        if not block.whole:  # what another process committed meanwhile changes the parts
            self._plan_of(block)
            return
        block.claim.close()

    def _opened(self) -> StudyWriter:
        return StudyWriter(self._filler.writer.repository)

    def _send(self, sent: _Sent) -> None:
        given, needed = (self._name, sent.key, sent.part, sent.writer.fork()), dict(self._workers.resources) or None
        with asked():
            future = self._client.submit(
                run_part, *given, key=sent.key, resources=needed, retries=self._workers.retries, pure=False
            )
        self._under_way[future] = sent

    def _collect(self, *, everything: bool = False) -> None:
        """Take what has come back, after waiting for something of it for a moment, or for all."""
        while self._under_way:
            with asked(), suppress(TimeoutError):
                wait(list(self._under_way), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED")
            # A result that was lost with its worker is made again.
            for future in [one for one in self._under_way if one.status not in ("pending", "lost")]:
                self._end(future, self._under_way.pop(future))
            if not everything:
                return

    def _end(self, future: Any, sent: _Sent) -> None:
        try:
            self._take(_result_of(future), sent)
        except KilledWorker as killed:
            self._killed(sent, killed)
        except BaseException:
            sent.block.claim.close()
            raise

    def _take(self, ran: Ran, sent: _Sent) -> None:
        """Commit what a worker has written."""
        filler, block = self._filler, sent.block
        try:
            sent.writer.take(ran.written)
            commit_parts(sent.writer, [ran.done])
        except WriteConflictError:
            block.conflicts += 1
            if block.conflicts == _TRIES:
                raise
            self._plan_of(block)
            return
        filler.count(ran.done)
        if filler.advance:
            filler.advance(ran.done.unet_calls)
        record_rounding(filler.writer, ran.rounding)
        self._next(block)

    def _killed(self, sent: _Sent, killed: KilledWorker) -> None:
        """Mark a part as failed at which workers died; one that only waited behind such a part is sent again."""
        with asked():
            begun = Counter(key for _, key in self._client.get_events(self._name))
        sent.begun += begun[sent.key]
        if sent.begun < DEATHS:
            self._number += 1
            key = f"{self._name}-{self._number}"
            self._send(_Sent(sent.block, sent.part, self._opened(), key, sent.begun))
            return
        last = getattr(killed.last_worker, "address", killed.last_worker)
        self._say(f"Workers died {sent.begun} times at one part, the last at {last}; it is left out.")
        if not sent.part.outcomes:
            self._left.append(sent.part)
        else:
            writer = self._opened()
            reason = f"the worker died each of {sent.begun} times that this part was run"
            done = mark_failed(writer, self._filler.layout, sent.part, reason)
            commit_parts(writer, [done])
            self._filler.count(done)
        self._next(sent.block)

    def _try(self) -> None:
        """Let one worker load the model, before anything runs."""
        needed = dict(self._workers.resources) or None
        with asked():
            future = self._client.submit(try_worker, self._name, key=f"{self._name}-0", resources=needed, pure=False)
        if not number_of(self._client):
            self._say("Waiting for a first worker.")
        with asked():
            wait([future])
        try:
            _result_of(future)
        except KilledWorker as killed:
            raise ClusterError(
                "Workers die as they load the model. Their logs say why; often they have too little memory. Nothing "
                "was run."
            ) from killed

    def _give_up(self) -> None:
        """Forget what is under way; workers end their part, and nobody takes it."""
        with suppress(Exception):  # the reason why it is given up counts, such as a scheduler that is gone
            self._client.cancel(list(self._under_way), force=True)
        for sent in self._under_way.values():
            sent.block.claim.close()
        self._under_way.clear()

    @contextmanager
    def _told_workers(self) -> Iterator[None]:
        """Have every worker know the study meanwhile, those too that come later."""
        with asked():
            self._client.register_plugin(JobPlugin(self._name, self._job))
        try:
            yield
        finally:
            with suppress(Exception):  # of a scheduler that is gone
                self._client.unregister_worker_plugin(self._name)

    def _say(self, text: str) -> None:
        say: Callable[[str], None] | None = self._filler.say
        if say:
            say(text)


def _result_of(future: Any) -> Any:
    """What a task gave; its error is raised.

    Raises
    ------
    ClusterError
        The scheduler is gone, or an error that no try took away.
    """
    with asked():  # a future that is cancelled says so as its result
        found = future.exception() if future.status == "error" else future.result()
    if isinstance(found, CausalUNetError | KilledWorker):
        raise found
    if isinstance(found, BaseException):
        raise ClusterError(
            f"A part ended in {type(found).__name__} on every worker that tried it: {found}. What was committed stays, "
            "and the same call goes on after it."
        ) from found
    return found
