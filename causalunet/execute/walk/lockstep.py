"""All runs of a block of samples, step by step together: rows with the same action share traced calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from causalunet.design.donors import RunOf
from causalunet.design.samplers import Estimate, Query, State
from causalunet.design.starts import Start, first_states, start_of
from causalunet.design.study import Sample
from causalunet.design.words import words_of
from causalunet.errors import FiringError
from causalunet.execute.call.guided import guided
from causalunet.execute.call.visits import CallResult, UNetCaller
from causalunet.execute.walk.batches import MicroBatch, out_of_memory
from causalunet.execute.walk.kept import KeptValues, Piece
from causalunet.models.checking import told
from causalunet.models.devices import device_of
from causalunet.models.given import given_images
from causalunet.noise import step_noise
from causalunet.plan import Action, Call, Fork, Plan
from causalunet.prediction import prediction_of, training_of
from causalunet.schedule import Level
from causalunet.sources import begins_from
from causalunet.stepping import Stepping
from causalunet.thresholding import bounded
from causalunet.tree import StateId

__all__ = ["Block", "Observer", "Walk", "check_fired", "run_block", "take_step", "walk_of"]


@dataclass(frozen=True, slots=True)
class Block:
    """Samples that go through the study together.

    Parameters
    ----------
    start : int
        Index of the first sample in the study.
    prompts : tuple of str
    starts : tuple of Start, or of int
        Of these samples; a number is the seed of `Noise`.
    """

    start: int
    prompts: tuple[str, ...]
    starts: tuple[Start, ...]

    def __init__(self, start: int, prompts: tuple[str, ...], starts: Iterable[Start | int]) -> None:
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "prompts", prompts)
        object.__setattr__(self, "starts", tuple(map(start_of, starts)))

    @property
    def seeds(self) -> tuple[int, ...]:
        """That name the noise of every step."""
        return tuple(start.seed for start in self.starts)


class Observer(Protocol):
    """Who is told what happens; the results recorder is one."""

    def wants(self, call: Call) -> tuple[str, ...]:
        """Components whose activations are wanted of a call."""
        ...

    def activations(self, call: Call, rows: slice, values: dict[str, Tensor]) -> None:
        """Conditional-branch activations of some samples of a call."""
        ...

    def fired(self, call: Call, rows: slice, places: Mapping[str, int]) -> None:
        """How often each edited place was replaced for some samples of a call."""
        ...

    def predicted(self, call: Call, stage: int, estimate: Estimate) -> None:
        """What a call predicted for every sample of the block; the baseline's call comes first at each step.

        ``stage`` counts the U-Net calls of the step from 0; of a later one ``call`` has only the runs that it serves.
        """
        ...

    def finished(self, run: int, x0: Tensor) -> None:
        """A run's x_0 for every sample of the block."""
        ...


