"""A pass over a model that measures the statistics of DPM-Solver-v3 (Zheng et al. 2023, section 3.1 and appendix C)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalunet.design.guidance import Guidance, NoGuidance
from causalunet.design.limits import is_integer, shown
from causalunet.design.samplers import DPMMultistep, Estimate, State
from causalunet.design.samplers.statistics import ModelStatistics, keep
from causalunet.errors import SpecError
from causalunet.execute.call.guided import guided
from causalunet.models.alone import alone
from causalunet.models.base import DiffusionModel, load_model
from causalunet.models.checking import told
from causalunet.models.devices import device_of
from causalunet.models.tf32 import exact_float32
from causalunet.noise import initial_noise
from causalunet.prediction import prediction_of, training_of
from causalunet.prompts import NO_PROMPT
from causalunet.schedule import Level
from causalunet.thresholding import bounded

__all__ = ["model_statistics"]

_LEAST_VARIANCE = 1e-12
"""Of f; below it nothing varies, and nothing is said of how f' goes with f."""


def model_statistics(
    model: DiffusionModel | str,
    *,
    prompts: Sequence[str] = (NO_PROMPT,),
    seeds: Iterable[int] = range(32),
    guidance: Guidance | None = None,
    levels: int = 61,
    probes: int = 2,
    per: Literal["pixel", "channel"] = "pixel",
    batch: int = 16,
) -> ModelStatistics:
    """Measure l, s and b of a model along runs of its own, for `causalunet.DPMSolverV3`.

    Runs of DPM-Solver++ go along all levels. At each, l is the mean over samples of the diagonal of sigma d eps / dx:
    in closed form where the model gives it by a method ``slopes``, as the exact Gaussian does, and otherwise by
    Hutchinson's estimate, a mean of v * (J' v) over random signs v, one backward pass each. s and b are the regression
    of f' on f over samples, number by number, where f' is the difference of f along each run.

    Parameters
    ----------
    model : DiffusionModel or str
        Or its registered name.
    prompts : sequence of str
        Every prompt with every seed is a sample.
    seeds : iterable of int
    guidance : Guidance, optional
        As of the sampler that is to use them; by default none, ``guidance_scale=1``.
    levels : int
        Number of levels, in equal strides of log SNR over the training.
    probes : int
        Random signs per sample and level.
    per : {"pixel", "channel"}
        Whether every number of an image has statistics of its own, or all of a channel have the same, for which few
        samples are enough.
    batch : int
        Samples that are in the U-Net together.

    Returns
    -------
    ModelStatistics
        Known in this process by its digest.

    Raises
    ------
    SpecError, PromptError, ModelError
        A number is out of range; or as for a study of these prompts.

    Notes
    -----
    Zheng et al. 2023 take forward-mode products in x and in time, and f' from them. Here f' is a central difference
    over levels, of second order in their distance. Clipped estimates are differentiated as such, since samplers use
    them. The U-Net is called once for every sample and level, and gone back through once for every probe.
    """
    for name, value, least in (("levels", levels, 3), ("probes", probes, 1), ("batch", batch, 1)):
        if not is_integer(value) or value < least:
            raise SpecError(f"model_statistics got {name}={shown(value)}; it must be an integer of at least {least}.")
    if per not in ("pixel", "channel"):
        raise SpecError(f"model_statistics got per={shown(per)}; it is 'pixel' or 'channel'.")
    found = load_model(model) if isinstance(model, str) else model
    samples = list(itertools.product(prompts, seeds))
    if not samples:
        raise SpecError("model_statistics got no samples; give prompts and seeds, one of each at least.")
    found.check_prompts([str(prompt) for prompt, _ in samples])
    asked = _Asked(found, guidance or NoGuidance(), [prompt for prompt, _ in samples], probes, per == "channel", batch)
    along = _levels(found, levels)
    with alone(found.unet), exact_float32():
        linear, f = asked.followed(along, [seed for _, seed in samples])
    places = np.array([level.log_snr / 2 for level in along])
    scaling, bias = _regressed(f, places, pooled=asked.pooled)
    made = {"samples": len(samples), "probes": probes, "per": per, "prompts": sorted(set(map(str, prompts)))[:100]}
    arrays = places, linear, scaling, bias
    statistics = ModelStatistics(found.fingerprint, *arrays, guidance=asked.guidance.to_json(), made=made)
    keep(statistics)
    return statistics


def _levels(model: DiffusionModel, count: int) -> list[Level]:
    """In equal strides of log SNR, from the noisiest training timestep that has signal; whole where they must be."""
    training = training_of(model)
    noisiest = int(np.flatnonzero(training.alpha_bar > 0)[-1])
    ends = training.level(noisiest).log_snr, training.level(0).log_snr
    found = [training.level_of(log_snr) for log_snr in np.linspace(*ends, count)]
    if getattr(model, "whole_timesteps", False):
        times = sorted({round(level.timestep) for level in found}, reverse=True)
        found = [training.level(time) for time in times]
    return found


