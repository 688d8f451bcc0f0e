"""Does ``scenes`` draw what its prompts say, and does it need its depth? Read by the factor reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.design.kinds import AblateBlock
from causalunet.design.samplers import DDPM, Sampler
from causalunet.design.windows import Window
from causalunet.execute import generate
from causalunet.models.text_to_image import TextToImage
from causalunet.prompts import NO_PROMPT
from causalunet.training.evaluation import as_baseline
from causalunet.worlds.groups import FACTORS, OPEN, Codes, Description, GroupWorld

__all__ = ["DepthEffect", "ScenesEvaluation", "evaluate_depth", "evaluate_scenes"]

_NAMES = list(FACTORS)
_KINDS = ("count", "texture", "colour", "shape")
_MEMORY = 4 << 30


@dataclass(frozen=True, slots=True)
class ScenesEvaluation:
    """Generated images and how they were read.

    Parameters
    ----------
    descriptions : list of Description
        What was asked.
    images : ndarray of float32, (sample, channel, y, x)
        What came, in [0, 1].
    asked : ndarray of int, (sample, factor)
        Codes of what was asked, `OPEN` for what was not, under the reading of the prompt that fits the image best.
    read : ndarray of int, (sample, factor)
        Codes of what was read.
    """

    descriptions: list[Description]
    images: NDArray[np.float32]
    asked: Codes
    read: Codes

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether what was asked was read, (sample, factor); true for what was not asked."""
        return (self.asked == self.read) | (self.asked == OPEN)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """How often what was asked was read, and how often it was asked, by kind of factor.

        ``single factors`` are all of these together. The ``relation`` is read right if the groups stand along the line
        asked, and in this order: what is said of them fits at least as well as with the groups exchanged. ``all`` is
        whole prompts.
        """
        spoken, right = self.asked != OPEN, self.right
        found = {}
        for kind in _KINDS:
            columns = [_NAMES.index(f"{group} {kind}") for group in ("first", "second")]
            found[kind] = int((right & spoken)[:, columns].sum()), int(spoken[:, columns].sum())
        found["single factors"] = sum(one for one, _ in found.values()), sum(one for _, one in found.values())
        told = spoken[:, _NAMES.index("relation")]
        stands = right[:, _NAMES.index("relation")] & self._in_order
        found["relation"] = int((stands & told).sum()), int(told.sum())
        found["all"] = int((right.all(axis=1) & (stands | ~told)).sum()), len(right)
        return found

    @property
    def _in_order(self) -> NDArray[np.bool_]:
        """Whether the groups fit what is said of them at least as well as if they were exchanged, (sample,)."""
        columns = [[_NAMES.index(f"{group} {kind}") for kind in _KINDS] for group in ("first", "second")]
        asked, exchanged = (self.asked[:, columns[0] + columns[1]], self.asked[:, columns[1] + columns[0]])
        read = self.read[:, columns[0] + columns[1]]
        fits, otherwise = ((read == said).sum(axis=1) for said in (asked, exchanged))
        return np.asarray(fits >= otherwise)

    def chance(self, shifts: int = 20) -> dict[str, float]:
        """Share right if every prompt is compared with images of other prompts, by kind as in `counts`.

        Parameters
        ----------
        shifts : int
            With how many others, those that follow it, at most.
        """
        right, asked = dict.fromkeys(self.counts, 0), dict.fromkeys(self.counts, 0)
        for shift in range(1, min(shifts + 1, len(self.read))):
            others = np.roll(self.read, -shift, axis=0)
            counts = _evaluated(self.descriptions, np.roll(self.images, -shift, axis=0), others).counts
            for kind, (one, of) in counts.items():
                right[kind] += one
                asked[kind] += of
        return {kind: right[kind] / asked[kind] if asked[kind] else np.nan for kind in right}

    def as_results(self) -> xr.DataTree:
        """The images as a baseline group, for the report; prompts of images read otherwise are marked."""
        right: NDArray[np.bool_] = np.asarray(self.right.all(axis=1))
        return as_baseline([said.prompt for said in self.descriptions], self.images, right)


