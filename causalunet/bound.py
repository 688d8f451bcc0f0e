"""A study on a model: the one value that planning and running depend on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from causalunet.design.anatomy import Anatomy
from causalunet.design.interventions import Intervention
from causalunet.design.study import StudySpec
from causalunet.design.words import TokensOfWords, tokens_of
from causalunet.identity import identity_of, telling_prompts
from causalunet.prediction import training_of
from causalunet.schedule import Schedule

__all__ = ["BoundStudy", "bind", "placed"]


@dataclass(frozen=True)
class BoundStudy:
    """A study, and what it depends on of the model that it is to run on; made by `bind`.

    Attributes
    ----------
    spec : StudySpec
    anatomy : Anatomy
        Of the model's U-Net.
    schedule : Schedule
        Of the study's sampler on the model's noise schedule.
    image_shape : tuple of int
        (channel, y, x) of x_t.
    model : DiffusionModel, optional
        Plans are laid out without it.
    tokens : mapping, optional
        Of the words that interventions and records name tokens by, in each prompt.
    """

    spec: StudySpec
    anatomy: Anatomy
    schedule: Schedule
    image_shape: tuple[int, int, int]
    model: Any = field(default=None, repr=False, compare=False)
    tokens: TokensOfWords = field(default_factory=dict, repr=False)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of what the model decodes x_0 to: that of x_t, unless it says another."""
        channels, height, width = getattr(self.model, "picture_shape", self.image_shape)
        return channels, height, width

    @property
    def decodes(self) -> bool:
        """Whether images are decoded from latents, and so of another shape than states."""
        return self.picture_shape != self.image_shape

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes the images, part by part, see ``causalunet.identity.identity_of``; what a store is compared by."""
        sampler = self.spec.sampler
        prompts = telling_prompts(self.spec.encoded_prompts, guided=sampler.rows_per_sample > 1)
        return identity_of(self.model, sampler, prompts)


def placed(spec: StudySpec, anatomy: Anatomy) -> tuple[Intervention, ...]:
    """Interventions of a study with the places of a model; the study's own tuple where all have theirs.

    Parameters
    ----------
    spec : StudySpec
    anatomy : Anatomy
    """
    items = tuple(item.placed(anatomy) for item in spec.interventions)
    same = all(one is other for one, other in zip(items, spec.interventions, strict=True))
    return spec.interventions if same else items


def bind(spec: StudySpec, model: Any) -> BoundStudy:
    """Bring a study and a model together; nothing of the model is run but its tokenizer, if words name tokens.

    Parameters
    ----------
    spec : StudySpec
    model : DiffusionModel

    Raises
    ------
    SpecError, ModelError
        There are more steps than timesteps, two at one, or the noise schedule does not fall; or words name no tokens.
    PromptError
        A prompt lacks a word by which tokens are named.
    """
    schedule = spec.sampler.schedule(training_of(model))
    prompts = [sample.prompt for sample in spec.samples]
    items = placed(spec, model.anatomy)
    # A kind of somebody's own may take long to say its edits: where they are known they are not asked for again.
    edits = spec.edits if items is spec.interventions else tuple(item.edits() for item in items)
    asked = [*zip(items, edits, strict=True), *((part, (part,)) for part in spec.record.parts)]
    tokens = tokens_of(asked, model.anatomy, prompts, model)
    return BoundStudy(spec, model.anatomy, schedule, model.image_shape, model, tokens)
