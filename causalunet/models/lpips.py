"""LPIPS: distance of two images as a network sees them, with weights from a local file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from causalunet.calls import clear_calls
from causalunet.design.limits import check_text, shown
from causalunet.design.outcomes import Better, Outcome, OutcomeContext
from causalunet.errors import MissingExtraError, SpecError
from causalunet.models.checkpoints import file_digest, load_weights, read_weights

__all__ = ["LPIPS", "LPIPSNetwork"]

LPIPSNetwork = Literal["alex", "squeeze", "vgg"]
"""Networks whose features LPIPS compares."""

_LEAST = {"alex": 31, "squeeze": 27, "vgg": 16}
"""Smallest side of an image that is left with a pixel in the last layer."""
_AT_ONCE = 64


@clear_calls
@dataclass(frozen=True, slots=True)
class LPIPS(Outcome):
    """Learned perceptual distance to the baseline image (Zhang et al. 2018), by the package ``lpips``.

    Needs the extra: ``pip install 'causalunet[lpips]'``. It runs on the CPU.

    Parameters
    ----------
    weights : str or Path
        File with all weights, those of the network and the linear layers, under the names of ``lpips.LPIPS``:
        ``torch.save(lpips.LPIPS(net="alex").state_dict(), path)`` writes one, once, where it may be downloaded.
    net : {"alex", "squeeze", "vgg"}
    sha256 : str
        Of the file; by default as it is now. It names the outcome in stores, wherever the file lies.

    Raises
    ------
    CheckpointError
        There is no such file, or it has another digest.
    """

    name: ClassVar[str] = "lpips"
    title: ClassVar[str] = "LPIPS"
    meaning: ClassVar[str] = "learned perceptual distance to the baseline image"
    definition: ClassVar[str] = (
        "Difference of normalised features in five layers of a network, weighted and averaged over places, version 0.1 "
        "of Zhang et al. 2018 (doi:10.1109/CVPR.2018.00068), on images in [-1, 1]."
    )
    better: ClassVar[Better | None] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    weights: str
    net: LPIPSNetwork = "alex"
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.net not in get_args(LPIPSNetwork):
            raise SpecError(f"LPIPS got net={shown(self.net)}; it has {', '.join(get_args(LPIPSNetwork))}.")
        if isinstance(self.weights, Path):
            object.__setattr__(self, "weights", str(self.weights))
        check_text("LPIPS", "weights", self.weights)
        check_text("LPIPS", "sha256", self.sha256)
        if not self.sha256:
            object.__setattr__(self, "sha256", file_digest(Path(self.weights)))

    def essence(self) -> dict[str, Any]:
        """Network and digest of its weights; not where they lie."""
        return {"name": self.name, "net": self.net, "sha256": self.sha256}

    def check(self, image_shape: tuple[int, ...], steps: int) -> None:
        """Raise `causalunet.SpecError` for images without three channels, or too small for the network."""
        channels, *sides = image_shape
        if channels != 3 or min(sides) < _LEAST[self.net]:
            raise SpecError(
                f"LPIPS with net={self.net!r} takes images of 3 channels and at least {_LEAST[self.net]} pixels; got "
                f"{image_shape} (channel, y, x)."
            )

    def measure(
        self, images: NDArray[np.float32], baseline: NDArray[np.float32], context: OutcomeContext
    ) -> NDArray[np.float64]:
        """LPIPS of each image.

        Raises
        ------
        MissingExtraError
            The package ``lpips`` is not installed.
        CheckpointError
            The file is not the one that was asked for, or holds other weights.
        """
        network = _network(self.weights, self.net, self.sha256)
        first, second = (
            torch.from_numpy(2 * value.reshape(-1, *value.shape[-3:]) - 1)
            for value in (images, np.broadcast_to(baseline, images.shape))
        )
        found = []
        with torch.inference_mode():
            for start in range(0, len(first), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                found.append(network(first[some], second[some]).flatten().double().numpy())
        return np.concatenate(found).reshape(images.shape[:2])


@lru_cache(maxsize=4)
def _network(weights: str, net: str, sha256: str) -> nn.Module:
    path = Path(weights)
    file_digest(path, sha256)
    try:
        import lpips
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"LPIPS needs {error.name}, which is not installed. Install the extra: pip install 'causalunet[lpips]'."
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision's, on an argument that lpips gives it
        network: nn.Module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    load_weights(network, read_weights(path), str(path))
    return network.eval().requires_grad_(False)
