"""All runs of a block of samples, step by step together: rows with the same action share traced calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from causalunet.design.samplers import Estimate, Moment, State
from causalunet.errors import FiringError
from causalunet.execute.call.visits import CallResult, UNetCaller
from causalunet.execute.walk.batches import MicroBatch, out_of_memory
from causalunet.models.base import DiffusionModel
from causalunet.models.checking import encoded
from causalunet.models.devices import device_of
from causalunet.noise import initial_noise, step_noise
from causalunet.plan import Action, Call, Plan
from causalunet.sampler import Prediction, estimate_x0, guide

__all__ = ["Block", "Observer", "check_fired", "run_block"]


@dataclass(frozen=True, slots=True)
class Block:
    """Samples that go through the study together.

    Parameters
    ----------
    start : int
        Index of the first sample in the study.
    prompts, seeds : tuple
        Of these samples.
    """

    start: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


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

    def predicted(self, call: Call, x: Tensor, x0: Tensor, eps: Tensor) -> None:
        """What a call predicted for every sample of the block; the baseline's call comes first at each step."""
        ...

    def finished(self, run: int, x0: Tensor) -> None:
        """A run's x_0 for every sample of the block."""
        ...


@dataclass
class _Context:
    """Text embeddings of the block's samples and, under guidance, of the empty prompt."""

    cond: tuple[Tensor, ...]
    uncond: tuple[Tensor, ...]

    def rows(self, samples: Tensor, guided: bool) -> tuple[Tensor, ...]:
        cond = [part[samples] for part in self.cond]
        if not guided:
            return tuple(cond)
        pairs = zip(cond, self.uncond, strict=True)
        return tuple(torch.cat([part, empty.expand_as(part)]) for part, empty in pairs)


@dataclass
class _Walk:
    unet: UNetCaller
    plan: Plan
    block: Block
    micro_batch: MicroBatch
    observer: Observer
    advance: Callable[[int], None] | None
    context: _Context
    fired: Counter[tuple[str, int]] = field(default_factory=Counter)

    def predictions(self, step: int, action: Action, calls: Sequence[Call], states: dict[int, State]) -> Prediction:
        """U-Net predictions for all samples of all calls of one action, (call * sample, channel, y, x)."""
        x = torch.cat([states[call.state].x for call in calls])
        samples = torch.arange(len(self.block.seeds), device=x.device).repeat(len(calls))
        parts: list[Prediction] = []
        start = 0
        while start < len(x):
            rows = slice(start, min(start + self.micro_batch.samples, len(x)))
            pieces = _pieces(calls, len(self.block.seeds), rows)
            try:
                traced = self._call(step, action, pieces, x[rows], samples[rows])
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self.micro_batch.halve(error)
                continue
            self._tell(step, traced, pieces, rows.stop - start)
            # The arithmetic of a step is float32, whatever the U-Net computes in.
            parts.append(guide(traced.output.float(), self.plan.spec.sampler.guidance_scale))
            start = rows.stop
        return Prediction(torch.cat([part.eps for part in parts]), torch.cat([part.fraction for part in parts]))

    def _call(self, step: int, action: Action, pieces: _Pieces, batch: Tensor, samples: Tensor) -> CallResult:
        guided = self.plan.spec.sampler.guidance_scale != 1.0
        # A copy in either case: a U-Net may change its input in place, and the call may be tried again with less.
        doubled = torch.cat([batch, batch]) if guided else batch.clone()
        timesteps = torch.full((len(doubled),), float(self.plan.schedule.timestep(step)), device=batch.device)
        wanted = tuple(dict.fromkeys(name for call, _, _ in pieces for name in self.observer.wants(call)))
        return self.unet(action, (doubled, timesteps, *self.context.rows(samples, guided)), len(batch), wanted)

    def _tell(self, step: int, traced: CallResult, pieces: _Pieces, n: int) -> None:
        for place, times in traced.fired.items():
            self.fired[place, step] += times * n
        for call, of_call, of_batch in pieces:
            self.observer.fired(call, of_call, traced.fired)
            names = self.observer.wants(call)
            values = {name: traced.activations[name][of_batch] for name in names if name in traced.activations}
            if values:
                self.observer.activations(call, of_call, values)
        if self.advance is not None:
            self.advance(n)


