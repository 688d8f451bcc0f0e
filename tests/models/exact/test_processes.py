"""Studies of exact models under other processes than theirs: exploding variance, and no signal at the first step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray

import causalunet as cu
from causalunet.design import Intervention, Karras, Trailing
from causalunet.models.exact import ExactModel, load_gaussian
from causalunet.models.exact.gaussian import GaussianUNet
from causalunet.noise import initial_noise, step_noise
from causalunet.process import Process
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.schedule import exploding_alpha_bar, trigonometric_alpha_bar
from causalunet.testing import check_model
from tests.models.exact.references import small_bank

BANK, GROUPS = small_bank(), (2, 4, 8)
PROMPTS, SCALE, STEPS = ["red", "circle"], 2.0, 8
ROUNDED = 5e-5
"""From noise of 20 on, in single precision: a step multiplies what its calls round by the ratio of its ends."""


class KarrasUNet(GaussianUNet):
    """Is given x_0 + sigma e, as the networks of Karras et al. 2022, and says D(x; sigma)."""

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
        share = self.share(timesteps)[:, None, None, None]  # 1 / (1 + sigma^2)
        return super().forward(x.double() * share.sqrt(), timesteps, matches)


@dataclass(frozen=True, eq=False)
class KarrasModel(ExactModel):
    """An exact Gaussian whose states explode."""

    @property
    def process(self) -> Process:
        return Process("variance-exploding")


@pytest.fixture(scope="module")
def exploding() -> KarrasModel:
    share = exploding_alpha_bar()
    return KarrasModel(KarrasUNet(BANK, share, GROUPS).eval(), BANK, share, {"groups": GROUPS})


Cuts = Mapping[tuple[int, int], float]
"""What the first components' part of the estimate is multiplied by, by step and call."""


def denoised(x: NDArray[np.float64], sigma: float, prompt: str, factor: float) -> NDArray[np.float64]:
    """D(x; sigma) of the Gaussian with the moments of some images, from their singular values."""
    images = BANK.images[BANK.matches([prompt])[0]].reshape(-1, x.size).astype(np.float64)
    mean = images.mean(axis=0)
    _, scales, rows = np.linalg.svd(images - mean, full_matrices=False)
    variances = scales**2 / len(images)
    along = (variances / (variances + sigma**2) * (rows @ (x - mean)))[: sum(GROUPS)]
    along[: GROUPS[0]] *= factor
    return mean + along @ rows[: sum(GROUPS)]


def karras_by_hand(sample: int, cuts: Cuts, absent: Collection[int] = ()) -> NDArray[np.float64]:
    """Algorithm 1 of Karras et al. 2022 as it stands there, x in the scale of the data."""
    sigmas = (20 ** (1 / 7) + np.arange(STEPS) / (STEPS - 1) * (0.002 ** (1 / 7) - 20 ** (1 / 7))) ** 7
    taken = [(sigma, step) for sigma, step in zip(sigmas, range(STEPS, 0, -1), strict=True) if step not in absent]

    def slope(x: NDArray[np.float64], sigma: float, *call: int) -> NDArray[np.float64]:
        factor = cuts.get((call[0], call[1]), 1.0)
        told, untold = (denoised(x, sigma, prompt, factor) for prompt in (PROMPTS[sample], ""))
        return (x - (untold + SCALE * (told - untold))) / sigma

    # Where variance explodes the data count as well: sigma times noise would be a little less.
    x = math.hypot(1, taken[0][0]) * initial_noise([sample], BANK.image_shape)[0].astype(np.float64).ravel()
    for (at, step), (to, _) in itertools.pairwise([*taken, (0.0, 0)]):
        first = slope(x, at, step, 0)
        along = x + (to - at) * first
        x = x + (to - at) * (first + slope(along, to, step, 1)) / 2 if to else along
    return ((x.clip(-1, 1) + 1) / 2).reshape(BANK.image_shape)


def half(window: cu.Window) -> Intervention:
    return cu.Edit("pc.0", window, cu.Scale(0.5))


EXPLODING: dict[Intervention, tuple[Cuts, Collection[int]]] = {
    half(cu.Window(5, 2)): ({(step, stage): 0.5 for step in (5, 4) for stage in (0, 1)}, ()),
    half(cu.Window(5, 2, stage=1)): ({(step, 1): 0.5 for step in (5, 4)}, ()),
    cu.SkipSteps(cu.Window(6, 2)): ({}, (6, 5)),
}


