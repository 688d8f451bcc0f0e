"""What studies cannot honour in a pipeline is told by name, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

import causalunet as cu
from causalunet.errors import CausalUNetWarning, ModelError
from tests.models.pipelines.tiny import PROMPTS, ddim, pixels, stable_diffusion

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own


def with_scheduler(scheduler: Any) -> Any:
    pipe = pixels()
    pipe.scheduler = scheduler
    return pipe


def without(part: str) -> Any:
    pipe = stable_diffusion()
    setattr(pipe, part, None)
    return pipe


def changed(change: Callable[[Any], Any]) -> Any:
    pipe = stable_diffusion()
    change(pipe)
    return pipe


def compiled(pipe: Any) -> None:
    pipe.register_modules(unet=torch.compile(pipe.unet))


def parallel(pipe: Any) -> None:
    pipe.register_modules(unet=nn.DataParallel(pipe.unet))


def checked(pipe: Any) -> None:
    pipe.safety_checker = nn.Linear(1, 1)


def half_a_block(pipe: Any) -> None:
    pipe.unet.mid_block.half()


def half_a_pipeline(pipe: Any) -> None:
    pipe.unet.half()


def filtered(pipe: Any) -> None:
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)


def on_meta(pipe: Any) -> None:
    pipe.unet.to("meta")


def adapted(pipe: Any) -> None:
    pipe.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")


def told_guidance(pipe: Any) -> None:
    pipe.unet.register_to_config(time_cond_proj_dim=8)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no pipeline": (lambda: "stable diffusion", "is no pipeline that is known; known are DDIMPipeline, DDPMPipeline"),
    "another pipeline": (
        lambda: diffusers.ScoreSdeVePipeline(pixels().unet, diffusers.ScoreSdeVeScheduler()),
        "ScoreSdeVePipeline is no pipeline that is known",
    ),
    "another scheduler": (
        lambda: with_scheduler(diffusers.ScoreSdeVeScheduler()),
        "The scheduler ScoreSdeVeScheduler is not known; known: DDIMScheduler",
    ),
    "thresholding": (
        lambda: stable_diffusion(diffusers.UniPCMultistepScheduler(thresholding=True)),
        "The UniPCMultistepScheduler has thresholding=True; estimates are thresholded as by DDIMScheduler and DDPM",
    ),
    "clipping elsewhere": (
        lambda: with_scheduler(diffusers.DDIMScheduler(clip_sample_range=2.0)),
        "clips to clip_sample_range=2.0",
    ),
    "no decoder": (lambda: without("vae"), "has no vae; load it with all its parts"),
    "a safety checker": (lambda: changed(checked), "safety checker .* is active"),
    "an IP adapter": (lambda: changed(adapted), "IP adapter is active"),
    "an embedded guidance": (lambda: changed(told_guidance), "told the scale at every call"),
    "filtered skip connections": (lambda: changed(filtered), "FreeU is on"),
    "a compiled network": (lambda: changed(compiled), "is compiled"),
    "copies": (lambda: changed(parallel), "is in a DataParallel"),
    "two precisions": (lambda: changed(half_a_block), "of several precisions, float16 and float32"),
    "parts of two precisions": (
        lambda: changed(half_a_pipeline),
        "text_encoder in float32 and unet in float16; bring them to one, as",
    ),
    "no weights": (lambda: changed(on_meta), "Weights of unet .* are on the meta device"),
    "another block": (
        lambda: pixels(
            block_out_channels=(32, 32),
            down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        ),
        "is a SkipDownBlock2D",
    ),
    "an image beside x_t": (lambda: stable_diffusion(in_channels=9), "takes 9 channels and puts out 4"),
}


@pytest.mark.sampled(11)
@pytest.mark.parametrize("name", REFUSED)
def test_a_pipeline_that_studies_cannot_honour_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ModelError, match=said):
        cu.from_pipeline(make())


@pytest.mark.parametrize(
    ("size", "said"),
    [(15, "a latent stands for 2 x 2 pixels; give multiples of 2"), (0, "give pixels"), ((16, 16, 3), "give pixels")],
)
def test_an_image_size_that_cannot_be_done_is_told(size: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        cu.from_pipeline(stable_diffusion(), image_size=size)


def test_an_image_size_can_be_given() -> None:
    model = cu.from_pipeline(stable_diffusion(), image_size=(24, 16))
    assert (model.image_shape, model.picture_shape) == ((4, 12, 8), (3, 24, 16))
    assert model.decode(torch.zeros(5, *model.image_shape)).shape == (5, 3, 24, 16)


def test_a_scheduler_that_goes_elsewhere_than_it_asks_is_told() -> None:
    model = cu.from_pipeline(stable_diffusion(ddim(timestep_spacing="trailing")))
    assert model.sampler(5).steps == 5
    with pytest.raises(ModelError, match="goes from timestep 999 to the noise of 833, and asks the network at 832"):
        model.sampler(6)
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", use_karras_sigmas=True)
    rounding = cu.from_pipeline(stable_diffusion(scheduler))
    with pytest.raises(ModelError, match="it rounds them"):
        rounding.sampler(7)


def test_a_prompt_that_is_cut_is_told() -> None:
    model = cu.from_pipeline(stable_diffusion())
    most = model.conditions.pipe.tokenizer.model_max_length  # type: ignore[attr-defined]
    with pytest.warns(CausalUNetWarning, match=f"1 of 2 prompts have more tokens than the {most}"):
        model.check_prompts([PROMPTS[0], "red " * (most + 1)])


@pytest.mark.thorough
def test_what_changes_images_is_in_the_fingerprint() -> None:
    def told(change: Callable[[Any], Any] = lambda pipe: None, scheduler: Any = None) -> str:
        pipe = stable_diffusion(scheduler)
        with torch.no_grad():
            change(pipe)
        return cu.from_pipeline(pipe).fingerprint

    def moved(part: str) -> Callable[[Any], Any]:
        return lambda pipe: next(getattr(pipe, part).parameters()).add_(1)

    def scaled(pipe: Any) -> None:
        pipe.vae.register_to_config(scaling_factor=0.5)

    def adapted_by(pipe: Any) -> None:
        pipe.unet.conv_in.scaling = {"style": 0.5}  # as layers of peft have it

    others = [told(moved(part)) for part in ("unet", "vae", "text_encoder")]
    others += [told(adapted_by)]
    others += [told(scaled), told(scheduler=ddim(beta_end=0.02)), told(scheduler=ddim(prediction_type="v_prediction"))]
    assert told() == told()
    assert len({told(), *others}) == 1 + len(others)


def test_a_pipeline_is_loaded_by_the_folder_it_lies_in(tmp_path: Path) -> None:
    pipe = stable_diffusion()
    pipe.save_pretrained(tmp_path / "pipeline")
    model, own = cu.load_model(str(tmp_path / "pipeline")), cu.from_pipeline(pipe)
    assert model.identity["networks"] == own.identity["networks"]  # type: ignore[attr-defined]
    x = torch.zeros(1, *own.image_shape)
    np.testing.assert_array_equal(model.decode(x), own.decode(x))
    with pytest.raises(ModelError, match=re.escape("dtype='int8' is not known")):
        cu.load_model(str(tmp_path / "pipeline"), dtype="int8")


def test_a_pipeline_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"could not be loaded .* does it have a model_index\.json"):
        cu.load_model(str(tmp_path / "none"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "model_index.json").write_text('{"_class_name": ["pipeline", "OwnPipeline"]}')
    (tmp_path / "code" / "pipeline.py").write_text("raise SystemExit('code of a stranger ran')")
    with pytest.raises(ModelError, match="could not be loaded"):
        cu.load_model(str(tmp_path / "code"))


def gated() -> Exception:
    from huggingface_hub.errors import GatedRepoError

    return GatedRepoError("403", response=mock.MagicMock())


def offline() -> Exception:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return OfflineModeIsEnabled("HF_HUB_OFFLINE=1")


def not_cached() -> Exception:
    from huggingface_hub.errors import LocalEntryNotFoundError

    return LocalEntryNotFoundError("not in the cache")


NOT_REACHED: dict[str, tuple[Callable[[], Exception], str]] = {
    "gated": (gated, "is gated: only those can download it who accepted its licence. Accept it on {page}, log in with"),
    "offline mode": (offline, "is not in the cache of this machine, and offline mode is on (HF_HUB_OFFLINE)"),
    "not in the cache": (not_cached, "is not in the cache of this machine, and the hub cannot be reached"),
    "no network": (lambda: ConnectionError("no route"), "is not in the cache of this machine, and the hub cannot be"),
}


@pytest.mark.parametrize("name", NOT_REACHED)
def test_a_hub_that_gives_nothing_is_told_with_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever diffusers makes of what the hub's library raised."""
    raised, said = NOT_REACHED[name]
    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", mock.Mock(side_effect=raised()))
    with pytest.raises(ModelError) as told:
        cu.load_model("stabilityai/some-model")
    page = "https://huggingface.co/stabilityai/some-model"
    for part in (said.format(page=page), page, "`hf auth login`", "(HF_HOME)", "`hf download stabilityai/some-model`"):
        assert part in str(told.value)


def test_a_pipeline_of_the_hub_that_is_not_known_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = diffusers.DiffusionPipeline
    monkeypatch.setattr(kind, "load_config", lambda name: {"_class_name": "WuerstchenPipeline"})
    monkeypatch.setattr(kind, "from_pretrained", mock.Mock(side_effect=AssertionError("weights were read")))
    said = "is a WuerstchenPipeline, which is no pipeline that is known; known are .*StableDiffusionPipeline"
    with pytest.raises(ModelError, match=said):
        cu.load_model("warp-ai/wuerstchen")


def test_a_decoder_may_be_of_another_precision() -> None:
    """As where half precision is too little for it."""
    pipe = stable_diffusion().to(torch.bfloat16)
    pipe.vae.to(torch.float32)
    model = cu.from_pipeline(pipe)
    x = torch.zeros(1, *model.image_shape)
    with torch.inference_mode():
        assert model.unet(x, torch.ones(1), *model.encode(["a red circle"])).isfinite().all()
    assert model.decode(x).dtype == np.float32


def test_weights_that_may_hold_code_are_not_read(tmp_path: Path) -> None:
    pixels().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(ModelError, match="could not be loaded"):
        cu.load_model(str(tmp_path / "pickled"))
