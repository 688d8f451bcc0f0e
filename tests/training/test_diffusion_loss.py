"""The hybrid loss against torch.distributions and against its own definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from causalunet.schedule import cosine_alpha_bar
from causalunet.training.diffusion import HybridLoss, discretized_gaussian_nll, gaussian_kl


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_is_that_of_torch_distributions() -> None:
    mean1, log1, mean2, log2 = (draw(50, seed=seed).double() for seed in range(4))
    ours = gaussian_kl(mean1, log1, mean2, log2)
    theirs = kl_divergence(Normal(mean1, (log1 / 2).exp()), Normal(mean2, (log2 / 2).exp()))
    torch.testing.assert_close(ours, theirs)


def test_probabilities_of_all_pixel_values_sum_to_one() -> None:
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, log_variance in ((0.1, -3.0), (-0.9, -1.0), (0.99, 0.5)):
        nll = discretized_gaussian_nll(values, torch.tensor(mean).double(), torch.tensor(log_variance).double())
        assert (-nll).exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_diffused_images_have_the_schedule_s_signal_and_noise() -> None:
    alpha_bar = cosine_alpha_bar()
    loss = HybridLoss(alpha_bar)
    timesteps = torch.tensor([0, 300, 999])
    image, noise = draw(3, 3, 8, 8), draw(3, 3, 8, 8, seed=1)
    expected = [
        np.sqrt(alpha_bar[t]) * image[i] + np.sqrt(1 - alpha_bar[t]) * noise[i] for i, t in enumerate(timesteps)
    ]
    torch.testing.assert_close(loss.diffuse(image, timesteps, noise), torch.stack(expected).float())


def test_the_true_noise_has_no_error_and_the_variance_gets_no_gradient_through_the_mean() -> None:
    loss = HybridLoss(cosine_alpha_bar())
    image, noise, timesteps = draw(4, 3, 8, 8).clamp(-1, 1), draw(4, 3, 8, 8, seed=1), torch.tensor([1, 200, 600, 950])
    noisy = loss.diffuse(image, timesteps, noise)
    fraction = torch.zeros_like(noise, requires_grad=True)
    predicted = noise.clone().requires_grad_()
    total, error = loss(torch.cat([predicted, fraction], dim=1), image, noisy, timesteps, noise)
    total.backward()
    assert error.max().item() == 0
    assert predicted.grad is not None
    assert fraction.grad is not None
    assert predicted.grad.abs().max().item() == 0  # L_vlb must not reach the mean
    assert fraction.grad.abs().max().item() > 0


def test_v_and_the_noise_that_follows_from_it_have_the_same_loss_but_for_the_share_of_signal() -> None:
    alpha_bar = cosine_alpha_bar()
    loss, timesteps = HybridLoss(alpha_bar), torch.tensor([1, 200, 600, 950])
    image, noise = draw(4, 3, 8, 8).clamp(-1, 1), draw(4, 3, 8, 8, seed=1)
    signal, spread = (
        torch.tensor(np.sqrt(share))[timesteps, None, None, None].float() for share in (alpha_bar, 1 - alpha_bar)
    )
    noisy, fraction, off = loss.diffuse(image, timesteps, noise), draw(4, 3, 8, 8, seed=2), draw(4, 3, 8, 8, seed=3)
    v = signal * noise - spread * image + 0.1 * off
    eps = signal * v + spread * noisy
    torch.testing.assert_close(eps, noise + signal * 0.1 * off, atol=1e-5, rtol=1e-5)
    ones = torch.ones(4)
    of_v, error = loss(torch.cat([v, fraction], dim=1), image, noisy, timesteps, noise, ones, of="v")
    of_eps, of_noise = loss(torch.cat([eps, fraction], dim=1), image, noisy, timesteps, noise, ones)
    torch.testing.assert_close(error, (0.1 * off).square().mean(dim=(1, 2, 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(of_noise, error * signal.flatten().square(), rtol=1e-3, atol=0)
    torch.testing.assert_close(of_v - error.mean(), of_eps - of_noise.mean())  # what teaches the variance


def test_weights_favour_noise_and_have_mean_one() -> None:
    loss = HybridLoss(cosine_alpha_bar(), max_weight=20.0)
    zeros = torch.zeros(1000, 3, 2, 2)
    ones = torch.cat([torch.ones_like(zeros), torch.zeros_like(zeros)], dim=1)
    timesteps = torch.arange(1000)
    weights = []
    for t in (50, 500, 950):
        rows = timesteps == t
        total, _ = loss(ones[rows], zeros[rows], zeros[rows], timesteps[rows], zeros[rows])
        plain, _ = loss(0 * ones[rows], zeros[rows], zeros[rows], timesteps[rows], zeros[rows])
        weights.append(total.item() - plain.item())
    assert weights[0] < weights[1] < weights[2]
