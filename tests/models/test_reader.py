"""The factor reader that ships: accuracy, independence of the batch, and what it says of a wrong file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from causalunet.errors import CheckpointError, SpecError
from causalunet.models.factor_reader import FactorReader, load_reader
from causalunet.scenes import FACTORS, Scene, draw_scenes, render
from causalunet.training.factor_reader import evaluate_reader

NAMES = list(FACTORS)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches are tiny: on a busy machine threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return draw_scenes(200, seed=7)


@pytest.fixture(scope="module")
def images(scenes: list[Scene]) -> Tensor:
    return torch.from_numpy(render(scenes, np.random.default_rng(7)))


def column(codes: NDArray[np.int64], factor: str) -> NDArray[np.int64]:
    return codes[:, NAMES.index(factor)]


def test_accuracy_on_held_out_scenes() -> None:
    accuracy = evaluate_reader(load_reader(), 1000, seed=2024)
    assert list(accuracy) == [*FACTORS, "all"]
    assert min(accuracy[factor] for factor in FACTORS) >= 0.995, accuracy
    assert accuracy["all"] >= 0.99, accuracy


def test_accuracy_on_imperfect_held_out_scenes() -> None:
    accuracy = evaluate_reader(load_reader(), 500, seed=2025, augmented=True)
    assert accuracy["all"] >= 0.97, accuracy


def test_reading_is_codes(scenes: list[Scene], images: Tensor) -> None:
    codes = load_reader().read(images)
    assert codes.dtype == np.int64
    assert codes.shape == (len(scenes), len(FACTORS))
    assert np.mean(codes == np.array([scene.codes for scene in scenes])) >= 0.995


def test_evaluation_counts_errors() -> None:
    torch.manual_seed(0)
    untrained = evaluate_reader(FactorReader(), 300)
    assert untrained["all"] < 0.1
    assert all(untrained[factor] < 0.7 for factor in FACTORS)


def test_probabilities_sum_to_one_in_the_order_of_factors(images: Tensor) -> None:
    probabilities = load_reader().probabilities(images)
    assert list(probabilities) == NAMES
    for factor, values in FACTORS.items():
        assert probabilities[factor].shape == (len(images), len(values))
        torch.testing.assert_close(probabilities[factor].sum(dim=1), torch.ones(len(images)))
    best = torch.stack([probabilities[factor].argmax(dim=1) for factor in NAMES], dim=1)
    np.testing.assert_array_equal(best.numpy(), load_reader().read(images))


def test_rows_do_not_depend_on_the_batch(images: Tensor) -> None:
    together = load_reader().probabilities(images[:16])
    for row in range(16):
        alone = load_reader().probabilities(images[row : row + 1])
        for factor in FACTORS:
            torch.testing.assert_close(alone[factor][0], together[factor][row], atol=1e-5, rtol=0)


def test_permuted_colour_channels_change_the_colour_only(images: Tensor) -> None:
    before, after = load_reader().read(images), load_reader().read(images[:, [2, 0, 1]])
    turned = {"red": "green", "green": "blue", "blue": "red", "yellow": "cyan", "cyan": "magenta", "magenta": "yellow"}
    colours = FACTORS["colour"]
    expected = np.array([colours.index(turned[colours[code]]) for code in column(before, "colour")])
    assert np.mean(column(after, "colour") == expected) >= 0.98
    for factor in ("texture", "shape", "position", "background"):
        assert np.mean(column(after, factor) == column(before, factor)) >= 0.98, factor


def test_mirrored_images_swap_left_and_right(images: Tensor) -> None:
    before, after = load_reader().read(images), load_reader().read(images.flip(3))
    left, right = (FACTORS["position"].index(place) for place in ("on the left", "on the right"))
    swapped = {left: right, right: left}
    expected = np.array([swapped.get(code, code) for code in column(before, "position").tolist()])
    assert np.mean(column(after, "position") == expected) >= 0.98


def test_reader_is_loaded_once_frozen_and_small() -> None:
    reader = load_reader()
    assert load_reader() is reader
    assert not reader.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in reader.parameters())
    assert 60_000 <= sum(p.numel() for p in reader.parameters()) <= 200_000


def test_probabilities_have_a_gradient_in_the_images(images: Tensor) -> None:
    leaf = images[:2].clone().requires_grad_()
    load_reader().probabilities(leaf)["colour"][:, 0].log().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() > 0


def test_half_precision_images_are_read(images: Tensor) -> None:
    np.testing.assert_array_equal(load_reader().read(images[:8].half()), load_reader().read(images[:8]))


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3, 64, 64), (2, 1, 32, 32)])
def test_other_image_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match=r"\(batch, 3, 32, 32\); found \(" + ", ".join(map(str, shape))):
        load_reader().read(torch.zeros(shape))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no weights file at .*absent\.safetensors"):
        FactorReader.from_file(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("length", [0, 4, 200, -100])
def test_truncated_file(tmp_path: Path, length: int) -> None:
    save_file(load_reader().state_dict(), tmp_path / "whole.safetensors")
    (tmp_path / "part.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:length])
    message = r"part\.safetensors cannot be read as weights: .* Is the file complete\?"
    with pytest.raises(CheckpointError, match=message):
        FactorReader.from_file(tmp_path / "part.safetensors")


def test_wrong_keys_and_shapes_are_named(tmp_path: Path) -> None:
    weights = load_reader().state_dict()
    weights["tail.bias"] = weights.pop("head.bias")
    weights["head.weight"] = weights["head.weight"][:20].clone()
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError) as caught:
        FactorReader.from_file(tmp_path / "other.safetensors")
    message = str(caught.value)
    for part in ("missing head.bias", "not expected tail.bias", "head.weight has shape (20, 64), expected (21, 64)"):
        assert part in message


def test_file_round_trip(tmp_path: Path, images: Tensor) -> None:
    save_file({name: value.half() for name, value in load_reader().state_dict().items()}, tmp_path / "r.safetensors")
    again = FactorReader.from_file(tmp_path / "r.safetensors")
    for factor, probability in again.probabilities(images[:8]).items():
        assert torch.equal(probability, load_reader().probabilities(images[:8])[factor])
