"""Factor readers: small networks that tell which scene an image shows, one probability per factor value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.calls import clear_calls
from causalunet.errors import SpecError
from causalunet.models.checkpoints import load_weights, read_weights
from causalunet.scenes import FACTORS, IMAGE_SIZE
from causalunet.worlds.groups import FACTORS as GROUP_FACTORS

__all__ = ["SCENES_READER", "SHAPES_READER", "FactorReader", "ReaderConfig", "load_reader"]

_NORM_GROUPS = 8


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderConfig:
    """What a reader tells apart, and its sizes.

    Parameters
    ----------
    name : str
        Of the weights file.
    factors : mapping of str to tuple of str
        Values of every factor of the world.
    channels : tuple of int
        Of the feature maps, each at half the resolution of the one before.
    hidden : int
        Units behind the last feature map.
    """

    name: str
    factors: Mapping[str, tuple[str, ...]]
    channels: tuple[int, ...]
    hidden: int


SHAPES_READER = ReaderConfig(name="reader", factors=FACTORS, channels=(24, 32, 64, 64), hidden=64)
"""Reads the five factors of the world of `shapes`."""

SCENES_READER = ReaderConfig(name="scenes-reader", factors=GROUP_FACTORS, channels=(32, 64, 96, 96), hidden=192)
"""Reads the twelve factors of the world of `scenes`."""


def _halve(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Convolution to half the resolution; group norm keeps every image independent of its batch."""
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1),
        nn.GroupNorm(_NORM_GROUPS, channels_out),
        nn.SiLU(),
    ]


class FactorReader(nn.Module):
    """Convolutional classifier of the factors of a scene.

    It stands outside the model under study: trained on rendered scenes only, never on generated images. The last
    feature map keeps its 4 x 4 places, because the position is one of the factors. The values of all factors are in
    the order of the world's factors, such as `causalunet.scenes.FACTORS`.

    Parameters
    ----------
    config : ReaderConfig
        By default of the world of `shapes`.

    Examples
    --------
    >>> reader = FactorReader()
    >>> read = reader.probabilities(torch.zeros(2, 3, 32, 32))
    >>> {factor: tuple(p.shape) for factor, p in read.items()}
    {'texture': (2, 3), 'colour': (2, 6), 'shape': (2, 4), 'position': (2, 5),
     'background': (2, 3)}
    """

    def __init__(self, config: ReaderConfig = SHAPES_READER) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        # No norm behind the first convolution: it would take away the tone that tells dark from light.
        self.features = nn.Sequential(
            nn.Conv2d(3, channels[0], 3, padding=1),
            nn.SiLU(),
            *(layer for sizes in pairwise(channels) for layer in _halve(*sizes)),
            nn.Flatten(),
            nn.Linear(channels[-1] * (IMAGE_SIZE // 8) ** 2, config.hidden),
            nn.SiLU(),
        )
        self.head = nn.Linear(config.hidden, sum(len(values) for values in config.factors.values()))

    @classmethod
    def from_file(cls, path: Path, config: ReaderConfig = SHAPES_READER) -> FactorReader:
        """Load a reader, ready to read: float32, evaluation mode, parameters without gradient.

        Parameters
        ----------
        path : Path
            Weights under the reader's own names, in any floating precision.
        config : ReaderConfig
            By default of the world of `shapes`.

        Raises
        ------
        CheckpointError
            The file is missing or not whole, or its names or shapes are not those of the reader.
        """
        reader = cls(config)
        load_weights(reader, read_weights(path), str(path))
        return reader.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of every factor.

        Parameters
        ----------
        images : Tensor, (batch, 3, 32, 32)
            Values in [-1, 1]; brought to the reader's device and precision.

        Returns
        -------
        dict of str to Tensor, (batch, value)
            One entry per factor.

        Raises
        ------
        SpecError
            The images have another shape.
        """
        expected = (3, IMAGE_SIZE, IMAGE_SIZE)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise SpecError(
                f"The factor reader reads images of shape (batch, {', '.join(map(str, expected))}); "
                f"found {tuple(images.shape)}. Add a batch axis, or resize the images."
            )
        logits = self.head(self.features(images.to(self.head.weight)))
        factors = self.config.factors
        parts = logits.split([len(values) for values in factors.values()], dim=1)
        return dict(zip(factors, parts, strict=True))

    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        """Probability of every value of every factor; differentiable in the images.

        Parameters
        ----------
        images : Tensor, (batch, 3, 32, 32)
            Values in [-1, 1].

        Returns
        -------
        dict of str to Tensor, (batch, value)
            One entry per factor; each row sums to one.
        """
        return {factor: logits.softmax(dim=1) for factor, logits in self(images).items()}

    @torch.no_grad()
    def read(self, images: Tensor) -> NDArray[np.int64]:
        """Most probable value of every factor, in the manner of `causalunet.scenes.Scene.codes`.

        Parameters
        ----------
        images : Tensor, (batch, 3, 32, 32)
            Values in [-1, 1].

        Returns
        -------
        ndarray of int64, (batch, factor)
            Index of the value among those of the factor.
        """
        codes = [logits.argmax(dim=1) for logits in self(images).values()]
        return torch.stack(codes, dim=1).cpu().numpy()

    @torch.inference_mode()
    def likeliest(self, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Index and probability of the likeliest value of every factor.

        Parameters
        ----------
        images : ndarray of float32, (image, 3, 32, 32)
            Values in [0, 1].

        Returns
        -------
        code : ndarray of int64, (image, factor)
        probability : ndarray of float32, (image, factor)
        """
        likely = [values.max(dim=1) for values in self.probabilities(torch.from_numpy(2 * images - 1)).values()]
        code = np.stack([part.indices.numpy() for part in likely], axis=1)
        return code, np.stack([part.values.numpy() for part in likely], axis=1)


def load_reader(config: ReaderConfig = SHAPES_READER) -> FactorReader:
    """Load a reader that ships with the package; every call returns the same one.

    Parameters
    ----------
    config : ReaderConfig
        By default of the world of `shapes`.

    Raises
    ------
    CheckpointError
        The file is missing, not whole, or of another layout.
    """
    if config.name not in _LOADED:
        with as_file(files("causalunet") / "weights" / f"{config.name}.safetensors") as path:
            _LOADED[config.name] = FactorReader.from_file(path, config)
    return _LOADED[config.name]


_LOADED: dict[str, FactorReader] = {}
