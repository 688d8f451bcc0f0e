"""Training of the factor reader: a resumed run is the same run, and imperfect images stay images."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from causalunet.models.factor_reader import FactorReader
from causalunet.scenes import draw_scenes, render
from causalunet.training.factor_reader import ReaderTrainingConfig, augment, train_reader

TINY = ReaderTrainingConfig(iterations=7, batch_size=8, warmup=2, decay=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches are tiny: on a busy machine threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(directory: Path, config: ReaderTrainingConfig = TINY, *, stop_after: int | None = None) -> None:
    run = train_reader(config, directory, checkpoint_every=2, report_every=1)
    for _ in itertools.islice(run, stop_after):
        pass
    run.close()  # type: ignore[attr-defined]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoint.pt", weights_only=True)["model"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("stop_after", [4, 5])
def test_resumed_run_is_the_uninterrupted_run(tmp_path: Path, stop_after: int) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "parts", stop_after=stop_after)
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["iteration"] == 4
    assert not equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    train(tmp_path / "parts")
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert equal(*(load_file(tmp_path / name / "reader.safetensors") for name in ("parts", "whole")))


def test_seed_changes_the_run(tmp_path: Path) -> None:
    train(tmp_path / "zero")
    train(tmp_path / "one", ReaderTrainingConfig(iterations=7, batch_size=8, warmup=2, decay=3, seed=1))
    assert not equal(weights(tmp_path / "zero"), weights(tmp_path / "one"))


def test_files_of_a_run(tmp_path: Path) -> None:
    train(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "log.jsonl", "reader.safetensors"}
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in log] == list(range(1, 8))
    assert all(value.dtype == torch.float16 for value in load_file(tmp_path / "reader.safetensors").values())
    FactorReader.from_file(tmp_path / "reader.safetensors")
    assert list(train_reader(TINY, tmp_path)) == []


def test_rate_rises_stays_and_falls() -> None:
    config = ReaderTrainingConfig(iterations=100, warmup=10, decay=20, learning_rate=1.0)
    rates = [config.rate(iteration) for iteration in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[99] == pytest.approx(0.05)


def test_augmented_images_stay_images() -> None:
    images = render(draw_scenes(64), np.random.default_rng(0))
    imperfect = augment(images, np.random.default_rng(1))
    assert imperfect.shape == images.shape
    assert imperfect.dtype == np.float32
    assert np.abs(imperfect).max() <= 1
    assert 0.02 < np.abs(imperfect - images).mean() < 0.4
    np.testing.assert_array_equal(imperfect, augment(images, np.random.default_rng(1)))


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
