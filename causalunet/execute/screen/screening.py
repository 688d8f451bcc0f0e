"""What interventions change of the image, to first order in what they change of a step.

With d_s what an intervention changes of the state x_s by its call at one step, and J_s the Jacobian of the rest of the
uncut run, the image changes by the sum of J_s d_s over the steps of its window. No J is made: random signs v of the
image go back through the run once, J_s' v, and v' J_s d_s is then one product for every intervention. The mean of its
square over signs is |J_s d_s|^2 (Hutchinson 1989).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.fills import Identity
from causalunet.design.samplers import Estimate, State
from causalunet.errors import SpecError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.screen.strengths import Strength, by_strength, check_differentiable, reaching
from causalunet.execute.walk.batches import micro_batch_size, places_asked
from causalunet.execute.walk.lockstep import Block, Walk, take_step, walk_of
from causalunet.execute.walk.memory import budget_of
from causalunet.models.tf32 import exact_float32
from causalunet.plan import BASELINE, Action, Call, Fork, PlacedFill, Plan
from causalunet.programs import Departure, departures
from causalunet.sources import begins_from
from causalunet.tree import RunId, StateId

__all__ = ["Screened", "screen_plan"]

_MOST_SAMPLES = 8
_GRAPH = 8
"""How much more of a call is held where it is gone back through than where it is not, about."""
_PROBES = 1 << 40
"""Added to the seed of a sample in the key of its signs, which so differ from the noise of its steps."""


class Screened(NamedTuple):
    """What was estimated, and what it took.

    Attributes
    ----------
    change : ndarray of float64, (probe, intervention, sample)
        Squared products of signs with the change of x_0, per number: their mean over probes is its mean square.
    calls, backward : int
        U-Net calls forwards, and backwards.
    """

    change: NDArray[np.float64]
    calls: int
    backward: int


def screen_plan(
    plan: Plan,
    *,
    by_gradient: bool,
    probes: int,
    memory: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Screened:
    """Estimate what every intervention of a plan changes of every sample's image.

    Parameters
    ----------
    plan : Plan
    by_gradient : bool
        Whether what an intervention changes of a step is taken to first order too, and not computed.
    probes : int
        Random signs per sample.
    memory : int, optional
        As for `causalunet.Study.run`.
    advance : callable, optional
        Told the number of samples after every U-Net call.

    Raises
    ------
    SpecError
        The sampler looks back on steps that an intervention skips, or a gradient is asked for where there is none.
    """
    departing = _departing(plan, by_gradient=by_gradient)
    model, samples = plan.bound.model, plan.spec.samples
    rows = micro_batch_size(
        plan.anatomy, budget_of(memory, model), plan.spec.sampler.rows_per_sample, places_asked(plan)
    )
    size = max(1, min(_MOST_SAMPLES, rows // _GRAPH))
    found = list[NDArray[np.float64]]()
    calls = backward = 0
    with (
        exact_float32(),
        torch.inference_mode(False),
        torch.no_grad(),
        InstalledUNet(model.unet, model.anatomy) as unet,
    ):
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            block = Block(start, tuple(one.prompt for one in part), tuple(one.start for one in part))
            screening = _Screening(unet, plan, block, departing, by_gradient, probes, advance)
            found.append(screening.changes())
            calls, backward = calls + screening.calls, backward + screening.backward
    return Screened(np.concatenate(found, axis=2), calls, backward)


def _departing(plan: Plan, *, by_gradient: bool) -> dict[int, dict[Departure, list[RunId]]]:
    """By step, what interventions do there that the baseline does not, and which of them do it."""
    found: dict[int, dict[Departure, list[RunId]]] = defaultdict(lambda: defaultdict(list))
    sampler = plan.spec.sampler
    for run, program in plan.programs.items():
        for one in departures(program) if run != BASELINE else ():
            label = plan.spec.interventions[run].label
            if one.jumps and one.target and sampler.history:
                raise SpecError(
                    f"{label!r} skips steps, and the sampler {sampler.name!r} looks back on those: no first order "
                    "leads there from the uncut run. Screen without it, or take a sampler of no history, as DDIM()."
                )
            fills = list(one.action.every_fill)
            if not one.jumps and all(type(placed.fill) is Identity for placed in fills):
                continue
            for placed in fills if by_gradient else ():
                check_differentiable(repr(label), placed, plan.anatomy)
            if by_gradient and sampler.several:
                raise SpecError(
                    f"The sampler {sampler.name!r} calls the U-Net several times a step, and a gradient is taken of "
                    "one. Screen with method='one_step'."
                )
            found[one.step][one].append(run)
    return found


_Parts = tuple[Tensor, ...]
"""Of a state, all that the rest of a run depends on; of several states one in front of the other."""


class _Image:
    """An observer that keeps the state that a run ends with."""

    def __init__(self) -> None:
        self.by_run: dict[int, Tensor] = {}

    def wants(self, call: Call) -> tuple[str, ...]:
        return ()

    def activations(self, call: Call, rows: slice, values: dict[str, Tensor]) -> None:
        pass

    def fired(self, call: Call, rows: slice, places: Mapping[str, int]) -> None:
        pass

    def predicted(self, call: Call, stage: int, estimate: Estimate) -> None:
        pass

    def finished(self, run: int, x0: Tensor) -> None:
        self.by_run[run] = x0


@dataclass
class _Screening:
    """Of one block of samples."""

    unet: InstalledUNet
    plan: Plan
    block: Block
    departing: Mapping[int, Mapping[Departure, Sequence[RunId]]]
    by_gradient: bool
    probes: int
    advance: Callable[[int], None] | None
    calls: int = 0
    backward: int = 0
    states: dict[int, State] = field(default_factory=dict)
    """Of the uncut run, by step; the image as step 0."""
    adjoints: dict[int, _Parts] = field(default_factory=dict)
    """By step, the gradients of signs times the image with respect to parts of the state, each (probe, sample, ...)."""

    def changes(self) -> NDArray[np.float64]:
        """Squared products of signs and changes, (probe, intervention, sample)."""
        self._uncut = self._walk(self.plan.part((BASELINE,)))
        n, number = len(self.block.seeds), int(np.prod(self.plan.image_shape))
        total = torch.zeros(len(self.plan.spec.interventions), self.probes, n, dtype=torch.float64)
        self._run()
        for products in (self._backwards(), self._forwards()):
            for one, product in products:
                for run in self.departing[one.step][one]:
                    total[run] += product.double().cpu()
        return (total.square() / number).transpose(0, 1).numpy()

    def _walk(self, plan: Plan) -> Walk:
        n = len(self.block.seeds)
        walk = walk_of(self.unet, plan, self.block, micro_batch=n * 64, observer=_Image(), advance=self._count)
        # Copies: what is made where gradients are off cannot be part of a graph.
        walk.contexts = tuple(tuple(part.clone() for part in parts) for parts in walk.contexts)
        walk.given = None if walk.given is None else walk.given.clone()
        return walk

    def _count(self, samples: int) -> None:
        self.calls += samples
        if self.advance is not None:
            self.advance(samples)

    def _run(self) -> None:
        """The uncut run, of which all states are kept."""
        steps = self.plan.schedule.steps
        self.states[steps] = self._uncut.begun()[StateId(0)]
        for step in range(steps, 0, -1):
            self.states[step - 1] = self._next(step, self.states[step], Action())

    def _next(self, step: int, state: State, action: Action) -> State:
        """Where one step of the uncut run goes, with what is done to its call."""
        calls = int(self.plan.calls_by_step[BASELINE][self.plan.schedule.steps - step])
        call = Call(step, action, StateId(0), (Fork(step - 1, StateId(1), (BASELINE,), calls),))
        states = {StateId(0): state}
        take_step(self._uncut, step, {action: [call]}, states)
        return states[StateId(1)] if step > 1 else State(_image_of(self._uncut)[BASELINE])

    # Backwards: signs through the uncut run, and with them how strongly fills would act.

    def _backwards(self) -> Iterator[tuple[Departure, Tensor]]:
        """Go back as far as somebody departs; by gradients, say what fills do there."""
        x0 = self.states[0].x
        self.adjoints[0] = (self._signs().to(x0.device),)
        by_gradient = self.by_gradient
        last = max((one.step if by_gradient else one.target for at in self.departing.values() for one in at), default=0)
        for step in range(1, last + 1):
            departing = self.departing.get(step, {}) if by_gradient else {}
            fills = {one: reaching(one.action, self.plan.anatomy) for one in departing}
            of = self._back(step, dict.fromkeys(placed for placed in (p for ps in fills.values() for p in ps)))
            for one, placed in fills.items():
                for each in placed:
                    yield one, of[each]

    def _signs(self) -> Tensor:
        """Random signs of the image, (probe, sample, channel, y, x); of a sample the same in any batch."""
        shape = (self.probes, *self.plan.image_shape)
        keys = ([seed, _PROBES] for seed in self.block.seeds)
        drawn = [np.random.Generator(np.random.Philox(key=key)).integers(0, 2, shape) for key in keys]
        return torch.from_numpy(np.stack(drawn, axis=1).astype(np.float32) * 2 - 1)

    def _back(self, step: int, fills: dict[PlacedFill, None]) -> dict[PlacedFill, Tensor]:
        """One step back: the adjoint of its state, and products of signs with what fills do, (probe, sample)."""
        strengths = {placed: by_strength(placed) for placed in fills}
        state = _leaves(self.states[step])
        with torch.enable_grad():
            going = _parts(self._next(step, state, Action(frozenset(strengths.values()))))
        ends = [(part, signs) for part, signs in zip(going, self.adjoints[step - 1], strict=True) if part.requires_grad]
        leaves = _parts(state)
        rows = {placed: _rows_of(there) for placed, there in strengths.items()}
        wanted = [*leaves, *(row for each in rows.values() for row in each)]
        found = list[Sequence[Tensor]]()
        for probe in range(self.probes):
            if not ends:  # what the sampler takes of the call owes nothing to the state
                found.append([torch.zeros_like(one) for one in wanted])
                continue
            parts, signs = [part for part, _ in ends], [sign[probe] for _, sign in ends]
            keep = probe + 1 < self.probes
            found.append(torch.autograd.grad(parts, wanted, signs, retain_graph=keep, materialize_grads=True))
            self._count_back(step)
        stacked = [torch.stack(each) for each in zip(*found, strict=True)]
        self.adjoints[step] = tuple(stacked[: len(leaves)])
        others, products = iter(stacked[len(leaves) :]), dict[PlacedFill, Tensor]()
        for placed, each in rows.items():
            of_rows = torch.cat([next(others) for _ in each], dim=1)
            # Rows are branch by branch, with the samples in each.
            products[placed] = of_rows.unflatten(1, (-1, len(self.block.seeds))).sum(1)
        return products

    def _count_back(self, step: int) -> None:
        calls = int(self.plan.calls_by_step[BASELINE][self.plan.schedule.steps - step])
        self.backward += calls * len(self.block.seeds)

    # Forwards: single steps that depart from the uncut run, and what is left of that by the end.

    def _forwards(self) -> Iterator[tuple[Departure, Tensor]]:
        """Make the calls of all departures from the states of the uncut run."""
        walk, steps, by_gradient = self._walk(self.plan), self.plan.schedule.steps, self.by_gradient
        begun = walk.begun(of_block=False)
        others = {run: begun[begins_from(BASELINE - run, steps)] for run in self.plan.sources.lowest}
        lowest = min((*(self.departing or (steps + 1,)),))
        for step in range(steps, lowest - 1, -1):
            departing = [one for one in self.departing.get(step, {}) if one.jumps or not by_gradient]
            made = _Calls(walk, step, self.states[step], others)
            if self.plan.kept:
                made.uncut()
            for one in departing:
                made.departs(one, self.departing[step][one], Action() if by_gradient else one.action)
            others = made.take()
            for one in departing:
                yield one, self._product(made.ended[one], one.target)
            walk.kept.drop(step)

    def _product(self, going: State, target: int) -> Tensor:
        """Products of signs with what is left by the end of another state at a step, (probe, sample)."""
        there, was = _parts(going), _parts(self.states[target])
        products = (
            ((part - uncut) * signs).flatten(2).sum(2)
            for part, uncut, signs in zip(there, was, self.adjoints[target], strict=True)
        )
        return torch.stack([*products]).sum(0)


class _Calls:
    """Calls of one step, all from the state of the uncut run, but for those of runs that are made for their values."""

    def __init__(self, walk: Walk, step: int, state: State, others: Mapping[RunId, State]) -> None:
        self._walk, self._step, self._others = walk, step, dict(others)
        self._states = {StateId(0): state}
        self._forks: dict[Action, list[Fork]] = defaultdict(list)
        self._replays: dict[Action, tuple[RunId, ...]] = {}
        self._number = 0
        self._at: dict[Departure, tuple[StateId, RunId]] = {}
        self.ended: dict[Departure, State] = {}

    def uncut(self) -> None:
        """The call of the uncut run, which leaves values for any intervention."""
        self._forks[Action()] = []
        self._replays[Action()] = (BASELINE, *(run for run in self._walk.plan.programs if run != BASELINE))

    def departs(self, one: Departure, runs: Sequence[RunId], action: Action) -> None:
        """The call of a departure; those of one action and several targets share theirs."""
        number = self._new()
        self._at[one] = number, runs[0]
        calls = int(self._walk.plan.calls_by_step[runs[0]][self._walk.plan.schedule.steps - self._step])
        self._forks[action.first].append(Fork(one.target, number, tuple(runs), calls, action.later))

    def take(self) -> dict[RunId, State]:
        """Make them all; gives the next states of runs that are made for their values."""
        plan, step = self._walk.plan, self._step
        groups = {
            action: [Call(step, action, StateId(0), tuple(forks), self._replays.get(action, ()))]
            for action, forks in self._forks.items()
        }
        onward: dict[RunId, StateId] = {}
        for run, state in self._others.items():
            came, goes = self._new(), self._new()
            self._states[came] = state
            ends = step == plan.sources.lowest[run]
            calls = int(plan.calls_by_step[run][plan.schedule.steps - step])
            forks = () if ends else (Fork(step - 1, goes, (run,), calls),)
            groups.setdefault(Action(), []).append(Call(step, Action(), came, forks, (run,) if ends else ()))
            if not ends:
                onward[run] = goes
        # Values are taken by edited calls of the same step, so the untouched ones come first.
        take_step(self._walk, step, dict(sorted(groups.items(), key=lambda group: bool(group[0].fills))), self._states)
        images = _image_of(self._walk)
        for one, (number, run) in self._at.items():
            self.ended[one] = self._states[number] if one.target else State(images[run])
        return {run: self._states[number] for run, number in onward.items()}

    def _new(self) -> StateId:
        self._number += 1
        return StateId(self._number)


def _image_of(walk: Walk) -> dict[int, Tensor]:
    observer = walk.observer
    assert isinstance(observer, _Image)
    return observer.by_run


def _parts(state: State) -> _Parts:
    return (state.x, *(part for past in state.past for part in (past.x0, past.eps, past.x)))


def _leaves(state: State) -> State:
    """The same state, to be differentiated by."""
    x, *others = (part.clone().requires_grad_() for part in _parts(state))
    of_past = iter(others)
    return State(x, tuple(past._replace(x0=next(of_past), eps=next(of_past), x=next(of_past)) for past in state.past))


def _rows_of(placed: PlacedFill) -> list[Tensor]:
    assert isinstance(placed.fill, Strength)
    return placed.fill.rows