@dataclass
class Walk:
    """What takes the steps of a block of samples; made by `walk_of`."""

    unet: UNetCaller
    plan: Plan
    blocks: tuple[Block, ...]  # the samples, and the same with prompts or seeds of runs that are made for their values
    micro_batch: MicroBatch
    observer: Observer
    advance: Callable[[int], None] | None
    contexts: tuple[tuple[Tensor, ...], ...]
    """Of what each branch of the guidance is told, one row per sample of the block."""
    device: torch.device
    stepping: Stepping
    given: Tensor | None
    """Image that the process of the model is shifted by, one for each row of a context."""
    kept: KeptValues
    fired: Counter[tuple[str, int]] = field(default_factory=Counter)

    def estimates(self, action: Action, asked: Sequence[_Asked], stage: int) -> Iterator[Estimate]:
        """Call the U-Net for all samples of what is asked at a step under one action; an estimate for each, in turn."""
        n = len(self.blocks[0].seeds)
        x = torch.cat([one.query.x for one in asked])
        model, guidance, prediction = self.plan.bound.model, self.stepping.sampler.guided_by, self.stepping.prediction
        values, fractions = list[Tensor](), list[Tensor | None]()
        start = 0
        while start < len(x):
            rows = slice(start, min(start + self.micro_batch.samples, len(x)))
            pieces = _pieces(asked, n, rows)
            try:
                traced = self._call(action, pieces, x[rows], first=stage == 0)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self.micro_batch.halve(error)
                continue
            self._tell(traced, pieces, rows.stop - start, first=stage == 0)
            # The arithmetic of a step is float32, whatever the U-Net computes in.
            value, fraction = guided(traced.output.float(), guidance, prediction)
            values.append(value)
            fractions.append(fraction)
            start = rows.stop
        value = torch.cat(values)
        fraction = torch.cat([part for part in fractions if part is not None]) if prediction.variance else None
        for index, (call, query) in enumerate(asked):
            of_call = slice(index * n, (index + 1) * n)
            x0, eps = self.stepping.estimated(value[of_call], *query, self.given_of(call))
            of_variance = None if fraction is None else fraction[of_call]
            estimate = Estimate(bounded(model, x0), eps, of_variance, *query)
            self.observer.predicted(call, stage, estimate)
            yield estimate

    def begun(self, *, of_block: bool = True) -> dict[StateId, State]:
        """The first states of the samples, and of runs that are made for their values, by number."""
        steps = self.plan.schedule.steps
        numbers = {begins_from(source, steps): source for source in range(1, len(self.blocks))}
        if of_block:
            numbers[StateId(0)] = 0
        return {number: _begun(self, self.blocks[source], source) for number, source in numbers.items()}

    def given_of(self, call: Call) -> Tensor | None:
        """The given image of the samples of a call."""
        n = len(self.blocks[0].seeds)
        return None if self.given is None else self.given[n * call.source : n * (call.source + 1)]

    def told_more(self, action: Action, ways: Sequence[_Way], at: Level) -> Iterator[_Way]:
        """Make the next U-Net call of a step for ways that have had equally many, all together."""
        # Only the runs of the fork: others that shared the first call look elsewhere.
        asked = [
            _Asked(
                replace(way.call, forks=(way.fork,), replays=()),
                self._noised(
                    way, self.stepping.further(way.state, way.estimates, at, way.to, self.given_of(way.call)), at
                ),
            )
            for way in ways
        ]
        said = self.estimates(action, asked, len(ways[0].estimates))
        for way, estimate in zip(ways, said, strict=True):
            yield way._replace(estimates=(*way.estimates, estimate))

    def _noised(self, way: _Way, query: Query, at: Level) -> Query:
        """With the noise that the sampler adds before a further call, the same for all runs of a sample."""
        sampler = self.plan.spec.sampler
        spread = sampler.further_spread(way.estimates, at, query.level) if sampler.draws else 0.0
        if not spread:
            return query
        seeds, stage = self.blocks[way.call.source].seeds, len(way.estimates)
        drawn = torch.from_numpy(step_noise(seeds, way.call.step, self.plan.image_shape, stage))
        return query._replace(x=query.x + spread * drawn.to(self.device))

    def _call(self, action: Action, pieces: _Pieces, batch: Tensor, *, first: bool) -> CallResult:
        branches, device, n = len(self.contexts), batch.device, len(self.blocks[0].seeds)
        # A copy in any case: a U-Net may change its input in place, and the call may be tried again with less.
        # All of them are of one level where the process has them of several sizes.
        repeated = torch.cat([self.stepping.put_in(batch, pieces[0][0].query.level)] * branches)
        samples = torch.cat(
            [torch.arange(at.start, at.stop, device=device) + n * one.call.source for one, at, _ in pieces]
        )
        levels = [one.query.level for one, of_call, _ in pieces for _ in range(of_call.start, of_call.stop)]
        timesteps = torch.tensor([one.timestep for one in levels] * branches, dtype=torch.float32, device=device)
        if any(one.scale != 1 for one in levels):
            scales = torch.tensor([one.scale for one in levels] * branches, dtype=torch.float32, device=device)
            repeated = repeated * scales[:, None, None, None]
        told = (torch.cat([part[samples] for part in parts]) for parts in zip(*self.contexts, strict=True))
        # What is stored and kept of a step is what its first call gave: every sampler makes that one, and it looks at
        # the state itself.
        calls = [one.call for one, _, _ in pieces] if first else []
        wanted = tuple(dict.fromkeys(name for call in calls for name in self.observer.wants(call)))
        keep = tuple(dict.fromkeys(place for call in calls for place in self.kept.places(call)))
        context = self.kept.context(action, [Piece(one.call, *at) for one, *at in pieces])
        context = replace(context, tokens=self._tokens(action, pieces))
        arguments = (repeated, timesteps, *told)
        return self.unet(action, arguments, len(batch), wanted, keep=keep, context=context)

    def _tokens(self, action: Action, pieces: _Pieces) -> dict[tuple[str, ...], list[tuple[int, ...]]]:
        """Tokens that words name in every row: none in branches that are told no prompt."""
        words = {words_of(placed.site.view) for placed in action.fills} - {()}
        if not words:
            return {}
        conditional, said = self.plan.spec.sampler.guided_by.conditional, self.plan.bound.tokens
        prompts = [prompt for one, at, _ in pieces for prompt in self.blocks[one.call.source].prompts[at]]
        return {
            named: [
                said.get((prompt, named), ()) if branch == conditional else ()
                for branch in range(len(self.contexts))
                for prompt in prompts
            ]
            for named in words
        }

    def _tell(self, traced: CallResult, pieces: _Pieces, n: int, *, first: bool) -> None:
        for (call, _), of_call, of_batch in pieces:
            for place, times in traced.fired.items():
                self.fired[place, call.step] += times * (of_call.stop - of_call.start)
            self.observer.fired(call, of_call, traced.fired)
            if first:
                self.kept.note(Piece(call, of_call, of_batch), traced.kept, n)
            names = self.observer.wants(call)
            values = {name: traced.activations[name][of_batch] for name in names if name in traced.activations}
            if values:
                self.observer.activations(call, of_call, values)
        if self.advance is not None:
            self.advance(n)


