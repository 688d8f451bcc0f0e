"""Whether a model is what studies take it for: its parts one by one, and every place that can be intervened on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from causalunet.design.anatomy import Anatomy
from causalunet.design.inner import unnumbered
from causalunet.design.limits import shown
from causalunet.errors import ComponentError, SpecError
from causalunet.execute.call.precision import OutputTypes
from causalunet.models.alone import alone
from causalunet.models.base import DiffusionModel
from causalunet.models.checking import check_model as check_protocol
from causalunet.models.checking import check_values, context_of, encoded
from causalunet.models.demands import (
    Observed,
    call_unet,
    check_counts,
    check_images,
    check_order,
    check_shapes,
    modules_of,
    observed_call,
)
from causalunet.models.devices import device_of
from causalunet.models.given import as_put_in
from causalunet.models.rounding import rounding, unit_of
from causalunet.models.wiring import read_wiring
from causalunet.testing.places import Places
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.rows import Rows, difference

__all__ = ["check_model"]

_MOST_NAMED = 3
_IMAGES = 1e-3
"""Of images in [0, 1]: what rounding may do to them, that of a decoder with layers of its own included; in half
precision two units in the last place."""
_DIFFERENT_IN_TRAINING = ("Dropout", "BatchNorm")


def check_model(
    model: DiffusionModel, prompts: str | Sequence[str], *, places: str | Iterable[str] | None = None
) -> Conformance:
    """Check that a model is what studies rely on: what it says of itself, its U-Net, and every place of it.

    The U-Net is called with two samples; if the model can be guided, with a conditional and an unconditional row of
    each. First plainly, and with stand-ins for its components, as when a study is planned. Then under edits, traced as
    in a study, at every place: taking the value out and putting it back changes nothing; other numbers change the
    output, in the rows that are declared and in no others; what a cut leaves dead need not run.

    Parameters
    ----------
    model : DiffusionModel
    prompts : sequence of str
        That it can read: two or more, of different lengths, tell most.
    places : str or iterable of str, optional
        Patterns of components and skip connections to try edits on, such as ``("up.*", "skip.0")``. All by default: two
        calls of the U-Net for every place, and two more for every component.

    Returns
    -------
    Conformance

    Raises
    ------
    ConformanceError
        A check failed; each failure is a line of the message.
    SpecError
        No prompts are given.
    ComponentError
        A pattern matches nothing.
    """
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    if not asked:
        raise SpecError("check_model needs prompts that the model can read; give two or more, of different lengths.")
    checks = Checks(f"the model {shown(getattr(model, 'name', type(model).__name__))}")
    passed = checks.run("protocol", "its class", lambda: check_protocol(model))
    if not passed or not checks.run("anatomy", "its components", lambda: _anatomy(model)):
        return checks.done()
    chosen = _chosen(model, places)
    tested = _Tested(model, asked)
    parts, edges = f"{len(model.anatomy.components)} components", f"{len(model.anatomy.edges)} edges"
    some, rows = f"{len(chosen)} places", f"{tested.number} rows"
    checks.run("weights", "their values", lambda: check_values(model.unet, f"the model {model.name!r}"))
    checks.run("prompts", f"{len(asked)} prompt{'s' if len(asked) > 1 else ''}", tested.prompts)
    checks.run("modules", parts, tested.made)
    with alone(model.unet), torch.inference_mode():
        checks.run("images", "2 images", tested.images, ["weights"])
        checks.run("one call", rows, tested.called, ["weights", "prompts"])
        checks.run("run once", parts, lambda: check_counts(model, tested.seen), ["one call", "modules"])
        checks.run("order", parts, lambda: check_order(model, tested.seen), ["run once"])
        checks.run("shapes", parts, lambda: check_shapes(model, tested.seen), ["one call", "modules"])
        checks.run("dtype, device", parts, tested.types, ["run once", "shapes"])
        checks.run("joints", edges, tested.joints, ["order", "shapes"])
        checks.run("repeatable", "2 calls", tested.repeatable, ["one call", "modules"])
        checks.run("rows apart", rows, tested.rows_apart, ["repeatable"])
        needs = ["joints", "repeatable"]
        checks.run("traced", "2 calls", tested.traced, needs)
        checks.run("null", some, lambda: tested.places.null(chosen), [*needs, "traced"])
        checks.run("dead parts", some, lambda: tested.places.dead(chosen), [*needs, "traced", "null"])
        checks.run("reach", some, lambda: tested.places.reach(chosen), [*needs, "traced", "null"])
    return checks.done()


def _anatomy(model: DiffusionModel) -> Iterator[str]:
    if not model.anatomy.components:
        yield "it has no components, so there is nothing to intervene on. List the blocks of the U-Net."


def _chosen(model: DiffusionModel, places: str | Iterable[str] | None) -> list[str]:
    anatomy = model.anatomy
    if places is None:
        return [*anatomy.by_name, *anatomy.skips, *_one_of_each(anatomy)]
    there, patterns = anatomy.places, [places] if isinstance(places, str) else list(places)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in there):
            raise ComponentError(f"No place matches {shown(pattern)}. The model has {', '.join(there)}.")
    chosen = [name for name in there if any(fnmatchcase(name, pattern) for pattern in patterns)]
    weights = {place.name for place in anatomy.inner if place.weight}
    if chosen and weights.issuperset(chosen):
        raise ComponentError(
            f"{shown(chosen[0])} is a weight, and what is tried of places is that rows stay apart: weights have none."
        )
    return [name for name in chosen if name not in weights]


def _one_of_each(anatomy: Anatomy) -> Iterator[str]:
    """An inner place of every kind: those of one kind are values of the same modules."""
    seen: set[str] = set()
    for place in anatomy.inner:
        if (kind := unnumbered(place.name)) not in seen and not place.weight:
            seen.add(kind)
            yield place.name


class _Tested:
    """A model under test, and what it was called with.

    Parameters
    ----------
    model : DiffusionModel
    prompts : sequence of str
    """

    def __init__(self, model: DiffusionModel, prompts: Sequence[str]) -> None:
        self._model, self._prompts = model, prompts
        self._guided = bool(getattr(model, "guidable", True))
        self.number = 4 if self._guided else 2

    @cached_property
    def rows(self) -> Rows:
        """Of two samples, conditional before unconditional, at one timestep."""
        model, device = self._model, device_of(self._model)
        x = torch.randn(2, *model.image_shape, generator=torch.Generator().manual_seed(0)).to(device)
        context = encoded(model, [self._prompts[0], self._prompts[-1]])
        if self._guided:
            empty = encoded(model, ["", ""], [self._prompts[0], self._prompts[-1]])
            context = tuple(torch.cat(pair) for pair in zip(context, empty, strict=True))
            x = torch.cat([x, x])
        x, time = as_put_in(model, x, len(model.alpha_bar) // 2)
        timesteps = torch.full((len(x),), float(time), device=device)
        return Rows((x, timesteps, *context), self._guided)

    @cached_property
    def plain(self) -> Tensor:
        """Output of a plain call."""
        return call_unet(self._model, self.rows.fresh()).clone()

    @cached_property
    def seen(self) -> Observed:
        """What a plain call shows."""
        return observed_call(self._model, self.rows.fresh(), modules_of(self._model))

    @cached_property
    def places(self) -> Places:
        """For traced calls under edits."""
        return Places(self._model, self.rows, self.plain)

    def traced(self) -> Iterable[str]:
        """Traced calls are as plain ones."""
        return self.places.traced()

    def prompts(self) -> Iterator[str]:
        """Read and encoded, alone as beside others."""
        model = self._model
        model.check_prompts(self._prompts)
        context_of(model, self._prompts, 2 if self._guided else 1)
        device = device_of(model)
        with torch.inference_mode():
            together = encoded(model, self._prompts)
            if elsewhere := {str(part.device) for part in together if part.device != device}:
                yield (
                    f"encode() gives tensors on {', '.join(sorted(elsewhere))}, and the weights are on {device}. Move "
                    "them there in encode()."
                )
                return
            for number, prompt in enumerate(self._prompts):
                for beside, single in zip(together, encoded(model, [prompt]), strict=True):
                    if difference(beside[number : number + 1], single) > rounding(model.unet, single):
                        yield (
                            f"encode() gives {shown(prompt)} other numbers beside other prompts than alone. Results "
                            "would depend on the batch: let each row be made of its own prompt."
                        )
                        return

    def made(self) -> None:
        """Components are modules."""
        modules_of(self._model)

    def called(self) -> Iterator[str]:
        """The U-Net can be called, gives what is expected, and numbers."""
        if not bool(self.plain.isfinite().all()):
            yield (
                "the U-Net gave numbers that are not finite, for noise at the middle timestep. Is the precision "
                "enough, and are the weights those of a trained model?"
            )

    def images(self) -> Iterator[str]:
        """Decoded, alone as beside others."""
        model = self._model
        x0 = torch.randn(2, *model.image_shape, generator=torch.Generator().manual_seed(1)).to(device_of(model))
        x0[1] *= 0.1  # a dark image beside a bright one
        x0 = x0.clamp(-1, 1) if model.clip else x0
        check_images(model, x0[:1].clone())
        given = x0.clone()
        together = model.decode(given)
        if not torch.equal(given, x0):
            yield "decode() wrote into x_0, which others hold. Let it make a new tensor."
        singly = np.concatenate([model.decode(row.clone()) for row in x0.split(1)])
        if together.shape != singly.shape or np.abs(together - singly).max() > max(_IMAGES, 2 * unit_of(model.unet)):
            yield "decode() gives an image other numbers beside others than alone; let each be made of its own x_0."

    def types(self) -> Iterator[str]:
        """What stands in for a component would be of its type, and where it is."""
        model, device = self._model, device_of(self._model)
        expected = OutputTypes(model.unet, model.anatomy)
        expected.read(self.rows.fresh())
        for name, value in (*self.seen.put_out.items(), ("the U-Net", self.seen.output)):
            if value.device != device:
                yield f"{name} puts out a tensor on {value.device}, and the U-Net begins on {device}. Keep it on one."
            if not value.is_floating_point():
                yield f"{name} puts out {value.dtype}; edits are made to floating-point numbers."
        for name, value in self.seen.put_out.items():
            if value.dtype != expected.of(name):
                yield (
                    f"{name} puts out {value.dtype} where the weights say {expected.of(name)}, and what stands in for "
                    "it when it is dead would be of the other type. Give the U-Net weights of the type that it "
                    "computes in, instead of autocast."
                )
                return

    def joints(self) -> None:
        """Skip connections and edges are where the anatomy says."""
        model = self._model
        row = tuple(part[:1] for part in self.rows.fresh())
        owner = f"The U-Net of the model {model.name!r}"
        read_wiring(model.unet, model.anatomy, row, self.seen.put_out, owner, self.seen.wholes)

    def repeatable(self) -> Iterator[str]:
        """Two equal calls give the same and leave nothing behind."""
        unet = self._model.unet
        before = {name: value.clone() for name, value in unet.named_buffers()}
        off = difference(call_unet(self._model, self.rows.fresh()), self.plain)
        if off > rounding(unet, self.plain):
            yield (
                f"two equal calls of the U-Net differ by {off:.2g}, more than rounding.{_training(unet)} Call "
                "unet.eval() when the model is made, and let nothing be drawn at random in forward."
            )
        changed = [name for name, value in unet.named_buffers() if name in before and not _same(value, before[name])]
        if changed:
            yield (
                f"a call changes buffers of the U-Net, {', '.join(changed[:_MOST_NAMED])}.{_training(unet)} The next "
                "call would depend on it: call unet.eval(), or keep what is written out of buffers that are read."
            )

    def rows_apart(self) -> Iterator[str]:
        """A batch is as good as its rows one by one."""
        for number in range(self.number):
            row = tuple(part[number : number + 1] for part in self.rows.fresh())
            off = difference(call_unet(self._model, row), self.plain[number : number + 1])
            if off > rounding(self._model.unet, self.plain):
                yield (
                    f"row {number} of {self.number} differs by {off:.2g} from the same row alone, more than rounding. "
                    "Results would depend on the batch: let nothing go over dimension 0, neither means nor a condition "
                    "that is taken from another row."
                )
                return


def _training(unet: nn.Module) -> str:
    """Which modules are in training mode, in words; those that compute otherwise then, if any do."""
    names = {name: type(module).__name__ for name, module in unet.named_modules() if module.training and name}
    telling = [name for name, kind in names.items() if any(word in kind for word in _DIFFERENT_IN_TRAINING)]
    named = telling or list(names)
    if not named:
        return ""
    return f" In training mode are {', '.join(named[:_MOST_NAMED])}{', ...' if len(named) > _MOST_NAMED else ''}."


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
