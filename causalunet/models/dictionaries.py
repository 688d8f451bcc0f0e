"""Dictionaries of features, as several packages write them."""

from __future__ import annotations

from pathlib import Path

from causalunet.design.fills import SparseAutoencoder
from causalunet.errors import CheckpointError
from causalunet.models.checkpoints import read_weights
from causalunet.paths import given_path

__all__ = ["load_sparse_autoencoder"]

_NAMES = {
    "W_enc": ("W_enc", "encoder.weight"),
    "b_enc": ("b_enc", "encoder.bias", "latent_bias"),
    "W_dec": ("W_dec", "decoder.weight"),
    "b_dec": ("b_dec", "decoder.bias", "pre_bias", "bias"),
}
"""What files call the four arrays; layers of torch have their weights the other way round."""


def load_sparse_autoencoder(path: str | Path, *, k: int | None = None, centred: bool = True) -> SparseAutoencoder:
    """Read a sparse autoencoder from a file of tensors, for `causalunet.Feature`.

    Parameters
    ----------
    path : path
        Of safetensors, or of PyTorch with tensors only: ``W_enc``, ``b_enc``, ``W_dec``, ``b_dec``, or
        ``encoder.weight``, ``encoder.bias``, ``decoder.weight``, ``decoder.bias`` (or ``pre_bias``) as of layers of
        torch, whose weights are turned.
    k : int, optional
        Only the k largest latents of a place are active; by default all above 0.
    centred : bool
        Whether the decoder's bias is taken off before encoding.

    Raises
    ------
    CheckpointError
        It is no such file, or lacks an array.
    SpecError
        The arrays do not go together.
    """
    path = given_path(path)
    state, found = read_weights(path), []
    for wanted, names in _NAMES.items():
        name = next((one for one in names if one in state), None)
        if name is None:
            raise CheckpointError(
                f"{path} has no {wanted}, under none of the names {', '.join(names)}; it has "
                f"{', '.join(sorted(state)[:12]) or 'nothing'}."
            )
        array = state[name].float().numpy()
        found.append(array.T if name.endswith(".weight") else array)
    return SparseAutoencoder(*found, k=k, centred=centred)