class _Asked(NamedTuple):
    """A model, and how it is asked."""

    model: DiffusionModel
    guidance: Guidance
    prompts: Sequence[str]
    probes: int
    pooled: bool
    batch: int

    def followed(self, along: Sequence[Level], seeds: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Go along levels by DPM-Solver++: l, (level, channel, y, x), and f, (level, sample, channel, y, x)."""
        device, solver = device_of(self.model), DPMMultistep()
        state = State(torch.from_numpy(initial_noise(seeds, self.model.image_shape)).to(device))
        known = self._known(np.array([level.alpha_bar for level in along]))
        linear, f = list[NDArray[np.float64]](), list[NDArray[np.float32]]()
        for place, level in enumerate(along):
            of_samples = [
                self._estimated(state.x[rows], level, rows, place if known is None else None)
                for rows in _batches(len(seeds), self.batch)
            ]
            x0 = torch.cat([one for one, _ in of_samples])
            signal = math.sqrt(level.alpha_bar)
            slopes = sum(total for _, total in of_samples) / len(seeds) if known is None else known[place]
            if self.pooled:
                slopes = np.mean(slopes, axis=(-2, -1), keepdims=True)
            linear.append(1 - signal * np.asarray(slopes, dtype=np.float64))
            # (1 - l) x / alpha - x_0, which does not subtract what is nearly equal
            rest = state.x * torch.as_tensor(np.asarray(slopes), dtype=state.x.dtype, device=device)
            f.append((rest - x0).cpu().numpy())
            if place + 1 < len(along):
                estimate = Estimate(x0, x0, None, state.x, level)
                state = solver.step(state, (estimate,), level, along[place + 1], None)
        return np.stack(linear), np.stack(f)

    def _known(self, shares: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Mean slopes in closed form, (level, channel, y, x), where the model has them and is not guided."""
        slopes = getattr(self.model, "slopes", None)
        if slopes is None or not isinstance(self.guidance, NoGuidance):
            return None
        distinct = dict.fromkeys(self.prompts)
        each = {prompt: slopes(str(prompt), shares) for prompt in distinct}
        if any(one is None for one in each.values()):
            return None
        return np.mean([each[prompt] for prompt in self.prompts], axis=0)

    def _estimated(self, x: Tensor, level: Level, rows: slice, place: int | None) -> tuple[Tensor, Any]:
        """x_0, and the sum over samples of its slopes by random signs, where they are wanted."""
        if place is None:
            with torch.no_grad():
                return self._denoised(x, level, rows), None
        with torch.enable_grad():
            given = x.detach().clone().requires_grad_()
            x0 = self._denoised(given, level, rows)
            total: Any = 0.0
            for probe in range(self.probes):
                signs = _signs(range(rows.start, rows.stop), place * self.probes + probe, x.shape[1:]).to(x)
                (back,) = torch.autograd.grad(x0, given, signs, retain_graph=probe + 1 < self.probes)
                total = total + (signs * back).double().sum(0).cpu().numpy()
        return x0.detach(), total / self.probes

    def _denoised(self, x: Tensor, level: Level, rows: slice) -> Tensor:
        """x_0 as runs have it: guided, and clipped or thresholded where the model's is."""
        contexts = told(self.model, self.guidance, self.prompts[rows])
        branches = len(contexts)
        timesteps = torch.full((branches * len(x),), level.timestep, dtype=torch.float32, device=x.device)
        context = [torch.cat(parts) for parts in zip(*contexts, strict=True)]
        output = self.model.unet(torch.cat([x * level.scale] * branches), timesteps, *context)
        prediction = prediction_of(self.model)
        value, _ = guided(output.float(), self.guidance, prediction)
        x0: Tensor = prediction.image_and_noise(value, x, level)[0]
        return bounded(self.model, x0)


def _signs(samples: Iterable[int], number: int, shape: Sequence[int]) -> Tensor:
    """Of every sample its own, whatever the batch."""
    draws = (np.random.Generator(np.random.Philox(key=[sample, number])) for sample in samples)
    return torch.from_numpy(np.stack([draw.choice(np.array([-1, 1], dtype=np.float32), shape) for draw in draws]))


def _batches(count: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def _regressed(
    f: NDArray[np.float32], places: NDArray[np.float64], *, pooled: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """S and b of f' on f over samples, (level, channel, y, x)."""
    values = f.astype(np.float64)
    change = np.gradient(values, places, axis=0, edge_order=2)
    over = (1, 3, 4) if pooled else (1,)  # samples; and pixels, where a channel has one number

    def mean(one: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = one.mean(axis=over, keepdims=True)
        return found

    off, off_change = values - mean(values), change - mean(change)
    variance, covariance = mean(off**2), mean(off * off_change)
    varies = variance > _LEAST_VARIANCE
    scaling = np.where(varies, covariance / np.where(varies, variance, 1.0), 0.0)
    bias = mean(change) - scaling * mean(values)
    return scaling[:, 0], bias[:, 0]
