"""Loading GLIDE: from good files, from bad ones, from hostile ones, and with or without its own package."""

from __future__ import annotations

import hashlib
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import causalunet as cu
from causalunet.errors import CheckpointError, MissingExtraError, PromptError
from causalunet.models import load_glide
from causalunet.models.byte_pairs import padded
from causalunet.models.checkpoints import fingerprint
from causalunet.models.glide import GLIDE_CONFIG
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.text_transformer import TextConfig
from causalunet.prompts import imagenet
from causalunet.schedule import cosine_alpha_bar

SMALL = UNetConfig(
    image_size=16,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
    head_channels=8,
    norm_groups=4,
    text=TextConfig(vocabulary=30, context=12, width=8, layers=1, heads=2),
)


class Letters:
    """An encoder with the interface of GLIDE's: one token per letter."""

    n_vocab = 30

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text.lower() if letter.isalpha()]


TOKENIZE = padded(Letters(), SMALL.text.context)


@pytest.fixture
def state() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = TextUNet(SMALL)
        return {name: torch.randn_like(value) * 0.2 for name, value in unet.state_dict().items()}


@pytest.fixture
def checkpoint(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, tmp_path / "base.pt")
    return tmp_path / "base.pt"


def load(path: Path, **options: Any) -> Any:
    return cu.load_model("glide", checkpoint=path, **{"tokenize": TOKENIZE, "config": SMALL, **options})


def write_zip(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path)


def write_legacy(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def write_safetensors(state: dict[str, Tensor], path: Path) -> None:
    save_file(state, path)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize(
    ("write", "name"),
    [(write_zip, "base.pt"), (write_legacy, "base.pt"), (write_safetensors, "base.safetensors")],
)
def test_weights_are_those_of_the_file(
    tmp_path: Path, state: dict[str, Tensor], write: Callable[..., None], name: str, half: bool
) -> None:
    stored = {key: value.half() if half else value for key, value in state.items()}
    write(stored, tmp_path / name)
    model = load(tmp_path / name)
    loaded = model.unet.state_dict()
    assert {key: value.dtype for key, value in loaded.items()} == dict.fromkeys(state, torch.float32)
    assert all(torch.equal(loaded[key], value.float()) for key, value in stored.items())
    assert not model.unet.training
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())
    assert (model.name, model.image_shape, model.clip) == ("glide", (3, 16, 16), True)
    np.testing.assert_array_equal(model.alpha_bar, cosine_alpha_bar())


def test_the_weights_do_not_hang_on_the_file(checkpoint: Path) -> None:
    model = load(checkpoint)
    before = fingerprint(model.unet)
    size = checkpoint.stat().st_size
    with checkpoint.open("r+b") as file:
        file.write(bytes(size))
    assert fingerprint(model.unet) == before


def test_the_digest_of_the_file_is_kept_and_checked(checkpoint: Path) -> None:
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert load(checkpoint).checkpoint_sha256 == digest
    assert load(checkpoint, sha256=digest.upper()).checkpoint_sha256 == digest
    with pytest.raises(CheckpointError, match=rf"its SHA-256 is {digest}, expected {'0' * 64}\. It was not read"):
        load(checkpoint, sha256="0" * 64)