def evaluate_scenes(
    model: TextToImage,
    world: GroupWorld,
    *,
    n: int = 200,
    seed: int = 0,
    only_held_out: bool = False,
    sampler: Sampler | None = None,
    advance: Callable[[int], None] | None = None,
) -> ScenesEvaluation:
    """Generate images of random prompts and read them.

    Parameters
    ----------
    model : TextToImage
        Trained on the world.
    world : GroupWorld
        Of the prompts.
    n : int
        Number of prompts.
    seed : int
        Of the draw of prompts; the noise of prompt i has seed i.
    only_held_out : bool
        Only prompts of scenes that training never saw.
    sampler : Sampler, optional
        By default 100 steps at guidance 3.
    advance : callable, optional
        Told the number of samples after every U-Net call.
    """
    said = [Description.parse(prompt) for prompt in world.draw_prompts(n, seed=seed, only_held_out=only_held_out)]
    prompts = [one.prompt for one in said]
    images = generate(prompts, model=model, sampler=sampler, traced=False, memory=_MEMORY, advance=advance)
    read, _ = model.read_factors(images)
    return _evaluated(said, images, read)


def _evaluated(said: list[Description], images: NDArray[np.float32], read: Codes) -> ScenesEvaluation:
    asked = np.stack([one.right(codes)[0] for one, codes in zip(said, read, strict=True)])
    return ScenesEvaluation(said, images, asked, read)


@dataclass(frozen=True, slots=True)
class DepthEffect:
    """How images were read with all blocks, and with the bottom ones cut at first.

    Parameters
    ----------
    images, cut_images : ndarray of float32, (sample, channel, y, x)
        In [0, 1].
    read, cut_read : ndarray of int, (sample, factor)
        Negative where the reader is not sure.
    """

    images: NDArray[np.float32]
    cut_images: NDArray[np.float32]
    read: Codes
    cut_read: Codes

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Whether another value is read, of what is readable in both images, (sample, factor)."""
        return (self.read != self.cut_read) & (self.read >= 0) & (self.cut_read >= 0)

    @property
    def counts(self) -> dict[str, int]:
        """Samples in which a factor changes, and in which ``any`` does."""
        by_factor = dict(zip(FACTORS, self.changed.sum(axis=0).tolist(), strict=True))
        return {"any": int(self.changed.any(axis=1).sum()), **by_factor}


def evaluate_depth(
    model: TextToImage,
    world: GroupWorld | None = None,
    *,
    n: int = 100,
    seed: int = 1,
    steps: int = 50,
    bottom: int = 4,
    min_probability: float = 0.9,
    advance: Callable[[int], None] | None = None,
) -> DepthEffect:
    """Cut the bottom decoder blocks during the first tenth of the steps, and read what changes.

    Parameters
    ----------
    model : TextToImage
    world : GroupWorld, optional
        Of prompts that say all that prompts can, at guidance 3; by default no prompt, at guidance 1.
    n : int
        Number of samples.
    seed : int
        Of the prompts; the noise of sample i has seed i.
    steps : int
        Denoising steps.
    bottom : int
        Number of decoder blocks.
    min_probability : float
        Least probability of a readable value, as in `causalunet.analysis.factor_changes`.
    advance : callable, optional
        Told the number of samples after every U-Net call.
    """
    prompts: list[str]
    if world is None:
        prompts, sampler = [NO_PROMPT] * n, DDPM(steps=steps, guidance_scale=1.0)
    else:
        told = GroupWorld(layout=world.layout, counts=world.counts, drop=0.0)
        prompts, sampler = told.draw_prompts(n, seed=seed), DDPM(steps=steps, guidance_scale=3.0)
    cut = AblateBlock(bottom=bottom, window=Window(steps, max(1, steps // 10)))
    whole, part = (
        generate(
            prompts,
            model=model,
            sampler=sampler,
            intervention=intervention,
            traced=False,
            memory=_MEMORY,
            advance=advance,
        )
        for intervention in (None, cut)
    )
    return DepthEffect(whole, part, *(_readable(model, images, min_probability) for images in (whole, part)))


def _readable(model: TextToImage, images: NDArray[np.float32], min_probability: float) -> Codes:
    codes, probability = model.read_factors(images)
    return np.where(probability >= min_probability, codes, -1)
