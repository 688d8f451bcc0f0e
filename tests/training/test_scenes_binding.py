"""What a prompt is worth with its words exchanged: of models that read it, that do not, and that know nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from causalunet.models.scenes import load_scenes
from causalunet.models.text_to_image import TextToImage
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.prediction import Prediction
from causalunet.training.scenes import candidate
from causalunet.training.scenes_binding import evaluate_binding
from causalunet.worlds.groups import COLOURS

WORLD = candidate("free").world
COLOUR_TOKENS = [SCENES_VOCABULARY([colour])[0][0, 0] for colour in COLOURS]


class _Painter(nn.Module):
    """Knows the image, and errs by the first colour that it is told, or by the sum of all words."""

    def __init__(self, model: TextToImage, images: Tensor, *, ordered: bool) -> None:
        super().__init__()
        self.model, self.images, self.ordered = model, images, ordered
        self.positional_embedding = torch.zeros(1)

    def encode_text(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        kept = torch.where(mask, tokens, 0).float()
        if not self.ordered:
            return (kept.sum(dim=1),)
        colours = torch.isin(tokens, torch.tensor(COLOUR_TOKENS)) & mask
        return (torch.where(colours.any(dim=1), tokens[torch.arange(len(tokens)), colours.int().argmax(dim=1)], 0),)

    def forward(self, noisy: Tensor, timesteps: Tensor, told: Tensor) -> Tensor:
        share = float(self.model.alpha_bar[int(timesteps[0])])
        x0 = self.images + 0.01 * told[:, None, None, None]
        noise = (noisy - share**0.5 * x0) / (1 - share) ** 0.5
        predicted = noise if self.model.prediction.of == "eps" else share**0.5 * noise - (1 - share) ** 0.5 * x0
        return torch.cat([predicted, predicted], dim=1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    from causalunet.worlds.painting import render

    rng = np.random.default_rng(2)
    return torch.from_numpy(render(replace(WORLD, drop=0.0).draw(8, rng, only_held_out=False), rng))


@pytest.mark.parametrize("of", ["eps", "v"])
@pytest.mark.parametrize("ordered", [True, False])
def test_errors_are_those_of_the_estimate_and_tell_whether_order_counts(of: Any, ordered: bool, images: Tensor) -> None:
    told = replace(load_scenes(), prediction=Prediction(of, variance=True))
    model = replace(told, unet=_Painter(told, images, ordered=ordered))
    found = evaluate_binding(model, WORLD, n=8, seed=2, log_snrs=(-3.7, 2.0))
    assert found.dims == ("timestep", "prompt")
    share = told.alpha_bar[found["timestep"].values]
    np.testing.assert_allclose(found["log_snr"], np.log(share / (1 - share)))
    np.testing.assert_allclose(found["log_snr"], (-3.7, 2.0), atol=0.05)
    own, exchanged, shapes, none = found.values.T
    np.testing.assert_allclose(own[0], own[1], rtol=1e-3)  # it knows the image at any noise
    np.testing.assert_allclose(none, 0, atol=1e-6)
    assert own.min() > 1e-4
    if ordered:
        assert (abs(exchanged / own - 1) > 0.001).all()
        np.testing.assert_allclose(shapes, own, rtol=1e-4)  # it reads nothing but the first colour
    else:
        np.testing.assert_allclose(exchanged, own, rtol=1e-4)


def test_the_model_that_ships_follows_which_group_a_word_belongs_to() -> None:
    found = evaluate_binding(load_scenes(), WORLD, n=16, log_snrs=(-8.3, -2.9))
    own, exchanged, shapes, none = found.values.T
    assert (exchanged > 1.2 * own).all()
    assert (shapes > own).all()
    assert (none > 1.1 * own).all()
