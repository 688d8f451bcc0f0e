"""Loading pipelines of diffusers by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from causalunet.design.limits import shown
from causalunet.errors import ModelError
from causalunet.models.devices import usable_device
from causalunet.models.pipelines.given import GivenImage
from causalunet.models.pipelines.model import PipelineModel
from causalunet.models.pipelines.reading import PIPELINES, from_pipeline

__all__ = ["load_pretrained"]

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_pretrained(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    image_size: int | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    null_class: int | None = None,
    told_guidance: float | None = None,
    given: GivenImage | None = None,
) -> PipelineModel:
    """Load a pipeline of diffusers from the model hub or a folder: safetensors only, and no code of its own.

    Parameters
    ----------
    name : str
        ``organisation/name`` on the hub, or the path of a folder with a ``model_index.json``.
    device : str
        Where it runs, such as ``cuda``.
    dtype : {"float32", "float16", "bfloat16"}
        Precision of the weights.
    revision : str, optional
        Branch, tag or commit on the hub.
    image_size, classes, null_class, told_guidance, given
        As for `causalunet.from_pipeline`.

    Raises
    ------
    ModelError
        diffusers is not installed; the pipeline cannot be had, has no weights as safetensors, or is not one that is
        known; the device is not there.
    """
    place = usable_device(device)
    if dtype not in _TYPES:
        raise ModelError(f"dtype={shown(dtype)} is not known; it is one of {', '.join(_TYPES)}.")
    pipe = _loaded(name, {"dtype": _TYPES[dtype], **({} if revision is None else {"revision": revision})})
    pipe.to(place)
    return from_pipeline(
        pipe,
        name=name,
        image_size=image_size,
        classes=classes,
        null_class=null_class,
        told_guidance=told_guidance,
        given=given,
    )


def _loaded(name: str, options: dict[str, Any]) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise ModelError(
            f"{name!r} names a pipeline of diffusers, which is not installed: pip install 'causalunet[diffusers]'."
        ) from error
    try:
        revision = {key: value for key, value in options.items() if key == "revision"}
        kind: Any = diffusers.DiffusionPipeline
        parts = kind.load_config(name, **revision)
        _check_known(name, parts.get("_class_name"))
        if "safety_checker" in parts:  # studies do not call it, and it is larger than many a network
            options |= {"safety_checker": None, "requires_safety_checker": False}
        return kind.from_pretrained(name, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())
        if told := _not_reached(name, error):
            raise ModelError(told) from error
        raise ModelError(
            f"The pipeline {name!r} could not be loaded ({type(error).__name__}): {reason:.300} If it is on the hub, "
            "is there a network, and does it ask for a login or for consent? If it is a folder, does it have a "
            "model_index.json and weights as safetensors?"
        ) from error


def _check_known(name: str, kind: Any) -> None:
    """Before weights are downloaded, which take gigabytes."""
    if isinstance(kind, str) and kind not in PIPELINES:
        raise ModelError(
            f"{name!r} is a {kind}, which is no pipeline that is known; known are {', '.join(PIPELINES)}. Its weights "
            "were not read. A network by itself enters by from_unet or an adapter of its own."
        )


def _not_reached(name: str, error: BaseException) -> str:
    """Say why the hub gave nothing, and what to do; nothing of other errors, or of a folder that lacks a file."""
    # diffusers says the same of all of these, that the name may be wrong; what was behind it is in the chain.
    kinds = {type(one).__name__ for one in _chain(error)}
    page = f"https://huggingface.co/{name}"
    offline = (
        "Without a network it is read from the cache (HF_HOME), once it was downloaded there with `hf download "
        f"{name}`; or give the folder of a copy, as './folder'."
    )
    if Path(name).is_dir():
        return ""
    if "GatedRepoError" in kinds:
        return (
            f"The pipeline {name!r} is gated: only those can download it who accepted its licence. Accept it on "
            f"{page}, log in with `hf auth login` or set HF_TOKEN, and load it again. {offline}"
        )
    if kinds & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "ConnectError", "ConnectTimeout"}:
        why = "offline mode is on (HF_HUB_OFFLINE)" if "OfflineModeIsEnabled" in kinds else "the hub cannot be reached"
        return (
            f"The pipeline {name!r} is not in the cache of this machine, and {why}. {offline} If it is gated, its "
            f"licence has to be accepted on {page} before, and `hf auth login` says who you are."
        )
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those behind it."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
