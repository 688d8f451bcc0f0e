"""Subspaces learned as the study of low-rank data learns them: against Bayes by hand, PCA and what samples tell."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor


@pytest.fixture(scope="module")
def study() -> Any:
    path = Path(__file__).parents[1] / "studies" / "systems" / "low_rank" / "study.py"
    spec = importlib.util.spec_from_file_location("low_rank", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_the_denoiser_is_that_of_bayes(study: Any) -> None:
    """Probabilities by densities of x_t, and estimates by regression on x_t."""
    bases, x, share = torch.linalg.qr(normal(1, 3, 7, 2))[0], normal(1, 5, 7, seed=1), 0.7
    clean = (bases[0] @ bases[0].mT).numpy()
    noised = [share * one + (1 - share) * np.eye(7) for one in clean]
    densities = np.stack([multivariate_normal(cov=one).pdf(x[0].numpy()) for one in noised])
    estimates = np.stack(
        [x[0].numpy() @ np.linalg.solve(two, share**0.5 * one) for one, two in zip(clean, noised, strict=True)]
    )
    expected = (densities[..., None] * estimates).sum(0) / densities.sum(0)[:, None]
    np.testing.assert_allclose(study.denoised(bases, x, share)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [2, 4])
def test_one_class_learns_principal_components(study: Any, rank: int) -> None:
    """Of samples in all directions: training one class is PCA (Wang et al. 2024)."""
    samples = normal(2, 15, 12, seed=2) * torch.linspace(2, 0.3, 12, dtype=torch.float64)
    found = study.learned(samples, 1, rank, begun=1)
    principal = torch.linalg.svd(samples)[2][:, None, :rank].mT
    assert max(study.error(*pair) for pair in zip(found, principal, strict=True)) < 1e-5


@pytest.mark.sampled(1)
@pytest.mark.parametrize("rank", [2, 4])
def test_one_subspace_is_learned_from_as_many_samples_as_it_has_dimensions(study: Any, rank: int) -> None:
    true = torch.linalg.qr(normal(1, 12, rank))[0]
    samples = normal(1, rank, rank, seed=3) @ true.mT
    assert study.error(study.learned(samples, 1, rank, begun=1)[0], true) < 0.05
    # One sample fewer leaves a direction that no sample tells of.
    assert study.error(study.learned(samples[:, 1:], 1, rank, begun=1)[0], true) > 0.2


def test_two_subspaces_are_learned_from_enough_samples(study: Any) -> None:
    true = torch.linalg.qr(normal(2, 12, 2))[0]
    samples = (normal(2, 4, 2, seed=3) @ true.mT).flatten(0, 1)[None]
    assert study.error(study.learned(samples, 2, 2)[0], true) < 0.05
    fewer = samples[:, [0, 4]]  # one of each
    assert study.error(study.learned(fewer, 2, 2)[0], true) > 0.2


def test_the_error_does_not_depend_on_names(study: Any) -> None:
    """Neither on the basis of a subspace nor on the order of classes; 1 where subspaces are at right angles."""
    one, axes = torch.linalg.qr(normal(3, 12, 4))[0], torch.eye(12, dtype=torch.float64)
    turned = one[[2, 0, 1]] @ torch.linalg.qr(normal(4, 4, seed=5))[0]
    assert study.error(turned, one) == pytest.approx(0, abs=1e-12)
    assert study.error(axes[None, :, :4], axes[None, :, 4:8]) == pytest.approx(1)