def test_a_study_where_variance_explodes_is_karras_loop(exploding: KarrasModel, tmp_path: Path) -> None:
    sampler = cu.Heun(steps=STEPS, guidance_scale=SCALE, spacing=Karras(sigma_max=20))
    study = cu.Study(name="s", prompts=PROMPTS, sampler=sampler, interventions=tuple(EXPLODING))
    results = study.run(tmp_path / "s.zarr", model=exploding, progress=False)
    for sample in range(len(PROMPTS)):
        plain = karras_by_hand(sample, {})
        np.testing.assert_allclose(results.baseline.image[sample], plain, rtol=0, atol=ROUNDED)
        for item, told in EXPLODING.items():
            expected = karras_by_hand(sample, *told)
            assert np.abs(expected - plain).max() > 1e-3, "the case tests nothing"
            found = results.outcomes.image.sel(intervention=item.label)[sample]
            np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDED)
    assert results.attrs["identity"]["process"] == "variance-exploding"
    assert float(results.outcomes.ssim.sel(kind="null").min()) == 1
    verified = results.verify(quiet=True, deep=True)
    assert verified.exit_code == 0, str(verified)
    assert check_model(exploding, PROMPTS)


@pytest.fixture(scope="module")
def silent() -> ExactModel:
    """Of which the last timestep is noise alone (Lin et al. 2024)."""
    return load_gaussian(BANK, groups=GROUPS, alpha_bar=trigonometric_alpha_bar())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_study_that_begins_at_noise_alone(silent: ExactModel, tmp_path: Path, eta: float) -> None:
    """Compared with a loop by hand, and verified from its seeds: the first estimate is the mean, the noise is x_T."""
    sampler = cu.DDIM(steps=6, eta=eta, guidance_scale=1, spacing=Trailing())
    cut = half(cu.Window(4, 2))
    study = cu.Study(name="s", prompts=PROMPTS, sampler=sampler, interventions=[cut])
    results = study.run(tmp_path / "s.zarr", model=silent, progress=False)
    assert float(results.baseline.alpha_bar.sel(step=6)) == 0
    np.testing.assert_array_equal(results.baseline.eps.sel(step=6), results.baseline.x_t.sel(step=6))
    shares = np.append(results.baseline.alpha_bar.values, 1.0)
    for sample, prompt in enumerate(PROMPTS):
        for item in (None, cut):
            x = initial_noise([sample], BANK.image_shape)[0].astype(np.float64).ravel()
            for step, a, b in zip(range(6, 0, -1), shares[:-1], shares[1:], strict=True):
                factor = 0.5 if item is not None and step in cut.steps else 1.0
                # D at ratio sigma in the scale of the data; of noise alone there is the mean.
                sigma = math.sqrt((1 - a) / a) if a else 1e12
                z = x / math.sqrt(a) if a else x * 1e12
                x0 = denoised(z, sigma, prompt, factor)
                eps = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
                drawn = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
                noise = step_noise([sample], step, BANK.image_shape)[0].ravel() if b < 1 else 0
                x = math.sqrt(b) * x0 + math.sqrt(max(0.0, 1 - b - drawn**2)) * eps + drawn * noise
            image = ((x.clip(-1, 1) + 1) / 2).reshape(BANK.image_shape)
            found: Any = results.baseline.image if item is None else results.outcomes.image.sel(kind="edit")[0]
            np.testing.assert_allclose(found[sample], image, rtol=0, atol=1e-5)
    verified = results.verify(quiet=True, deep=True)
    assert verified.exit_code == 0, str(verified)


@pytest.mark.thorough
def test_a_baseline_from_noise_alone_that_is_another_is_found(silent: ExactModel, tmp_path: Path) -> None:
    """Verification follows it from its seeds also where x_T says nothing of the image."""
    sampler = cu.DDIM(steps=4, guidance_scale=1, spacing=Trailing())
    study = cu.Study(name="s", prompts=PROMPTS, sampler=sampler, interventions=[half(cu.Window(2, 1))])
    study.run(tmp_path / "s.zarr", model=silent, progress=False)
    repository = Repository.open(Location.parse(tmp_path / "s.zarr"))
    for position, told in ((0, "sample 0: x_t at step 4"), (1, "sample 1: x_t at step 3 does not follow")):
        session = repository.writable()
        array: Any = zarr.open_group(session.store, mode="a")["baseline/x_t"]
        values = array[...]
        values[position, position] += 0.01
        array[...] = values
        repository.commit(session, "edited", {})
        found = cu.open_results(tmp_path / "s.zarr").verify(quiet=True, deep=True)
        assert found.exit_code == 1
        assert told in str(found)