class _Asked(NamedTuple):
    """A U-Net call of a step, with the runs that it serves."""

    call: Call
    query: Query


_Pieces = list[tuple[_Asked, slice, slice]]


def run_block(
    unet: UNetCaller,
    plan: Plan,
    block: Block,
    *,
    micro_batch: int | MicroBatch,
    observer: Observer,
    states: Mapping[StateId, State] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Counter[tuple[str, int]]:
    """Carry all runs of a block of samples from noise to image.

    Parameters
    ----------
    unet : UNetCaller
        Of the plan's model, such as a `TracedUNet`.
    plan : Plan
    block : Block
    micro_batch : int or MicroBatch
        Samples per U-Net call; guidance doubles the rows. Halved when memory runs out.
    observer : Observer
    states : mapping, optional
        Number to `State` of those that the plan starts from; by default the initial noise as state 0.
    advance : callable, optional
        Told the number of samples after every U-Net call.

    Returns
    -------
    Counter
        How often each edited place was replaced, by (place, step), counted in samples.
    """
    with torch.inference_mode():
        walk = walk_of(unet, plan, block, micro_batch=micro_batch, observer=observer, advance=advance)
        given = {number: _on(walk.device, state) for number, state in (states or {}).items()}
        alive = given | walk.begun(of_block=states is None)
        for step, groups in plan.by_step.items():
            take_step(walk, step, groups, alive)
            # A state is used at the one step that its number is drawn for, by all calls that start from it.
            last_use = {call.state for calls in groups.values() for call in calls}
            for number in last_use:
                del alive[number]
            walk.kept.drop(step)
    return walk.fired


def walk_of(
    unet: UNetCaller,
    plan: Plan,
    block: Block,
    *,
    micro_batch: int | MicroBatch,
    observer: Observer,
    advance: Callable[[int], None] | None = None,
) -> Walk:
    """Make ready what a block of samples needs on its way; parameters are those of `run_block`."""
    model = plan.bound.model
    others = [_of_others(plan, block, run) for run in plan.sources.others()]
    prompts = [prompt for each in (block, *others) for prompt in each.prompts]
    contexts = told(model, plan.spec.sampler.guided_by, prompts)
    size = micro_batch if isinstance(micro_batch, MicroBatch) else MicroBatch(micro_batch)
    stepping = Stepping(plan.spec.sampler, training_of(model), prediction_of(model))
    given = given_images(model, contexts[plan.spec.sampler.guided_by.conditional])
    kept = KeptValues(plan, len(block.seeds), len(model.alpha_bar))
    blocks = (block, *others)
    return Walk(unet, plan, blocks, size, observer, advance, contexts, device_of(model), stepping, given, kept)


def check_fired(plan: Plan, fired: Counter[tuple[str, int]], samples: int) -> None:
    """Compare how often every place was edited at every step with what the plan declares.

    Parameters
    ----------
    plan : Plan
    fired : Counter
        From `run_block`.
    samples : int
        In that block.

    Raises
    ------
    FiringError
        An intervention did not fire as often as declared.
    """
    declared: Counter[tuple[str, int]] = Counter()
    for call in plan.calls:
        for action in call.actions:
            for component in {fill.site.component for fill in action.fills}:
                declared[component, call.step] += samples
    if fired != declared:
        wrong = {key: (fired[key], declared[key]) for key in fired | declared if fired[key] != declared[key]}
        raise FiringError(
            f"Edits fired another number of times than declared, (place, step): (fired, declared): {wrong}."
        )


def take_step(walk: Walk, step: int, groups: Mapping[Action, list[Call]], states: dict[StateId, State]) -> None:
    """One step of every run that has a call there; drawn states are added to ``states``.

    Parameters
    ----------
    walk : Walk
    step : int
    groups : mapping
        Calls by their action.
    states : dict
        Where the calls start from, by number.
    """
    plan, noise = walk.plan, dict[int, Tensor]()
    at = plan.schedule.level(step)
    if plan.spec.sampler.draws:
        # One draw for all runs of a sample: they differ by what was done to them, and by no noise. Where no call has a
        # fork, no state is drawn.
        for source in {call.source for calls in groups.values() for call in calls if call.forks}:
            drawn = step_noise(walk.blocks[source].seeds, step, plan.image_shape)
            noise[source] = torch.from_numpy(drawn).to(walk.device)
    for action, calls in groups.items():
        going: Iterable[_Way] = _first_calls(walk, action, calls, states, at)
        # Ways need as many calls as their sampler says, which may differ by where they go; those that need more go on
        # together.
        while waiting := [way for way in going if not _arrived(walk, way, at, noise, states)]:
            going = (way for then, ways in _alike(waiting).items() for way in walk.told_more(then, ways, at))


def _alike(ways: Iterable[_Way]) -> dict[Action, list[_Way]]:
    """Ways by what is done to their next call: an edit may be of one call of its steps."""
    found: dict[Action, list[_Way]] = {}
    for way in ways:
        found.setdefault(way.call.at(way.fork, len(way.estimates)), []).append(way)
    return found


def _arrived(walk: Walk, way: _Way, at: Level, noise: Mapping[int, Tensor], states: dict[StateId, State]) -> bool:
    """Take the step once the U-Net has said all there is to say, and not before."""
    if len(way.estimates) < way.fork.calls:
        return False
    drawn, given = noise.get(way.call.source), walk.given_of(way.call)
    going = walk.stepping.step(way.state, way.estimates, at, way.to, drawn, given)
    if way.fork.target:
        states[way.fork.state] = going
    else:
        for run in way.fork.runs:
            walk.observer.finished(run, going.x)
    return True


class _Way(NamedTuple):
    """Where some runs go from a shared call, and what the U-Net has said on the way."""

    call: Call
    fork: Fork
    state: State
    to: Level
    estimates: tuple[Estimate, ...]


def _first_calls(
    walk: Walk, action: Action, calls: Sequence[Call], states: Mapping[StateId, State], at: Level
) -> Iterator[_Way]:
    """Make the first U-Net call of a step for all runs under one action, and say in turn where each goes from there."""
    asked = [_Asked(call, Query(states[call.state].x, at)) for call in calls]
    for call, estimate in zip(calls, walk.estimates(action, asked, 0), strict=True):
        for fork in call.forks:
            yield _Way(call, fork, states[call.state], walk.plan.schedule.level(fork.target), (estimate,))


def _begun(walk: Walk, block: Block, source: int) -> State:
    """The first states of samples."""
    noise = torch.from_numpy(first_states(block.starts, walk.plan.image_shape)).to(walk.device)
    n, level = len(block.seeds), walk.plan.schedule.level(walk.plan.schedule.steps)
    given = None if walk.given is None else walk.given[n * source : n * (source + 1)]
    return State(walk.stepping.first(noise, level, given))


def _on(device: torch.device, state: State) -> State:
    past = (Estimate(one.x0.to(device), one.eps.to(device), None, one.x.to(device), one.level) for one in state.past)
    return State(state.x.to(device), tuple(past))


def _of_others(plan: Plan, block: Block, run: RunOf) -> Block:
    """Samples with the prompt and start of a run that is made for its values."""
    samples = map(Sample, block.prompts, block.starts)
    others = [plan.donor_runs.of(run, sample) for sample in samples]
    return Block(block.start, tuple(one.prompt for one in others), tuple(one.start for one in others))


def _pieces(asked: Sequence[_Asked], n: int, rows: slice) -> _Pieces:
    """Which samples of which calls lie in some rows: (call, samples of the call, rows of the batch)."""
    pieces = []
    for index in range(rows.start // n, (rows.stop - 1) // n + 1):
        start, stop = max(rows.start, index * n), min(rows.stop, (index + 1) * n)
        of_call = slice(start - index * n, stop - index * n)
        pieces.append((asked[index], of_call, slice(start - rows.start, stop - rows.start)))
    return pieces
