"""Fills that take values from other runs of the study: means over them, and another sample's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from causalunet.calls import clear_calls
from causalunet.design.donors import Donor, FillContext, OfAnother, OfMean
from causalunet.design.fills.base import Fill
from causalunet.design.named import without_none, write_named

__all__ = ["Mean", "Resample"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Mean(Fill):
    """The mean of the place over runs without intervention, at the same step: mean ablation.

    No run is a sample's own. The k-th of them, k = 0 ... n - 1, begins with noise of a seed that is made of ``seed``
    and k; ``causalunet.design.donor_runs(fill, study)`` lists prompts and seeds. They are made once for all
    interventions of a study that ask for the same, and stand beside each sample: n further runs, down to the last step
    of a window. What is kept of them is a sum, of the size of one value.

    Of a step of several U-Net calls it is the first call's, and it is put in place in all of them.

    Parameters
    ----------
    n : int
        Number of runs.
    seed : int
        Another one takes other runs.
    prompts : {"same"}, optional
        Runs of each sample's own prompt: what is left out is what the noise of the sample decides. By default the k-th
        run is of the k-th prompt of the study, in an order that depends on the seed and on the words alone, and after
        the last of the first again, so that all samples get the same numbers: what is left out is all that is peculiar
        to the sample.
    """

    name: ClassVar[str] = "mean"
    severs: ClassVar[bool] = True
    n: int = 8
    seed: int = 0
    prompts: Literal["same"] | None = None

    def __post_init__(self) -> None:
        donor = OfMean(self.n, self.seed, self.prompts)
        object.__setattr__(self, "n", donor.n)
        object.__setattr__(self, "seed", donor.seed)

    @property
    def donors(self) -> tuple[Donor, ...]:
        """The mean over those runs."""
        return (OfMean(self.n, self.seed, self.prompts),)

    def put(self, value: Any, context: FillContext) -> Any:
        """A copy of the mean."""
        return context.donors[0].clone()

    def to_json(self) -> dict[str, Any]:
        """Write as other fills; without ``prompts`` where they are the study's."""
        return without_none(write_named(self))


@clear_calls
@dataclass(frozen=True, slots=True)
class Resample(Fill):
    """The value of the place in another sample's run without intervention, at the same step: resample ablation.

    The seed puts the samples of the study into an order that depends on nothing but what each of them is; a sample gets
    the value of the next, and the last that of the first. So every sample has another donor, none its own, and neither
    batches nor resuming play a part; ``causalunet.design.donor_runs(fill, study)`` lists them. The donor may have
    the same prompt, where a prompt has several seeds. Its run stands beside the sample and is made once for all
    interventions of a study that ask for it: one further run, down to the last step of a window.

    Of a step of several U-Net calls it is the first call's, and it is put in place in all of them.

    Parameters
    ----------
    seed : int
        Of the order.
    """

    name: ClassVar[str] = "resample"
    severs: ClassVar[bool] = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", OfAnother(self.seed).seed)

    @property
    def donors(self) -> tuple[Donor, ...]:
        """The value in that run."""
        return (OfAnother(self.seed),)

    def put(self, value: Any, context: FillContext) -> Any:
        """A copy of the value in that run."""
        return context.donors[0].clone()