def test_a_study_runs_on_it(checkpoint: Path, tmp_path: Path) -> None:
    study = cu.Study(
        name="small",
        model="glide",
        prompts=("tench", "goldfish"),
        sampler=cu.DDPM(steps=3),
        interventions=[cu.AblateBlock(2, cu.Window(2, 1))],
    )
    results = study.run(tmp_path / "results.zarr", model=load(checkpoint), progress=False)
    assert np.isfinite(results.outcomes.image.values).all()
    assert (results.outcomes.ssim.values[0] < 1).all()


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no weights file at .*absent\.pt"):
        load(tmp_path / "absent.pt")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_truncated_file(tmp_path: Path, state: dict[str, Tensor], write: Callable[..., None], share: float) -> None:
    write(state, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "part.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"part\.pt"):
        load(tmp_path / "part.pt")


def test_a_wrong_architecture_is_told_without_the_extra(checkpoint: Path) -> None:
    """A small file against the full size: refused by names and shapes, before 1.5 GB are taken."""
    with pytest.raises(CheckpointError, match="is not a checkpoint of this TextUNet") as caught:
        cu.load_model("glide", checkpoint=checkpoint)
    assert "names missing" in str(caught.value)


def test_other_shapes_are_named(checkpoint: Path, state: dict[str, Tensor]) -> None:
    state["time_embed.0.weight"] = torch.zeros(3, 4)
    torch.save(state, checkpoint)
    with pytest.raises(CheckpointError, match=r"time_embed\.0\.weight has shape \(3, 4\), expected \(32, 8\)"):
        load(checkpoint)


@pytest.mark.parametrize("odd", [torch.zeros(32, 8).to_sparse(), torch.zeros(32, 8, dtype=torch.long)])
def test_tensors_of_another_kind_are_refused(checkpoint: Path, state: dict[str, Tensor], odd: Tensor) -> None:
    torch.save({**state, "time_embed.0.weight": odd}, checkpoint)
    with pytest.raises(CheckpointError, match=r"'time_embed\.0\.weight', which is not a dense tensor"):
        load(checkpoint)


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def as_pickle(bomb: Bomb, path: Path) -> None:
    path.write_bytes(pickle.dumps(bomb))


def as_archive(bomb: Bomb, path: Path) -> None:
    torch.save(bomb, path)


def as_legacy(bomb: Bomb, path: Path) -> None:
    torch.save(bomb, path, _use_new_zipfile_serialization=False)


def among_weights(bomb: Bomb, path: Path) -> None:
    torch.save({"time_embed.0.weight": torch.zeros(32, 8), "time_embed.0.bias": bomb}, path)


def as_safetensors(bomb: Bomb, path: Path) -> None:
    path.with_suffix(".safetensors").write_bytes(pickle.dumps(bomb))


@pytest.mark.parametrize("plant", [as_pickle, as_archive, as_legacy, among_weights, as_safetensors])
def test_a_hostile_file_runs_nothing(tmp_path: Path, plant: Callable[[Bomb, Path], None]) -> None:
    marker = tmp_path / "marker"
    plant(Bomb(marker), tmp_path / "bomb.pt")
    (path,) = tmp_path.glob("bomb.*")
    with pytest.raises(CheckpointError, match=r"bomb\."):
        cu.load_model("glide", checkpoint=path)
    assert not marker.exists()


def test_the_bomb_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>not found</html>", bytes(1000)])
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "base.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"base\.pt"):
        cu.load_model("glide", checkpoint=tmp_path / "base.pt")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "base.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(CheckpointError, match=r"base\.pt cannot be read as weights"):
        cu.load_model("glide", checkpoint=tmp_path / "base.pt")


@pytest.fixture
def without_glide(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("glide_text2im")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "glide_text2im", None)


@pytest.mark.usefixtures("without_glide")
def test_without_checkpoint_and_package_both_ways_are_told() -> None:
    with pytest.raises(MissingExtraError) as caught:
        cu.load_model("glide")
    for part in ("glide_text2im", "checkpoint='path/to/base.pt'", "pip install 'causalunet[glide]'"):
        assert part in str(caught.value)


@pytest.mark.usefixtures("without_glide")
def test_without_tokenizer_the_extra_is_named(checkpoint: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"tokenizer needs glide_text2im.*causalunet\[glide\].*tokenize="):
        load_glide(checkpoint, config=SMALL)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """GLIDE's own package as far as it is used, written anew; what it is asked to fetch is the address itself."""
    asked: list[str] = []
    modules = {name: ModuleType(name) for name in ("glide_text2im", "glide_text2im.download")}
    modules["glide_text2im.download"].__dict__.update(
        MODEL_PATHS={}, fetch_file_cached=lambda url: asked.append(url) or url
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return asked


def test_the_package_downloads_and_we_read(checkpoint: Path, fetched: list[str]) -> None:
    sys.modules["glide_text2im.download"].__dict__["MODEL_PATHS"]["base"] = str(checkpoint)
    model = load_glide(tokenize=TOKENIZE, config=SMALL)
    assert fetched == [str(checkpoint)]
    assert model.checkpoint_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


@pytest.mark.usefixtures("fetched")
def test_a_failed_download(monkeypatch: pytest.MonkeyPatch) -> None:
    download = sys.modules["glide_text2im.download"]
    monkeypatch.setitem(download.__dict__["MODEL_PATHS"], "base", "https://example.org/base.pt")

    def fail(url: str) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(download, "fetch_file_cached", fail)
    with pytest.raises(CheckpointError, match=r"could not be downloaded \(ConnectionError: no route\).*checkpoint="):
        load_glide(tokenize=TOKENIZE, config=SMALL)


def test_prompts_are_padded() -> None:
    tokens, mask = TOKENIZE(["Cab", ""])
    assert tokens.tolist() == [[2, 0, 1, *[29] * 9], [29] * 12]
    assert mask.tolist() == [[True] * 3 + [False] * 9, [False] * 12]
    assert (tokens.dtype, mask.dtype) == (np.int64, np.bool_)
    TOKENIZE(["a" * 12])
    with pytest.raises(PromptError, match="has 13 tokens; the model reads at most 12"):
        TOKENIZE(["a" * 13])


def test_tokens_are_those_of_the_official_package() -> None:
    encoder = pytest.importorskip("glide_text2im.tokenizer.bpe").get_encoder()
    context = GLIDE_CONFIG.text.context
    prompts = ["an oil painting of a corgi", "", "Naïve café, 東京 🚀", "  two  spaces\n", *imagenet(20)]
    tokens, mask = padded(encoder, context)(prompts)
    for row, prompt in enumerate(prompts):
        expected = encoder.padded_tokens_and_mask(encoder.encode(prompt), context)
        assert (tokens[row].tolist(), mask[row].tolist()) == expected


def test_the_official_tokenizer_is_taken_by_default(checkpoint: Path) -> None:
    pytest.importorskip("glide_text2im")
    model = load_glide(checkpoint, config=SMALL)
    tokens, mask = model.tokenize(["a cat"])
    assert tokens.shape == (1, 12)
    assert mask.sum() == 2


def test_an_encoder_needs_no_more_than_two_names() -> None:
    encoder = SimpleNamespace(n_vocab=9, encode=lambda text: [len(text)])
    assert padded(encoder, 2)(["abc"])[0].tolist() == [[3, 8]]
