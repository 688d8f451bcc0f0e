"""Denoisers in closed form against SciPy, dense matrices, loops, integrals, official code; and laws of theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from causalunet.models.exact import Gaussian, Mixture, local, optimal
from causalunet.models.exact.gaussian import fitted
from causalunet.models.exact.tweedie import score_of
from causalunet.models.exact.wiener import wiener_filter
from tests.models.exact.golden_local import fixed
from tests.models.exact.references import (
    LEVELS,
    conditional_mean,
    gaussian,
    law,
    mixture,
    noisy,
    weighted_mean,
)

GOLDEN = json.loads(Path(__file__).with_name("golden_local.json").read_text(encoding="utf-8"))
close = pytest.approx


def gradient(density: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Of a density, by central differences."""
    step, found = 1e-5, torch.zeros_like(x)
    for pixel in range(x.shape[1]):
        off = torch.zeros_like(x)
        off[:, pixel] = step
        found[:, pixel] = (density(x + off) - density(x - off)) / (2 * step)
    return found.numpy()


@pytest.mark.parametrize("share", LEVELS)
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_gaussian(share: float, rank: int) -> None:
    data, x = gaussian(5, rank), noisy(4, 5)
    found = data.denoise(x, share)
    assert found.numpy() == close(conditional_mean(data, x.numpy(), share), abs=1e-9)
    assert data.log_density(x, share).numpy() == close(law(data, share).logpdf(x.numpy()), rel=1e-9)
    assert score_of(found, x, share).numpy() == close(
        gradient(lambda at: data.log_density(at, share), x), rel=1e-5, abs=1e-6 / (1 - share)
    )


@pytest.mark.parametrize("share", LEVELS)
def test_what_is_left_to_know_of_a_gaussian(share: float) -> None:
    data = gaussian(4, 3)
    covariance = data.covariance.numpy()
    noisy_covariance = share * covariance + (1 - share) * np.eye(4)
    left = covariance - share * covariance @ np.linalg.solve(noisy_covariance, covariance)
    assert data.posterior_covariance(share).numpy() == close(left, abs=1e-10)


def test_rows_may_have_a_level_and_a_gaussian_each() -> None:
    several, x, shares = gaussian(5, 2, classes=(3,)), noisy(3, 5), torch.tensor(LEVELS[:3])
    for row in range(3):
        alone = Gaussian(*(part[row] for part in several))
        apart = alone.denoise(x[row : row + 1], float(shares[row]))
        assert several.denoise(x, shares)[row].numpy() == close(apart[0].numpy(), abs=1e-6)


@pytest.mark.parametrize("share", [0.9, 0.4, 0.05])
def test_in_one_dimension_by_integrals(share: float) -> None:
    """Nothing but Bayes' theorem: integrals over x_0 of the density of a mixture times that of the noise."""
    data = mixture(1, 1, 2)
    means, spreads = data.classes.mean[:, 0].numpy(), data.classes.variances[:, 0].sqrt().numpy()
    for x in (-1.2, 0.3, 2.0):

        def joint(x0: float, x: float = x) -> float:
            prior = data.log_weights.exp().numpy() * scipy.stats.norm.pdf(x0, means, spreads)
            return float(prior.sum() * scipy.stats.norm.pdf(x, np.sqrt(share) * x0, np.sqrt(1 - share)))

        total = scipy.integrate.quad(joint, -12, 12, points=[x / np.sqrt(share)], epsabs=1e-13, limit=400)[0]
        first = scipy.integrate.quad(
            lambda x0: x0 * joint(x0), -12, 12, points=[x / np.sqrt(share)], epsabs=1e-13, limit=400
        )[0]
        at = torch.tensor([[x]], dtype=torch.float64)
        assert float(data.denoise(at, share)) == close(first / total, abs=1e-8)
        assert float(data.log_density(at, share)) == close(np.log(total), abs=1e-8)


