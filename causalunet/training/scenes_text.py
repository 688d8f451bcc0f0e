"""First stage of `scenes`: its text transformer learns to tell what prompts say, before there is an image.

What a word belongs to is said by its place alone: "a red square above a blue circle" has the words of "a blue square
above a red circle". GLIDE's vectors of places begin at a hundredth of the size of those of words, and denoising hardly
ever moves them: after 1706 iterations of batch 128 they were at a fiftieth. A few hundred iterations on prompts alone
teach the transformer all that they say. Then it is kept as it is, like the text encoders of Imagen and Stable
Diffusion: denoising that moved it too had made a bag of words of it again within 2000 iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from causalunet.models.openai_layout import TextUNet
from causalunet.models.vocabulary import SCENES_VOCABULARY
from causalunet.training.batches import Batch
from causalunet.training.loop import LoopConfig
from causalunet.worlds.groups import FACTORS, OPEN, SPOKEN, Description, GroupWorld

__all__ = ["DrawSaid", "TextStage", "keep_text", "taught_for"]

_PARTS = (
    *("transformer", "final_ln", "token_embedding", "transformer_proj"),
    *("positional_embedding", "padding_embedding"),
)
"""Of a U-Net, what the encoding of a prompt takes."""
_SKIPPED = -100
"""Target that cross-entropy leaves out."""
_RELATIONS = ("above", "below", "left of", "right of")
_OTHER_SIDE = dict(zip(_RELATIONS, ("below", "above", "right of", "left of"), strict=True))
_LOOKS = [name for name in SPOKEN if name != "relation"]
"""Factors of the two groups that prompts can speak of."""
_CLASSES = [*(len(FACTORS[name]) + 1 for name in _LOOKS * 2), len(_RELATIONS) + 1]
"""Of the groups in the order of the prompt, then of the scene, and of the relation; the last is what is not said."""
_PLACES = len(_RELATIONS) + 1
_WORDS = 4.0
"""Weight of a loss of words; that of a factor is one."""
_SPREAD = 2.0
"""Weight of what keeps every channel of a prompt's vector at a mean of 0 and a variance of 1."""


def taught_for(iterations: int, seed: int) -> LoopConfig:
    """How the text transformer is taught: the rate rises in the first tenth of a run and falls in its last quarter."""
    return LoopConfig(
        iterations=iterations,
        batch_size=256,
        learning_rate=1e-3,
        warmup=max(1, iterations // 10),
        decay=max(1, iterations // 4),
        seed=seed,
    )


def keep_text(unet: TextUNet) -> None:
    """Leave what encodes prompts out of any further training."""
    for part in _PARTS:
        getattr(unet, part).requires_grad_(False)


@dataclass(frozen=True)
class DrawSaid:
    """Draws prompts, with what they say.

    Parameters
    ----------
    config : LoopConfig
    world : GroupWorld
    """

    config: LoopConfig
    world: GroupWorld

    def __call__(self, iteration: int, rng: np.random.Generator) -> Batch:
        """Draw tokens, and the classes that `TextStage` learns."""
        codes = self.world.draw(self.config.batch_size, rng, only_held_out=False)
        said = self.world.describe(codes, rng)
        tokens, mask = SCENES_VOCABULARY([one.prompt for one in said])
        factors, words = np.stack([_factors(one) for one in said]), np.stack([_words(one) for one in said])
        words[~mask] = _SKIPPED
        arrays = {"tokens": tokens, "mask": mask, "factors": factors, "words": words}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _factors(said: Description) -> NDArray[np.int64]:
    """Classes of the factors of both mentions; of both groups of the scene, where the prompt tells which is which."""
    mentions = np.concatenate([said.first.codes, said.second.codes])
    groups = np.full(len(mentions), _SKIPPED)
    relation = len(_RELATIONS) if said.relation is None else _RELATIONS.index(said.relation)
    if said.relation is not None:
        (asked,) = said.readings
        groups = asked[[list(FACTORS).index(name) for name in _LOOKS]]
    classes = np.concatenate([mentions, groups, [relation]])
    return np.where(classes == OPEN, np.array(_CLASSES) - 1, classes)


def _words(said: Description) -> NDArray[np.int64]:
    """Of each word, which mention it belongs to and on which side of the other group that one is, (context, 2)."""
    sides = [said.relation, _OTHER_SIDE[said.relation]] if said.relation else [None, None]
    first = len(f"{said.first.text} {said.relation or 'and'}".split())
    mention = (np.arange(SCENES_VOCABULARY.context) >= first).astype(np.int64)
    places = [_PLACES - 1 if side is None else _RELATIONS.index(side) for side in sides]
    return np.stack([mention, np.array(places)[mention]], axis=1)


class _Teller(nn.Module):
    """The text transformer of a U-Net, whose parameters it shares, with linear layers that tell what is said."""

    def __init__(self, unet: TextUNet) -> None:
        super().__init__()
        for name in _PARTS:
            setattr(self, name, getattr(unet, name))
        self.factors = nn.Linear(4 * unet.config.model_channels, sum(_CLASSES))
        self.words = nn.Linear(unet.config.text.width, 2 + _PLACES)
        self._encode = unet.encode_text

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode prompts, (batch, 4 * model_channels); tell factors, (batch, class), words, (batch, context, class)."""
        pooled, sequence = self._encode(tokens, mask)
        return pooled, self.factors(pooled), self.words(sequence.transpose(1, 2))


class TextStage:
    """Tell from a prompt's encoding what the prompt says, of the whole and word by word.

    Parameters
    ----------
    unet : TextUNet
        Whose text transformer is taught.
    draw : DrawSaid
    """

    name = "text"

    def __init__(self, unet: TextUNet, draw: DrawSaid) -> None:
        self.draw = draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.config.seed)
            self.network = _Teller(unet)

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Cross-entropy of factors and words, the spread of encodings, and the share of factors told right."""
        pooled, factors, words = self.network(batch["tokens"], batch["mask"])
        asked, told = batch["factors"], factors.split(_CLASSES, dim=1)
        losses = [F.cross_entropy(one, asked[:, at], ignore_index=_SKIPPED) for at, one in enumerate(told)]
        for at, one in enumerate(words.split([2, _PLACES], dim=2)):
            classes = batch["words"][..., at].flatten()
            losses.append(_WORDS * F.cross_entropy(one.flatten(0, 1), classes, ignore_index=_SKIPPED))
        # A prompt's vector goes through a SiLU: what is far from 0 in every prompt is cut off, or says nothing.
        losses += [_SPREAD * pooled.mean(dim=0).square().mean(), _SPREAD * (pooled.var(dim=0) - 1).square().mean()]
        right = torch.stack([one.argmax(dim=1) for one in told], dim=1) == asked
        return torch.stack(losses).sum(), {"told": right.sum() / (asked != _SKIPPED).sum()}
