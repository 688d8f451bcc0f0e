"""The factor reader: a small network that tells which scene an image shows, one probability per factor value."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalunet.errors import SpecError
from causalunet.models.checkpoints import load_weights, read_weights
from causalunet.scenes import FACTORS, IMAGE_SIZE

__all__ = ["FactorReader", "load_reader"]

_CHANNELS = (24, 32, 64, 64)
_HIDDEN = 64
_NORM_GROUPS = 8


def _halve(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Convolution to half the resolution; group norm keeps every image independent of its batch."""
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1),
        nn.GroupNorm(_NORM_GROUPS, channels_out),
        nn.SiLU(),
    ]


class FactorReader(nn.Module):
    """Convolutional classifier of the five factors of a scene.

    It stands outside the model under study: trained on rendered scenes only, never on generated images. The last
    feature map keeps its 4 x 4 places, because the position is one of the factors. The values of all factors are in
    the order of `causalunet.scenes.FACTORS`.

    Examples
    --------
    >>> reader = FactorReader()
    >>> read = reader.probabilities(torch.zeros(2, 3, 32, 32))
    >>> {factor: tuple(p.shape) for factor, p in read.items()}
    {'texture': (2, 3), 'colour': (2, 6), 'shape': (2, 4), 'position': (2, 5),
     'background': (2, 3)}
    """

    def __init__(self) -> None:
        super().__init__()
        # No norm behind the first convolution: it would take away the tone that tells dark from light.
        self.features = nn.Sequential(
            nn.Conv2d(3, _CHANNELS[0], 3, padding=1),
            nn.SiLU(),
            *(layer for sizes in pairwise(_CHANNELS) for layer in _halve(*sizes)),
            nn.Flatten(),
            nn.Linear(_CHANNELS[-1] * (IMAGE_SIZE // 8) ** 2, _HIDDEN),
            nn.SiLU(),
        )
        self.head = nn.Linear(_HIDDEN, sum(len(values) for values in FACTORS.values()))

    @classmethod
    def from_file(cls, path: Path) -> FactorReader:
        """Load a reader, ready to read: float32, evaluation mode, parameters without gradient.

        Parameters
        ----------
        path : Path
            Weights under the reader's own names, in any floating precision.

        Raises
        ------
        CheckpointError
            The file is missing or not whole, or its names or shapes are not those of the reader.
        """
        reader = cls()
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
        parts = logits.split([len(values) for values in FACTORS.values()], dim=1)
        return dict(zip(FACTORS, parts, strict=True))

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
            Index of the value in `causalunet.scenes.FACTORS`.
        """
        codes = [logits.argmax(dim=1) for logits in self(images).values()]
        return torch.stack(codes, dim=1).cpu().numpy()


@lru_cache(maxsize=1)
def load_reader() -> FactorReader:
    """Load the reader that ships with the package; every call returns the same one.

    Raises
    ------
    CheckpointError
        The file is missing, not whole, or of another layout.
    """
    with as_file(files("causalunet") / "weights" / "reader.safetensors") as path:
        return FactorReader.from_file(path)
