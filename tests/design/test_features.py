"""Features of a dictionary, set and scaled, against a sparse autoencoder in NumPy that keeps its error."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

import causalunet as cu
from causalunet.design import Fill, FillContext
from causalunet.errors import CheckpointError, ComponentError, SpecError
from causalunet.execute.walk.generate import generate
from causalunet.models import load_sparse_autoencoder
from causalunet.models.text_to_image import TextToImage
from causalunet.testing import check_fill
from tests.execute.test_donors import PROMPTS, STEPS

CHANNELS, LATENTS = 6, 20


def autoencoder(seed: int = 0, channels: int = CHANNELS, **options: object) -> cu.SparseAutoencoder:
    rng = np.random.default_rng(seed)
    shapes = (channels, LATENTS), (LATENTS,), (LATENTS, channels), (channels,)
    return cu.SparseAutoencoder(*(rng.standard_normal(shape) for shape in shapes), **options)  # type: ignore[arg-type]


def by_hand(sae: cu.SparseAutoencoder, x: NDArray, index: int, *, value: float | None, scale: float | None) -> NDArray:
    """Whole: encode, change a latent, decode, add what the dictionary had not said; x is (place, channel)."""
    x = x.astype(np.float64)
    before = (x - sae.b_dec if sae.centred else x) @ sae.W_enc.astype(np.float64) + sae.b_enc
    latents = np.maximum(before, 0)
    if sae.k is not None:
        least = np.sort(before, axis=1)[:, -sae.k, None]
        latents = np.where(before >= least, latents, 0)
    error = x - (latents @ sae.W_dec + sae.b_dec)
    latents[:, index] = value if scale is None else scale * latents[:, index]
    return latents @ sae.W_dec + sae.b_dec + error


@given(
    seed=st.integers(0, 99),
    index=st.integers(0, LATENTS - 1),
    k=st.none() | st.integers(1, LATENTS),
    centred=st.booleans(),
    number=st.floats(-3, 3),
    scaled=st.booleans(),
)
def test_it_is_the_autoencoder_with_its_error_kept(
    seed: int, index: int, k: int | None, centred: bool, number: float, scaled: bool
) -> None:
    sae = autoencoder(seed, k=k, centred=centred)
    given_as = {"value": None if scaled else number, "scale": number if scaled else None}
    x = np.random.default_rng(seed).standard_normal((2, CHANNELS, 3, 4)).astype(np.float32)
    now = torch.zeros(2)
    found = cu.Feature(sae, index, **given_as).put(torch.from_numpy(x), FillContext(3, now, now)).numpy()
    places = np.moveaxis(x, 1, -1).reshape(-1, CHANNELS)
    expected = by_hand(sae, places, index, **given_as).reshape(2, 3, 4, CHANNELS)
    np.testing.assert_allclose(found, np.moveaxis(expected, -1, 1), rtol=1e-4, atol=1e-4)


def test_of_scale_one_nothing_changes_and_rows_are_not_mixed() -> None:
    sae = autoencoder()
    value, now = torch.randn(3, 5, CHANNELS, generator=torch.Generator().manual_seed(0)), torch.zeros(3)
    context = FillContext(3, now, now, dims=("row", "token", "channel"))
    assert torch.equal(cu.Feature(sae, 4, scale=1.0).put(value, context), value)
    values = [torch.randn(3, CHANNELS, 4, 4), torch.randn(2, CHANNELS, 2, 3).half()]
    for fill in (cu.Feature(sae, 4, value=2.0), cu.Feature(autoencoder(k=3), 4, scale=0.0)):
        check_fill(fill, values=values)


def test_files_of_several_packages_are_read(tmp_path: Path) -> None:
    sae = autoencoder()
    save_file({name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}, tmp_path / "own.safetensors")
    layers = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.T}
    arrays = {name: np.ascontiguousarray(one) for name, one in {**layers, "pre_bias": sae.b_dec}.items()}
    save_file(arrays, tmp_path / "layers.safetensors")
    for name in ("own", "layers"):
        read = load_sparse_autoencoder(tmp_path / f"{name}.safetensors")
        assert read.digest == sae.digest
        assert cu.Feature(read, 2, scale=0.0) == cu.Feature(sae, 2, scale=0.0)
    assert len({one.digest for one in (sae, autoencoder(1), autoencoder(k=3), autoencoder(centred=False))}) == 4
    save_file({"W_enc": sae.W_enc}, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"has no b_enc, under none of the names b_enc, .*it has W_enc"):
        load_sparse_autoencoder(tmp_path / "half.safetensors")
    (tmp_path / "notes.safetensors").write_text("none")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_sparse_autoencoder(tmp_path / "notes.safetensors")


def test_a_study_holds_the_digest_and_finds_the_dictionary_while_it_is_here() -> None:
    fill = cu.Feature(autoencoder(7), 3, value=1.5)
    again = Fill.from_json(json.loads(json.dumps(fill.to_json())))
    assert again == fill
    assert again.to_json() == fill.to_json()
    assert hash(again) == hash(fill)
    document = fill.to_json()
    del fill, again
    gc.collect()
    alone, now = Fill.from_json(document), torch.zeros(1)
    with pytest.raises(SpecError, match=r"is not here: a study has its digest alone\. Load it"):
        alone.put(torch.zeros(1, CHANNELS, 2, 2), FillContext(3, now, now))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda sae: cu.Feature(sae, 20, value=1.0), "index=20; give an integer of at least 0 and at most 19"),
        (lambda sae: cu.Feature(sae, 2), "takes a value or a scale"),
        (lambda sae: cu.Feature(sae, 2, value=1.0, scale=1.0), "takes a value or a scale"),
        (lambda sae: cu.Feature(sae, 2, value=float("nan")), "give a finite number"),
        (lambda sae: cu.Feature(None, 2, value=1.0), "give the dictionary"),
        (lambda sae: cu.Feature("sae.safetensors", 2, value=1.0), r"such as causalunet\.models\.load_sparse_autoenc"),
        (lambda sae: cu.Feature(digest="../x", value=1.0), "16 hexadecimal digits"),
        (lambda sae: autoencoder(k=21), "k=21; give an integer of at least 1 and at most 20"),
        (lambda sae: autoencoder(centred=1), "True or False"),
        (
            lambda sae: cu.SparseAutoencoder(sae.W_enc.T, sae.b_enc, sae.W_dec, sae.b_dec),
            r"of n channels and m latents they are \(n, m\)",
        ),
        (lambda sae: cu.SparseAutoencoder("x", sae.b_enc, sae.W_dec, sae.b_dec), "arrays of finite numbers"),
    ],
)
def test_what_is_given_wrongly_is_told(make: object, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make(autoencoder())  # type: ignore[operator]


def test_a_run_is_the_one_with_a_hook_in_the_network(tiny_model: TextToImage) -> None:
    width = tiny_model.anatomy.by_name["mid"].shape[0]
    sae, window = autoencoder(channels=width), cu.Window(5, 2)
    edit = cu.Edit("mid", window, cu.Feature(sae, 4, value=9.0))
    plain, found, none = (
        generate(PROMPTS[:1], model=tiny_model, sampler=cu.DDPM(steps=STEPS), intervention=one)
        for one in (None, edit, cu.Edit("mid", window, cu.Feature(sae, 4, scale=1.0)))
    )
    assert np.abs(found - plain).max() > 1e-3
    np.testing.assert_array_equal(none, plain)

    calls = []

    def by_hand_hook(_: object, given: object, output: torch.Tensor) -> torch.Tensor | None:
        calls.append(STEPS - len(calls))
        if calls[-1] not in (5, 4):
            return None
        places = output.movedim(1, -1)
        changed = by_hand(sae, places.reshape(-1, width).numpy(), 4, value=9.0, scale=None)
        return torch.from_numpy(changed).float().reshape(places.shape).movedim(-1, 1).contiguous()

    module = tiny_model.unet.get_submodule(tiny_model.anatomy.by_name["mid"].modules[-1])
    handle = module.register_forward_hook(by_hand_hook)
    try:
        hooked = generate(PROMPTS[:1], model=tiny_model, sampler=cu.DDPM(steps=STEPS))
    finally:
        handle.remove()
    assert calls == list(range(STEPS, 0, -1))
    np.testing.assert_allclose(found, hooked, rtol=0, atol=1e-4)
    with pytest.raises(ComponentError, match=rf"dictionary of {width + 1} channels, and .*mid.* has {width}"):
        tiny_model.anatomy.check(cu.Edit("mid", window, cu.Feature(autoencoder(channels=width + 1), 4, scale=0.0)))
