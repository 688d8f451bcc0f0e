"""The estimate of x_0 as a function of x_t that can be differentiated: what each pixel of it looks at, and its rank.

A study runs without gradients. Here one call is looked at: at one step of a sampler's run, under an intervention or
without, the U-Net's estimate is a function of the state, with a Jacobian dD/dx. Rows of it, one for every output pixel,
say how far a network looks (Lukoianov et al. 2025); its singular values say how many directions of the state it lets
through (Wang et al. 2024). Neither makes the whole matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from causalunet.calls import clear_calls
from causalunet.design.interventions import Intervention
from causalunet.design.limits import is_integer, shown
from causalunet.design.samplers import Sampler
from causalunet.design.study import check_fits
from causalunet.design.words import TokensOfWords, tokens_of, words_of
from causalunet.errors import SpecError
from causalunet.execute.call.guided import guided
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.visits import CallContext
from causalunet.models.base import DiffusionModel
from causalunet.models.checking import told
from causalunet.models.devices import device_of
from causalunet.models.tf32 import exact_float32
from causalunet.prediction import prediction_of, training_of
from causalunet.programs import Action, program_maker
from causalunet.prompts import NO_PROMPT
from causalunet.schedule import Level

__all__ = ["Denoiser", "Spectrum", "jacobian_rows", "jacobian_spectrum", "numerical_rank"]

_BATCH = 8
_OTHERS = 4
"""Vectors by which it is estimated what lies off a basis."""


@clear_calls
@dataclass(frozen=True, eq=False, kw_only=True)
class Denoiser:
    """A model's estimate of x_0 at one step: a function of x_t that autograd follows, forwards and backwards.

    Parameters
    ----------
    model : DiffusionModel
    sampler : Sampler
        Whose run the step is of; its guidance is the estimate's.
    step : int
    prompt : str, optional
        By default none.
    intervention : Intervention, optional
        Whose edits at that step are made; its cuts are installed in the modules for the time of a call.

    Raises
    ------
    SpecError, ComponentError
        The run has no such step; the intervention does not edit it, skips it, or needs values of other calls; it could
        not be made on the model.

    Notes
    -----
    Of a step of several U-Net calls it is the first. Estimates are not clipped, also where the model's are: where
    clipping acts, the derivative would be zero.

    Examples
    --------
    >>> import causalunet as cu
    >>> from causalunet.jacobian import Denoiser, jacobian_rows
    >>> from causalunet.models.exact import load_wiener, scene_bank
    >>> model = load_wiener(scene_bank(60, size=12))
    >>> sampler = cu.DDIM(steps=10, guidance_scale=1)
    >>> denoiser = Denoiser(model=model, sampler=sampler, step=5)
    >>> jacobian_rows(denoiser, np.zeros(model.image_shape), [(0, 6, 6)]).shape
    (1, 3, 12, 12)
    """

    model: DiffusionModel
    sampler: Sampler
    step: int
    prompt: str = NO_PROMPT
    intervention: Intervention | None = None
    level: Level = field(init=False)
    _action: Action = field(init=False, repr=False)
    _tokens: TokensOfWords = field(init=False, repr=False)

    def __post_init__(self) -> None:
        steps = self.sampler.steps
        if not is_integer(self.step) or not 1 <= self.step <= steps:
            raise SpecError(f"Denoiser got step={shown(self.step)}; the run has the steps {steps} ... 1.")
        schedule = self.sampler.schedule(training_of(self.model))
        object.__setattr__(self, "level", schedule.level(self.step))
        object.__setattr__(self, "_tokens", {})
        object.__setattr__(self, "_action", Action() if self.intervention is None else self._acted(self.intervention))

    def _acted(self, intervention: Intervention) -> Action:
        """What is done to the call of the step, and that something is."""
        placed = intervention.placed(self.model.anatomy)
        check_fits(placed, self.sampler)
        self.model.anatomy.check(placed)
        tokens = tokens_of([(placed, placed.edits())], self.model.anatomy, [self.prompt], self.model)
        object.__setattr__(self, "_tokens", tokens)
        program = program_maker(self.model.anatomy, self.sampler.steps)(placed.edits())
        action = next((span.action for span in program if span.start >= self.step >= span.stop), None)
        if action is None or not action.fills:
            found = ", ".join(map(str, sorted(placed.steps, reverse=True)[:8]))
            said = "skips" if action is None else "does not edit"
            raise SpecError(
                f"{shown(placed.label)} {said} the call of step {self.step}; its steps are {found}. Look at a step "
                "that is called and edited, or leave the intervention out."
            )
        if donors := sorted({fill.site.component for fill in action.fills if fill.donors}):
            raise SpecError(
                f"{shown(placed.label)} puts values of other calls into "
                f"{', '.join(donors)}, and here is one call alone. Take a fill that makes its own, such as Zero()."
            )
        return action.first

    def __call__(self, x: Tensor) -> Tensor:
        """Say x_0.

        Parameters
        ----------
        x : Tensor, (row, channel, y, x)
            Of unit variance, as stored states are, whatever the model's process.

        Returns
        -------
        Tensor, (row, channel, y, x)
        """
        model, guidance, prediction = self.model, self.sampler.guided_by, prediction_of(self.model)
        branches = told(model, guidance, [self.prompt])
        # Copies: what is made where gradients are off cannot be part of a graph.
        by_part = zip(*branches, strict=True)
        context = tuple(torch.cat([one.clone().expand(len(x), *one.shape[1:]) for one in parts]) for parts in by_part)
        rows = len(branches) * len(x)
        timesteps = torch.full((rows,), float(self.level.timestep), device=x.device)
        given = torch.cat([x * self.level.scale] * len(branches))
        words = {words_of(placed.site.view) for placed in self._action.fills} - {()}
        told_prompt = {named: [self._tokens[self.prompt, named]] * len(x) + [()] * (rows - len(x)) for named in words}
        where = CallContext(self.step, len(model.alpha_bar), {}, tokens=told_prompt)
        with exact_float32(), InstalledUNet(model.unet, model.anatomy) as unet:
            output = unet(self._action, (given, timesteps, *context), len(x), context=where).output
        value, _ = guided(output.float(), guidance, prediction)
        return prediction.image_and_noise(value, x, self.level)[0]

    def state(self, x: NDArray[np.floating] | Tensor) -> Tensor:
        """One x_t, (1, channel, y, x), on the model's device.

        Raises
        ------
        SpecError
            It has another shape.
        """
        found = torch.as_tensor(np.asarray(x), dtype=torch.float32)
        if tuple(found.shape) != tuple(self.model.image_shape):
            wanted = tuple(self.model.image_shape)
            raise SpecError(f"A state of {self.model.name!r} has the shape {wanted}; got {tuple(found.shape)}.")
        return found[None].to(device_of(self.model))


class _Products:
    """Products of dD/dx at one state with vectors, some at a time: each is a row of a call."""

    def __init__(self, denoiser: Denoiser, x: NDArray[np.floating] | Tensor, batch: int) -> None:
        self._denoiser, self._x, self._batch = denoiser, denoiser.state(x), batch

    def of_outputs(self, vectors: Tensor) -> Tensor:
        """J' u for every u, (vector, channel, y, x)."""
        return torch.cat([self._backwards(some) for some in vectors.split(self._batch)])

    def of_inputs(self, vectors: Tensor) -> Tensor:
        """J v for every v, (vector, channel, y, x)."""
        return torch.cat([self._forwards(some) for some in vectors.split(self._batch)])

    def _backwards(self, vectors: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = self._x.expand(len(vectors), -1, -1, -1).clone().requires_grad_()
            said = self._denoiser(x)
            if not said.requires_grad:  # what is cut leaves nothing of x
                return torch.zeros_like(vectors)
            (found,) = torch.autograd.grad(said, x, vectors, materialize_grads=True)
        return found

    def _forwards(self, vectors: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad(), forward_ad.dual_level():
            rows = self._x.expand(len(vectors), -1, -1, -1).clone()
            with warnings.catch_warnings():  # what PyTorch says of itself where it is first asked for products forwards
                warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
                x = forward_ad.make_dual(rows, vectors)
            found = forward_ad.unpack_dual(self._denoiser(x)).tangent
        return torch.zeros_like(vectors) if found is None else found


def jacobian_rows(
    denoiser: Denoiser,
    x: NDArray[np.floating] | Tensor,
    outputs: Sequence[tuple[int, int, int]],
    *,
    batch: int = _BATCH,
) -> NDArray[np.float32]:
    """What some numbers of the estimate look at: rows of dD/dx, by one product backwards each.

    Parameters
    ----------
    denoiser : Denoiser
    x : ndarray or Tensor, (channel, y, x)
        State, as of ``results.baseline.x_t``.
    outputs : sequence of tuple of int
        (channel, y, x) of each number.
    batch : int
        Rows of a call.

    Returns
    -------
    ndarray of float32, (output, channel, y, x)

    Raises
    ------
    SpecError
        The state has another shape, or an output lies outside the image.
    """
    shape = denoiser.model.image_shape
    for output in outputs:
        if len(output) != 3 or not all(0 <= at < size for at, size in zip(output, shape, strict=True)):
            raise SpecError(f"The estimate has no number at {shown(output)}; give (channel, y, x) within {shape}.")
    products = _Products(denoiser, x, batch)
    units = torch.zeros(len(outputs), *shape, device=denoiser.state(x).device)
    for unit, output in zip(units, outputs, strict=True):
        unit[tuple(output)] = 1
    return products.of_outputs(units).cpu().numpy()


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Largest singular values of a Jacobian.

    Attributes
    ----------
    values : ndarray of float64, (rank,)
        Falling.
    norm : float
        Of Frobenius, the root of the sum of all squared singular values: those found, and an estimate of the rest,
        which is nothing where the rank is no larger than the number of values.
    """

    values: NDArray[np.float64]
    norm: float


def jacobian_spectrum(
    denoiser: Denoiser,
    x: NDArray[np.floating] | Tensor,
    count: int,
    *,
    passes: int = 2,
    seed: int = 0,
    batch: int = _BATCH,
) -> Spectrum:
    """Find the largest singular values of dD/dx, by randomised subspace iteration.

    Parameters
    ----------
    denoiser : Denoiser
    x : ndarray or Tensor, (channel, y, x)
        State, as of ``results.baseline.x_t``.
    count : int
        How many random vectors are taken along, and so values found. The last ones are too small where the spectrum
        falls slowly: take a few more than are wanted.
    passes : int
        Times that the vectors go backwards and forwards again; 0 is a random sketch.
    seed : int
        Of the vectors.
    batch : int
        Rows of a call.

    Raises
    ------
    SpecError
        The count is not an integer from 1 to the numbers of an image, or the state has another shape.

    Notes
    -----
    Halko, Martinsson & Tropp 2011, algorithm 4.4. It takes (2 passes + 1) ``count`` rows of U-Net calls and a few more.
    """
    shape = denoiser.model.image_shape
    size = int(np.prod(shape))
    if not is_integer(count) or not 1 <= count <= size:
        raise SpecError(f"jacobian_spectrum got count={shown(count)}; an image has {size} numbers, so 1 to {size}.")
    products, rng = _Products(denoiser, x, batch), torch.Generator().manual_seed(seed)
    basis = _orthonormal(torch.randn(size, count, generator=rng, dtype=torch.float64))
    along = products.of_inputs(_images(basis, denoiser))
    for _ in range(passes):
        back = products.of_outputs(_images(_orthonormal(_columns(along)), denoiser))
        basis = _orthonormal(_columns(back))
        along = products.of_inputs(_images(basis, denoiser))
    values = torch.linalg.svdvals(_columns(along))
    held = float(values.square().sum())
    if others := min(size - count, max(_OTHERS, count // 4)):
        # What lies off the basis is told by a few vectors that have nothing of it (Meyer et al. 2021, Hutch++).
        rest = torch.randn(size, others, generator=rng, dtype=torch.float64)
        rest = rest - basis @ (basis.T @ rest)
        said = _columns(products.of_inputs(_images(rest, denoiser)))
        held += (size - count) * float(said.square().sum() / rest.square().sum())
    return Spectrum(values.numpy(), held**0.5)


def _orthonormal(columns: Tensor) -> Tensor:
    """A basis of what some columns span, (number, vector)."""
    return torch.linalg.qr(columns)[0]


def _columns(images: Tensor) -> Tensor:
    """Images as columns, (number, vector), in double precision."""
    return images.flatten(1).double().cpu().T


def _images(columns: Tensor, denoiser: Denoiser) -> Tensor:
    """Columns as images, (vector, channel, y, x)."""
    return columns.T.unflatten(1, denoiser.model.image_shape).to(device_of(denoiser.model), torch.float32)


def numerical_rank(spectrum: Spectrum, share: float = 0.99) -> int | None:
    """Fewest singular values that hold more than a share of a Jacobian's Frobenius norm.

    Parameters
    ----------
    spectrum : Spectrum
    share : float
        Of the norm, 0 to 1.

    Returns
    -------
    int or None
        None where all values that were found hold no more: the rank is larger than their number.

    Notes
    -----
    The rank of Wang et al. 2024 (arXiv 2409.02426), with their share, as their code has it.
    """
    held = np.sqrt(np.cumsum(spectrum.values**2)) / max(spectrum.norm, np.finfo(np.float64).tiny)
    enough = np.flatnonzero(held > share)
    return int(enough[0]) + 1 if len(enough) else None