def test_in_two_dimensions_by_integrals() -> None:
    data, share = mixture(2, 2, 3), 0.5
    axis = np.linspace(-9, 9, 1201)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    prior = sum(
        np.exp(float(weight)) * law(Gaussian(*parts), 1.0).pdf(points)
        for weight, *parts in zip(data.log_weights, *data.classes, strict=True)
    )
    x = noisy(1, 2)
    joint = prior * np.exp(-((x.numpy()[0] - np.sqrt(share) * points) ** 2).sum(-1) / (2 * (1 - share)))
    expected = (joint[..., None] * points).sum((0, 1)) / joint.sum()
    assert data.denoise(x, share).numpy()[0] == close(expected, abs=1e-8)


@pytest.mark.parametrize("share", LEVELS)
def test_mixture(share: float) -> None:
    data, x = mixture(4, 2, 3), noisy(5, 4)
    classes = [Gaussian(*parts) for parts in zip(*data.classes, strict=True)]
    densities = np.stack([law(own, share).logpdf(x.numpy()) for own in classes], axis=1) + data.log_weights.numpy()
    weights = scipy.special.softmax(densities, axis=1)
    means = np.stack([conditional_mean(own, x.numpy(), share) for own in classes], axis=1)
    found = data.denoise(x, share)
    assert found.numpy() == close((weights[..., None] * means).sum(1), abs=1e-9)
    assert data.log_density(x, share).numpy() == close(scipy.special.logsumexp(densities, axis=1), rel=1e-9)
    numerical = gradient(lambda at: data.log_density(at, share), x)
    assert score_of(found, x, share).numpy() == close(numerical, rel=1e-4, abs=1e-6 / (1 - share))


def test_moments_of_a_mixture_are_those_of_draws() -> None:
    data, share, rng = mixture(3, 2, 3), 0.6, np.random.default_rng(0)
    draws = 200_000
    label = rng.choice(3, p=data.log_weights.exp().numpy(), size=draws)
    along = rng.normal(size=(draws, 2)) * data.classes.variances.sqrt().numpy()[label]
    x0 = data.classes.mean.numpy()[label] + np.einsum("dpk,dk->dp", data.classes.vectors.numpy()[label], along)
    x = np.sqrt(share) * x0 + np.sqrt(1 - share) * rng.normal(size=x0.shape)
    mean, covariance = data.moments(share)
    assert mean.numpy() == close(x.mean(0), abs=0.02)
    assert covariance.numpy() == close(np.cov(x.T), abs=0.03)


def test_mixture_of_subspaces_is_the_published_one() -> None:
    """Wang et al. 2024: means of zero, variances of 1."""
    drawn, share, x = mixture(6, 2, 3), 0.3, noisy(4, 6)
    classes = drawn.classes._replace(mean=torch.zeros(3, 6).double(), variances=torch.ones(3, 2).double())
    projected = np.einsum("cpk,rp->rck", classes.vectors.numpy(), x.numpy())
    scale = share / (2 * (1 - share) * (share + 1 - share))
    weights = scipy.special.softmax(scale * (projected**2).sum(-1) + drawn.log_weights.numpy(), axis=1)
    expected = np.sqrt(share) * np.einsum("rc,cpk,rck->rp", weights, classes.vectors.numpy(), projected)
    assert Mixture(drawn.log_weights, classes).denoise(x, share).numpy() == close(expected, abs=1e-9)


