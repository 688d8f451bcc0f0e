"""Jacobians of estimates: rows and singular values against closed forms and differences, and with cuts in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.design import Intervention
from causalunet.errors import CausalUNetError, SpecError
from causalunet.jacobian import Denoiser, Spectrum, _Products, jacobian_rows, jacobian_spectrum, numerical_rank
from causalunet.models.exact import ExactModel, load_mixture, load_wiener
from causalunet.models.exact.wiener import wiener_filter
from causalunet.models.text_to_image import TextToImage
from tests.models.exact.references import small_bank

BANK = small_bank()
SAMPLER = cu.DDIM(steps=6, guidance_scale=1)
CUT = cu.AblateSkip(top=2, window=cu.Window(4, 2))


@pytest.fixture(scope="module")
def wiener() -> ExactModel:
    return load_wiener(BANK)


def noise(model: object, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=model.image_shape)  # type: ignore[attr-defined]


def test_rows_are_those_of_the_wiener_filter(wiener: ExactModel) -> None:
    """dD/dx = W_t / sqrt(ab), whatever x is (Lukoianov et al. 2025)."""
    outputs = [(0, 5, 5), (2, 0, 11), (1, 7, 3)]
    for step in (6, 3, 1):
        denoiser = Denoiser(model=wiener, sampler=SAMPLER, step=step)
        share = denoiser.level.alpha_bar
        filtered = (wiener_filter(wiener.gaussian(), share) / share**0.5).reshape(*wiener.image_shape, -1)
        found = jacobian_rows(denoiser, noise(wiener), outputs, batch=2)
        for row, output in zip(found, outputs, strict=True):
            np.testing.assert_allclose(row.ravel(), filtered[output], rtol=0, atol=1e-6 * filtered.abs().max())


def test_singular_values_are_those_of_the_whole_matrix(wiener: ExactModel) -> None:
    denoiser = Denoiser(model=wiener, sampler=SAMPLER, step=3)
    share = denoiser.level.alpha_bar
    expected = torch.linalg.svdvals(wiener_filter(wiener.gaussian(), share) / share**0.5).numpy()
    found = jacobian_spectrum(denoiser, noise(wiener), 30)
    np.testing.assert_allclose(found.values[:20], expected[:20], rtol=1e-4)
    assert found.norm == pytest.approx(np.linalg.norm(expected), rel=1e-3)
    one = Spectrum(expected, float(np.linalg.norm(expected)))
    held = [np.linalg.norm(expected[:rank]) / np.linalg.norm(expected) for rank in range(1, len(expected) + 1)]
    assert numerical_rank(one) == 1 + int(np.argmax(np.array(held) > 0.99))
    assert numerical_rank(replace(one, values=expected[:2])) is None


@pytest.mark.parametrize("rank", [2, 5])
def test_at_small_noise_the_rank_of_low_rank_data_is_theirs(rank: int) -> None:
    """Near an image of one class the Jacobian is the projection on its subspace (Wang et al. 2024)."""
    classes = ["circle", "square", "triangle", "cross"]
    model = load_mixture(BANK, classes=classes, rank=rank)
    denoiser = Denoiser(model=model, sampler=cu.DDIM(steps=200, guidance_scale=1), step=2)
    matching = np.flatnonzero(BANK.matches(["circle"])[0])
    images = torch.from_numpy(BANK.images[matching].reshape(len(matching), -1)).double()
    centre = images.mean(dim=0)
    _, _, rows = torch.linalg.svd(images - centre, full_matrices=False)
    x = (centre + (images[0] - centre) @ rows[:rank].T @ rows[:rank]).reshape(model.image_shape)
    found = jacobian_spectrum(denoiser, denoiser.level.signal * x, 12)
    assert (found.values[:rank] > 0.9).all()
    assert (found.values[rank:] < 1e-3).all()
    assert numerical_rank(found) == rank


@pytest.mark.sampled(1)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("item", [None, CUT, cu.AblateBlock(bottom=1, window=cu.Window(4, 2))], ids=str)
def test_of_a_network_rows_and_products_are_differences(
    tiny_model: TextToImage, item: Intervention | None, guidance: float
) -> None:
    """With skips cut, with a dead bottleneck, and under guidance: backwards, forwards, and by finite differences."""
    sampler = cu.DDIM(steps=6, guidance_scale=guidance)
    denoiser = Denoiser(model=tiny_model, sampler=sampler, step=3, prompt="a red circle", intervention=item)
    x, rng = noise(tiny_model), np.random.default_rng(1)
    outputs = [(0, 4, 4), (2, 9, 0)]
    rows = jacobian_rows(denoiser, x, outputs)
    along = rng.normal(size=tiny_model.image_shape)
    ahead, behind = (
        denoiser(denoiser.state(x + sign * 1e-3 * along)).detach().numpy()[0].astype(np.float64) for sign in (1, -1)
    )
    slopes = [(ahead - behind)[output] / 2e-3 for output in outputs]
    np.testing.assert_allclose([np.vdot(row, along) for row in rows], slopes, rtol=0, atol=2e-2 * np.abs(rows).max())
    forwards = _Products(denoiser, x, 1).of_inputs(denoiser.state(along))[0]
    np.testing.assert_allclose([float(forwards[output]) for output in outputs], slopes, atol=2e-2 * np.abs(rows).max())
    spectrum = jacobian_spectrum(denoiser, x, 4, passes=1)
    assert 0 < spectrum.values[-1] < spectrum.values[0] < spectrum.norm


def test_what_is_cut_is_cut_in_the_derivative(wiener: ExactModel, tiny_model: TextToImage) -> None:
    """Without its filter nothing is looked at; a cut network is as it was afterwards."""
    silenced = cu.Edit("filter", cu.Window(3, 1))
    denoiser = Denoiser(model=wiener, sampler=SAMPLER, step=3, intervention=silenced)
    assert not jacobian_rows(denoiser, noise(wiener), [(0, 5, 5)]).any()
    assert jacobian_spectrum(denoiser, noise(wiener), 3).values.max() == 0
    plain = Denoiser(model=tiny_model, sampler=SAMPLER, step=3)
    before = jacobian_rows(plain, noise(tiny_model), [(0, 5, 5)])
    other = jacobian_rows(replace(plain, intervention=CUT), noise(tiny_model), [(0, 5, 5)])
    assert np.abs(other - before).max() > 1e-2 * np.abs(before).max()
    np.testing.assert_array_equal(jacobian_rows(plain, noise(tiny_model), [(0, 5, 5)]), before)


def test_what_cannot_be_looked_at(wiener: ExactModel, tiny_model: TextToImage) -> None:
    def of(item: Intervention | None = None, step: int = 3) -> Denoiser:
        return Denoiser(model=tiny_model, sampler=SAMPLER, step=step, intervention=item)

    with pytest.raises(SpecError, match=r"Denoiser got step=7; the run has the steps 6 \.\.\. 1"):
        of(step=7)
    with pytest.raises(SpecError, match=r"does not edit the call of step 2; its steps are 4, 3"):
        of(CUT, step=2)
    with pytest.raises(SpecError, match=r"skips the call of step 3; its steps are 3"):
        of(cu.SkipSteps(cu.Window(3, 1)))
    with pytest.raises(SpecError, match="puts values of other calls into mid, and here is one call alone"):
        of(cu.Edit("mid", cu.Window(3, 1), cu.Hold()))
    with pytest.raises(CausalUNetError, match=r"asks for up\.9, which this U-Net does not have"):
        of(cu.Edit("up.9", cu.Window(3, 1)))
    denoiser = Denoiser(model=wiener, sampler=SAMPLER, step=3)
    with pytest.raises(SpecError, match=r"has the shape \(3, 12, 12\); got \(3, 5, 5\)"):
        jacobian_rows(denoiser, np.zeros((3, 5, 5)), [(0, 0, 0)])
    with pytest.raises(SpecError, match=r"has no number at \(0, 12, 0\); give \(channel, y, x\) within \(3, 12, 12\)"):
        jacobian_rows(denoiser, noise(wiener), [(0, 12, 0)])
    with pytest.raises(SpecError, match=r"count=433; an image has 432 numbers"):
        jacobian_spectrum(denoiser, noise(wiener), 433)