_Pieces = list[tuple[Call, slice, slice]]


def run_block(
    unet: UNetCaller,
    plan: Plan,
    block: Block,
    *,
    micro_batch: int | MicroBatch,
    observer: Observer,
    states: Mapping[int, State] | None = None,
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
        model, device = plan.bound.model, device_of(plan.bound.model)
        guided = plan.spec.sampler.rows_per_sample > 1
        context = _Context(_encode_once(model, block.prompts), encoded(model, [""]) if guided else ())
        size = micro_batch if isinstance(micro_batch, MicroBatch) else MicroBatch(micro_batch)
        walk = _Walk(unet, plan, block, size, observer, advance, context)
        if states is None:
            states = {0: State(torch.from_numpy(initial_noise(block.seeds, plan.image_shape)))}
        alive = {number: _on(device, state) for number, state in states.items()}
        for step, groups in plan.by_step.items():
            _step(walk, step, groups, alive)
            last_use = {call.state for calls in groups.values() for call in calls}
            for number in last_use:
                del alive[number]
    return walk.fired


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
        for component in {fill.site.component for fill in call.action.fills}:
            declared[component, call.step] += samples
    if fired != declared:
        wrong = {key: (fired[key], declared[key]) for key in fired | declared if fired[key] != declared[key]}
        raise FiringError(
            f"Edits fired another number of times than declared, (place, step): (fired, declared): {wrong}."
        )


def _step(walk: _Walk, step: int, groups: dict[Action, list[Call]], states: dict[int, State]) -> None:
    """One step of every run that has a call there; drawn states are added to ``states``."""
    plan, n, sampler = walk.plan, len(walk.block.seeds), walk.plan.spec.sampler
    at, noise = plan.schedule.level(step), None
    for action, calls in groups.items():
        eps, fraction = walk.predictions(step, action, calls, states)
        for index, call in enumerate(calls):
            rows = slice(index * n, (index + 1) * n)
            state = states[call.state]
            x0 = estimate_x0(state.x, eps[rows], at.alpha_bar, clip=plan.bound.model.clip)
            walk.observer.predicted(call, state.x, x0, eps[rows])
            if not call.forks:
                continue
            if noise is None and sampler.draws:
                noise = torch.from_numpy(step_noise(walk.block.seeds, step, plan.image_shape)).to(x0.device)
            estimate = Estimate(x0, eps[rows], fraction[rows])
            for fork in call.forks:
                going = sampler.step(state, estimate, at, plan.schedule.level(fork.target), noise)
                if fork.target:
                    states[fork.state] = going
                    continue
                for run in fork.runs:
                    walk.observer.finished(run, going.x)


def _on(device: torch.device, state: State) -> State:
    past = (Moment(level, *(part.to(device) for part in parts)) for level, *parts in state.past)
    return State(state.x.to(device), tuple(past))


def _encode_once(model: DiffusionModel, prompts: Sequence[str]) -> tuple[Tensor, ...]:
    """Encode each distinct prompt once and lay the rows out by sample."""
    distinct = list(dict.fromkeys(prompts))
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts])
    return tuple(part[rows.to(part.device)] for part in encoded(model, distinct))


def _pieces(calls: Sequence[Call], n: int, rows: slice) -> _Pieces:
    """Which samples of which calls lie in some rows: (call, samples of the call, rows of the batch)."""
    pieces = []
    for index in range(rows.start // n, (rows.stop - 1) // n + 1):
        start, stop = max(rows.start, index * n), min(rows.stop, (index + 1) * n)
        of_call = slice(start - index * n, stop - index * n)
        pieces.append((calls[index], of_call, slice(start - rows.start, stop - rows.start)))
    return pieces