@pytest.mark.parametrize("share", [*LEVELS, 0.99999])
def test_optimal(share: float) -> None:
    bank, x = noisy(7, 6, seed=3), noisy(4, 6)
    weights = np.random.default_rng(0).dirichlet(np.ones(7))
    weights[2] = 0.0
    log_weights = torch.from_numpy(weights / weights.sum()).log().expand(4, -1)
    found = optimal.denoise(x, bank, share, log_weights)
    assert found.numpy() == close(weighted_mean(x.numpy(), bank.numpy(), share, weights), abs=1e-8)
    density = (
        np.log(
            sum(
                weight
                / weights.sum()
                * scipy.stats.multivariate_normal(np.sqrt(share) * image, 1 - share).pdf(x.numpy() / 4)
                for weight, image in zip(weights, bank.numpy(), strict=True)
            )
        )
        if share < 0.9
        else None
    )
    if density is not None:
        assert optimal.log_density(x / 4, bank, share, log_weights).numpy() == close(density, rel=1e-9)
        numerical = gradient(lambda at: optimal.log_density(at, bank, share, log_weights), x)
        assert score_of(found, x, share).numpy() == close(numerical, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("share", LEVELS)
def test_the_wiener_filter_is_the_best_linear_denoiser(share: float) -> None:
    """By the normal equations over a bank, the noise averaged over."""
    bank, x = noisy(9, 5, seed=3), noisy(4, 5)
    data, mean = bank.numpy(), bank.numpy().mean(0)
    with_noise = np.concatenate([np.sqrt(share) * data, np.ones((9, 1))], axis=1)
    gram = with_noise.T @ with_noise / 9 + (1 - share) * np.diag([1.0] * 5 + [0.0])
    best = np.linalg.solve(gram, with_noise.T @ data / 9)
    expected = np.concatenate([x.numpy(), np.ones((4, 1))], axis=1) @ best
    statistics = fitted(bank)
    through = wiener_filter(statistics, share).numpy()
    assert x.numpy() @ through / np.sqrt(share) + (np.eye(5) - through) @ mean == close(expected, abs=1e-8)
    assert statistics.denoise(x, share).numpy() == close(expected, abs=1e-8)


@pytest.mark.parametrize("rank", [None, 2, 4])
@pytest.mark.parametrize("images", [1, 3, 12])
def test_fitted(images: int, rank: int | None) -> None:
    bank = noisy(images, 6, seed=5)
    found = fitted(bank, rank)
    values, vectors = np.linalg.eigh(np.cov(bank.numpy().T, ddof=0))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    assert found.mean.numpy() == close(bank.numpy().mean(0))
    assert found.variances.shape == (rank or 6,)
    assert found.covariance.numpy() == close((vectors * values) @ vectors.T, abs=1e-10)
    assert (found.vectors.T @ found.vectors).numpy() == close(np.eye(rank or 6), abs=1e-10)


def local_by_loops(x: np.ndarray, bank: np.ndarray, share: float, mask: np.ndarray) -> np.ndarray:
    found = np.zeros_like(x)
    for row in range(len(x)):
        for pixel in range(x.shape[1]):
            near = mask[:, pixel] > 0
            distances = ((x[row, near] - np.sqrt(share) * bank[:, near]) ** 2).sum(1)
            found[row, pixel] = scipy.special.softmax(-distances / (2 * (1 - share))) @ bank[:, pixel]
    return found


@pytest.mark.parametrize("share", LEVELS)
def test_local(share: float) -> None:
    bank, x = torch.from_numpy(fixed()[0]).flatten(1), torch.from_numpy(fixed()[1]).flatten(1)
    through = wiener_filter(fitted(bank), share).numpy()
    ratio = np.abs(through / np.diag(through)[:, None])
    expected = ratio >= 0.3 * ratio.max()
    mask = local.mask_of(fitted(bank), share, 0.3)
    assert (mask.numpy() == expected).all()
    assert 0.1 < mask.mean() < 0.9  # neither no pixel nor all
    assert local.denoise(x, bank, share, mask).numpy() == close(
        local_by_loops(x.numpy(), bank.numpy(), share, expected), abs=1e-9
    )
    whole = local.denoise(x, bank, share, torch.ones_like(mask))
    assert whole.numpy() == close(optimal.denoise(x, bank, share).numpy(), abs=1e-10)


@pytest.mark.parametrize("timestep", GOLDEN["alpha_bar"])
def test_official_code_of_locality(timestep: str) -> None:
    bank, x = (torch.from_numpy(part).flatten(1) for part in fixed())
    share, images = GOLDEN["alpha_bar"][timestep], len(bank)
    statistics = fitted(bank)
    statistics = statistics._replace(variances=statistics.variances * images / (images - 1))  # as theirs is divided
    assert statistics.denoise(x, share).numpy() == close(np.array(GOLDEN["wiener"][timestep]), abs=1e-6)
    mask = local.mask_of(statistics, share)
    for name, batch in (("local", None), ("local in batches of 3", 3)):
        found = local.denoise(x, bank, share, mask, batch=batch)
        assert found.numpy() == close(np.array(GOLDEN[name][timestep]), abs=1e-6)
    apart = np.array(GOLDEN["local"][timestep]) - np.array(GOLDEN["local in batches of 3"][timestep])
    assert np.abs(apart).max() > 1e-3  # so the batch does matter to them


levels = st.floats(1e-4, 1 - 1e-4)
seeds = st.integers(0, 10**6)


@given(share=levels, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_one_image_is_what_all_return(share: float, seed: int) -> None:
    image, x = noisy(1, 5, seed), noisy(3, 5, seed + 1)
    single, expected = fitted(image), image.expand(3, -1).numpy()
    assert single.denoise(x, share).numpy() == close(expected, abs=1e-10)
    one = Mixture(torch.zeros(1).double(), Gaussian(*(part[None] for part in single)))
    assert one.denoise(x, share).numpy() == close(expected, abs=1e-10)
    assert optimal.denoise(x, image, share).numpy() == close(expected, abs=1e-10)
    mask = local.mask_of(single, share)
    assert local.denoise(x, image, share, mask).numpy() == close(expected, abs=1e-10)


@given(share=levels, seed=seeds, rank=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_a_mixture_of_one_or_of_equal_ones_is_that_gaussian(share: float, seed: int, rank: int) -> None:
    data, x = gaussian(5, rank, seed), noisy(3, 5, seed)
    expected = data.denoise(x, share).numpy()
    for count in (1, 3):
        weights = torch.full((count,), 1 / count).double().log()
        several = Mixture(weights, Gaussian(*(part.expand(count, *part.shape) for part in data)))
        assert several.denoise(x, share).numpy() == close(expected, abs=1e-9)


@given(share=levels, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_a_mixture_without_variance_is_the_optimal_denoiser(share: float, seed: int) -> None:
    bank, x = noisy(4, 5, seed), noisy(3, 5, seed + 1)
    points = Gaussian(bank, torch.eye(5).double()[:, :1].expand(4, 5, 1), torch.zeros(4, 1).double())
    uniform = torch.full((4,), 0.25).double().log()
    expected = optimal.denoise(x, bank, share).numpy()
    assert Mixture(uniform, points).denoise(x, share).numpy() == close(expected, abs=1e-7)


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_without_noise_x_is_the_image_and_without_signal_the_mean(seed: int) -> None:
    bank, data = noisy(6, 5, seed), gaussian(5, 5, seed)
    several = mixture(5, 5, 2, seed)
    image = bank[:1] + 0  # what a finite bank allows at no noise is its images
    assert data.denoise(image, 1 - 1e-9).numpy() == close(image.numpy(), abs=1e-6)
    assert several.denoise(image, 1 - 1e-9).numpy() == close(image.numpy(), abs=1e-6)
    assert optimal.denoise(image, bank, 1 - 1e-9).numpy() == close(image.numpy(), abs=1e-6)
    x = noisy(2, 5, seed + 2)
    mean, _ = several.moments(0.5)
    assert data.denoise(x, 1e-16).numpy() == close(data.mean.expand(2, -1).numpy(), abs=1e-6)
    assert several.denoise(x, 1e-16).numpy() == close(mean.expand(2, -1).numpy() / np.sqrt(0.5), abs=1e-6)
    assert optimal.denoise(x, bank, 1e-16).numpy() == close(bank.mean(0).expand(2, -1).numpy(), abs=1e-6)


@given(share=levels, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_order_of_images_makes_no_difference(share: float, seed: int) -> None:
    bank, x = noisy(6, 5, seed), noisy(3, 5, seed + 1)
    other = bank[torch.from_numpy(np.random.default_rng(seed).permutation(6))]
    assert optimal.denoise(x, other, share).numpy() == close(optimal.denoise(x, bank, share).numpy(), abs=1e-9)
    assert fitted(other).denoise(x, share).numpy() == close(fitted(bank).denoise(x, share).numpy(), abs=1e-8)
