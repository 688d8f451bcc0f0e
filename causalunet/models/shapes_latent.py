"""The embedded model ``shapes-latent``: a U-Net in Stable Diffusion's layout, in the latents of an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from causalunet.models.base import register
from causalunet.models.devices import usable_device
from causalunet.models.factor_reader import load_reader
from causalunet.models.latent_diffusion import load_pipeline
from causalunet.models.pipelines import PipelineModel, from_pipeline
from causalunet.models.pipelines.conditions import Texts
from causalunet.models.vocabulary import tokenize
from causalunet.paths import given_path

__all__ = ["load_latent", "load_shapes_latent"]


@dataclass(frozen=True)
class _KnownWords(Texts):
    """Texts in words that the model knows; its tokenizer takes others for padding."""

    def check(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for prompts that the vocabulary does not cover."""
        tokenize(prompts)


def load_latent(folder: Path | None = None, device: str = "cpu") -> Any:
    """Read the pipeline: a ``diffusers.StableDiffusionPipeline``.

    Parameters
    ----------
    folder : Path, optional
        Of the pipeline; by default the one that ships with the package.
    device : str
        Where it runs, such as ``cuda``.

    Raises
    ------
    CheckpointError
        There is no pipeline in the folder.
    ModelError
        diffusers or transformers is not installed; the device is not there, or PyTorch cannot use it.
    """
    place = usable_device(device)
    if folder is not None:
        return load_pipeline(folder, place)
    with as_file(files("causalunet") / "weights" / "shapes-latent") as shipped:
        return load_pipeline(shipped, place)


@register("shapes-latent")
def load_shapes_latent(checkpoint: str | Path | None = None, device: str = "cpu") -> PipelineModel:
    """Load the embedded model of the world of ``shapes`` that denoises latents; it needs the extra ``diffusers``.

    Parameters
    ----------
    checkpoint : path, optional
        Folder of a pipeline that was trained on this world; by default the one that ships with the package.
    device : str
        Where the pipeline runs, such as ``cuda``.

    Raises
    ------
    CheckpointError
        There is no pipeline in the folder.
    ModelError
        diffusers or transformers is not installed; the device is not there, or PyTorch cannot use it.
    """
    pipe = load_latent(None if checkpoint is None else given_path(checkpoint), device)
    return replace(from_pipeline(pipe, name="shapes-latent"), conditions=_KnownWords(pipe), reader=load_reader())
