"""The same by other means: dense matrices, SciPy's densities, loops, integrals."""

from __future__ import annotations

import numpy as np
import scipy.special
import torch
from scipy.stats import multivariate_normal

from causalunet.models.exact import Gaussian, ImageBank, Mixture, scene_bank

LEVELS = (0.999, 0.7, 0.2, 1e-3)
"""Shares of signal variance."""


def gaussian(pixels: int, rank: int, seed: int = 0, classes: tuple[int, ...] = ()) -> Gaussian:
    """A Gaussian, or several, with orthonormal components drawn at random."""
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.normal(size=(*classes, pixels, rank)))[0]
    parts = rng.normal(size=(*classes, pixels)), vectors, rng.uniform(0.1, 2, size=(*classes, rank))
    return Gaussian(*map(torch.from_numpy, parts))


def mixture(pixels: int, rank: int, classes: int, seed: int = 0) -> Mixture:
    weights = np.random.default_rng(seed + 1).dirichlet(np.ones(classes))
    return Mixture(torch.from_numpy(weights).log(), gaussian(pixels, rank, seed, (classes,)))


def noisy(rows: int, pixels: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed + 7).normal(size=(rows, pixels)) * 1.5)


def law(of: Gaussian, share: float) -> object:
    """SciPy's distribution of x_t, from the dense covariance."""
    vectors, variances = of.vectors.numpy(), of.variances.numpy()
    covariance = (vectors * variances) @ vectors.T
    return multivariate_normal(
        np.sqrt(share) * of.mean.numpy(), share * covariance + (1 - share) * np.eye(len(vectors))
    )


def conditional_mean(of: Gaussian, x: np.ndarray, share: float) -> np.ndarray:
    """E[x_0 | x_t] by the formula of a joint Gaussian, with a dense inverse."""
    mean, vectors = of.mean.numpy(), of.vectors.numpy()
    covariance = (vectors * of.variances.numpy()) @ vectors.T
    noisy_covariance = share * covariance + (1 - share) * np.eye(len(mean))
    return mean + np.sqrt(share) * (x - np.sqrt(share) * mean) @ np.linalg.solve(noisy_covariance, covariance)


def weighted_mean(x: np.ndarray, bank: np.ndarray, share: float, weights: np.ndarray) -> np.ndarray:
    """E[x_0 | x_t] of a finite set, row by row and image by image."""
    rows = []
    for row in x:
        distances = np.array([((row - np.sqrt(share) * image) ** 2).sum() for image in bank])
        with np.errstate(divide="ignore"):
            found = scipy.special.softmax(np.log(weights) - distances / (2 * (1 - share)))
        rows.append(sum(weight * image for weight, image in zip(found, bank, strict=True)))
    return np.array(rows)


def small_bank(images: int = 24, size: int = 12, seed: int = 0) -> ImageBank:
    return scene_bank(images, size=size, seed=seed)
