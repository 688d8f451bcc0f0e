"""Fills that act on a feature of a dictionary that was learned of a place: a latent of a sparse autoencoder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls, hold
from causalunet.design.donors import FillContext
from causalunet.design.fills.base import Fill, exact, finite
from causalunet.design.fills.known import Known
from causalunet.design.limits import MOST_SIZE, checked_integer, shown
from causalunet.design.views.base import Axes
from causalunet.dims import CHANNEL
from causalunet.errors import ComponentError, SpecError

__all__ = ["Feature", "SparseAutoencoder"]

_AT_ONCE = 4096
"""Places whose latents are made together, where all of them are needed."""


class SparseAutoencoder:
    """A dictionary of features: ``latents = act((x - b_dec) W_enc + b_enc)``, ``x ~ latents W_dec + b_dec``.

    Parameters
    ----------
    W_enc : ndarray, (channel, latent)
    b_enc : ndarray, (latent,)
    W_dec : ndarray, (latent, channel)
    b_dec : ndarray, (channel,)
    k : int, optional
        Only the k largest latents of a place are active (Gao et al. 2024); by default all above 0 (ReLU).
    centred : bool
        Whether ``b_dec`` is taken off before encoding. A file does not say it: look at the code that trained it.

    Attributes
    ----------
    digest : str
        Of all of these.
    """

    def __init__(
        self, W_enc: Any, b_enc: Any, W_dec: Any, b_dec: Any, *, k: int | None = None, centred: bool = True
    ) -> None:
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (_numbers(one) for one in (W_enc, b_enc, W_dec, b_dec))
        latents, channels = self.b_enc.size, self.b_dec.size
        expected = ((channels, latents), (latents,), (latents, channels), (channels,))
        found = tuple(one.shape for one in (self.W_enc, self.b_enc, self.W_dec, self.b_dec))
        if found != expected or not latents * channels:
            raise SpecError(
                f"SparseAutoencoder got W_enc, b_enc, W_dec and b_dec of the shapes {', '.join(map(str, found))}; of n "
                "channels and m latents they are (n, m), (m,), (m, n) and (n,)."
            )
        self.k = None if k is None else checked_integer("SparseAutoencoder", "k", k, least=1, most=latents)
        if not isinstance(centred, bool):
            raise SpecError(f"SparseAutoencoder got centred={shown(centred)}; it is True or False.")
        self.centred = centred
        said = hashlib.sha256(f"{channels} {latents} {self.k} {centred}".encode())
        for one in (self.W_enc, self.b_enc, self.W_dec, self.b_dec):
            said.update(np.ascontiguousarray(one, "<f4").tobytes())
        self.digest = said.hexdigest()[:16]

    @property
    def channels(self) -> int:
        """Of the place that it was learned of."""
        return int(self.b_dec.size)

    @property
    def latents(self) -> int:
        """Number of features."""
        return int(self.b_enc.size)

    def active(self, value: Any, index: int) -> Any:
        """How active a feature is at each place.

        Parameters
        ----------
        value : Tensor, (..., channel)
        index : int

        Returns
        -------
        Tensor, (...)
        """
        bias = value.new_tensor(self.b_dec)
        given = value - bias if self.centred else value
        if self.k is None:
            of_one = given @ value.new_tensor(self.W_enc[:, index]) + float(self.b_enc[index])
            return of_one.clamp_min(0)
        encoder, shift = value.new_tensor(self.W_enc), value.new_tensor(self.b_enc)
        places = given.reshape(-1, self.channels)
        found = places.new_empty(len(places))
        for at in range(0, len(places), _AT_ONCE):
            every = places[at : at + _AT_ONCE] @ encoder + shift
            least = every.topk(self.k, dim=-1).values[:, -1]
            found[at : at + _AT_ONCE] = (every[:, index] * (every[:, index] >= least)).clamp_min(0)
        return found.reshape(value.shape[:-1])


_DICTIONARIES: Known[SparseAutoencoder] = Known(
    "Feature",
    "The dictionary {digest} is not here: a study has its digest alone. Load it again and make a Feature of it before "
    "the study is planned, and keep that.",
)


@clear_calls
@dataclass(frozen=True, slots=True)
class Feature(Fill):
    """The value with one feature of a dictionary set, or scaled, at every place; all else stays, its error too.

    What the dictionary cannot say of a value is kept: put in place is ``x + (new - active) d``, with the feature's
    direction d (Marks et al. 2024, who keep the error as a term of its own). Of ``scale=1`` nothing changes.

    Parameters
    ----------
    dictionary : SparseAutoencoder
        Of as many channels as the place has; `causalunet.models.load_sparse_autoencoder` reads one.
    index : int
        Of the feature, from 0.
    value : float, optional
        What it is set to at every place.
    scale : float, optional
        What it is multiplied with, where it is active; 0 takes it away.
    digest : str
        Of a dictionary that is not given here, as JSON has it.

    Notes
    -----
    A study holds the digest. Read back from a store it can be run or gone on with only where the dictionary was loaded
    again before.
    """

    name: ClassVar[str] = "feature"
    dims: ClassVar[tuple[str, ...]] = (CHANNEL,)
    digest: str
    index: int
    value: float | None
    scale: float | None
    dictionary: SparseAutoencoder | None = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        dictionary: SparseAutoencoder | None = None,
        index: int = 0,
        *,
        value: float | None = None,
        scale: float | None = None,
        digest: str | None = None,
    ) -> None:
        if (dictionary is None) == (digest is None):
            raise SpecError("Feature takes a dictionary, or the digest of one; give the dictionary.")
        if (value is None) == (scale is None):
            raise SpecError("Feature takes a value or a scale; give one of them.")
        if dictionary is None:
            made = _DICTIONARIES.find(digest)
        else:
            if not isinstance(dictionary, SparseAutoencoder):
                raise SpecError(
                    f"Feature got dictionary={shown(dictionary)}; give a SparseAutoencoder, such as "
                    "causalunet.models.load_sparse_autoencoder(path)."
                )
            made = _DICTIONARIES.keep(dictionary)
            digest = made.digest
        most = MOST_SIZE if made is None else made.latents - 1
        hold(
            self,
            digest=digest,
            index=checked_integer("Feature", "index", index, most=most),
            value=None if value is None else finite("Feature", "value", value),
            scale=None if scale is None else finite("Feature", "scale", scale),
            dictionary=made,
        )

    def __post_init__(self) -> None:
        """Nothing is left to check."""

    def check(self, axes: Axes, owner: str) -> None:
        """The dictionary is here, and of as many channels as the value has; a view may show so many of more."""
        super(Feature, self).check(axes, owner)
        dictionary = _DICTIONARIES.need(self.dictionary, self.digest)
        if axes.size(CHANNEL) < dictionary.channels:
            raise ComponentError(
                f"Feature has a dictionary of {dictionary.channels} channels, and {owner} has {axes.size(CHANNEL)}."
            )

    def put(self, value: Any, context: FillContext) -> Any:
        """The value with the feature changed."""
        dictionary, axis = _DICTIONARIES.need(self.dictionary, self.digest), context.dims.index(CHANNEL)
        if value.shape[axis] != dictionary.channels:
            raise SpecError(
                f"Feature has a dictionary of {dictionary.channels} channels, and what it is put in place of has "
                f"{value.shape[axis]}: view so many of them."
            )
        precise = exact(value).movedim(axis, -1)
        active = dictionary.active(precise, self.index)
        change = active * (self.scale - 1) if self.scale is not None else self.value - active
        changed = precise + change[..., None] * precise.new_tensor(dictionary.W_dec[self.index])
        return changed.movedim(-1, axis).to(value.dtype).contiguous()

    def to_json(self) -> dict[str, Any]:
        """Write the digest, and what is not None."""
        given = {"digest": self.digest, "index": self.index, "value": self.value, "scale": self.scale}
        return {"name": self.name, "configuration": {key: one for key, one in given.items() if one is not None}}


def _numbers(value: Any) -> NDArray[np.float32]:
    try:
        found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        found = np.full((), np.nan, np.float32)
    if not np.isfinite(found).all():
        raise SpecError(f"SparseAutoencoder got {shown(value)}; give arrays of finite numbers.")
    return found
