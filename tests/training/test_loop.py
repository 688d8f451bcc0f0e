"""The training loop: resumed runs, runs with workers and runs by time are the same runs."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

from causalunet.errors import ModelError, SpecError
from causalunet.models.factor_reader import SCENES_READER, FactorReader
from causalunet.training.batches import batches
from causalunet.training.factor_reader import ScenesReaderTrainingConfig, evaluate_scenes_reader, train_reader
from causalunet.training.loop import LoopConfig, Resources, train

TINY = LoopConfig(iterations=12, batch_size=4, learning_rate=0.1, warmup=2, decay=4, ema=0.9)


def draw(iteration: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    x = rng.standard_normal((4, 3), dtype=np.float32)
    return {"x": torch.from_numpy(x), "iteration": torch.tensor(iteration)}


class Line:
    """Learn a linear map."""

    name = "line"
    draw = staticmethod(draw)

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = torch.nn.Linear(3, 1)

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = (self.network(batch["x"]) - batch["x"].sum(dim=1, keepdim=True)).square().mean()
        return loss, {"iteration_seen": batch["iteration"].double()}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(directory: Path, name: str = "line") -> dict[str, torch.Tensor]:
    return load_file(directory / f"{name}.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_run_is_that_of_a_loop_written_by_hand(tmp_path: Path) -> None:
    records = list(train(Line(), TINY, tmp_path, report_every=3))  # type: ignore[arg-type]
    network = Line().network
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    average, losses = copy.deepcopy(network.state_dict()), []
    for iteration in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * min(1.0, (iteration + 1) / 2, (12 - iteration) / 4)
        x = torch.from_numpy(np.random.default_rng((0, iteration)).standard_normal((4, 3), dtype=np.float32))
        loss = F.mse_loss(network(x), x.sum(dim=1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        decay = min(0.9, (2 + iteration) / (11 + iteration))
        for name, value in network.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * value
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, average[name].half(), rtol=2e-3, atol=1e-4)
    assert [record["iteration"] for record in records] == [3, 6, 9, 12]
    assert [record["iteration_seen"] for record in records] == [1, 4, 7, 10]
    np.testing.assert_allclose([r["loss"] for r in records], np.reshape(losses, (4, 3)).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("stop_after", [1, 5, 8])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path: Path, stop_after: int) -> None:
    options = {"checkpoint_every": 2, "report_every": 1}
    for _ in train(Line(), TINY, tmp_path / "whole", **options):  # type: ignore[arg-type]
        pass
    for _ in itertools.islice(train(Line(), TINY, tmp_path / "parts", **options), stop_after):  # type: ignore[arg-type]
        pass
    assert list(train(Line(), TINY, tmp_path / "parts", **options))  # type: ignore[arg-type]
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert not list(train(Line(), TINY, tmp_path / "parts", **options))  # type: ignore[arg-type]


@pytest.mark.thorough
def test_workers_draw_the_same_batches_in_the_same_order() -> None:
    before = torch.get_rng_state()
    here, there = (
        list(batches(draw, 7, range(3, 9), workers=workers, device=torch.device("cpu"))) for workers in (0, 2)
    )
    assert [int(batch["iteration"]) for batch in there] == [3, 4, 5, 6, 7, 8]
    for one, other in zip(here, there, strict=True):
        assert equal(one, other)
    assert not torch.equal(here[0]["x"], here[1]["x"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.thorough
def test_a_run_with_workers_is_the_run_without(tmp_path: Path) -> None:
    config = ScenesReaderTrainingConfig(iterations=3, batch_size=4, warmup=2, decay=2)
    for workers in (0, 2):
        for _ in train_reader(config, tmp_path / str(workers), resources=Resources(workers=workers)):
            pass
    assert equal(*(weights(tmp_path / str(workers), "scenes-reader") for workers in (0, 2)))
    reader = FactorReader.from_file(tmp_path / "0" / "scenes-reader.safetensors", SCENES_READER)
    accuracy = evaluate_scenes_reader(reader, 20, augmented=True)
    assert list(accuracy) == [*SCENES_READER.factors, "all"]


def test_a_run_by_time_ends_in_time_and_can_be_made_again(tmp_path: Path) -> None:
    for _ in train(Line(), TINY, tmp_path / "first"):  # type: ignore[arg-type]
        pass  # the first step of a process imports much of PyTorch, and the time includes it
    far = replace(TINY, iterations=10**9)
    records = list(train(Line(), far, tmp_path / "timed", resources=Resources(minutes=1 / 60), report_every=20))  # type: ignore[arg-type]
    with safe_open(tmp_path / "timed" / "line.safetensors", "pt") as file:
        told = json.loads(file.metadata()["training"])
    assert 20 < told["iteration"] == records[-1]["iteration"] <= told["iterations"] < 10**6
    if told["iteration"] == told["iterations"]:  # on a busy machine the time may be over before
        again = replace(TINY, iterations=told["iterations"], decay=told["decay"])
        for _ in train(Line(), again, tmp_path / "again"):  # type: ignore[arg-type]
            pass
        assert equal(weights(tmp_path / "timed"), weights(tmp_path / "again"))


def test_a_run_by_time_goes_on_from_the_end_of_a_run_by_length(tmp_path: Path) -> None:
    *_, ended = train(Line(), TINY, tmp_path)  # type: ignore[arg-type]
    assert ended["iteration"] == TINY.iterations
    *_, last = train(Line(), TINY, tmp_path, resources=Resources(minutes=1 / 60), report_every=2)  # type: ignore[arg-type]
    assert last["iteration"] > TINY.iterations + 4


def test_what_cannot_be_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="workers is a number of processes, 0 or more; got -1"):
        Resources(workers=-1)
    with pytest.raises(SpecError, match="minutes is a length of time, above 0; got 0"):
        Resources(minutes=0)
    with pytest.raises(ModelError, match="cannot run on device="):
        next(train(Line(), TINY, tmp_path / "none", resources=Resources(device="nowhere")))  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_with_autocast_products_are_in_bfloat16_and_weights_stay_float32(tmp_path: Path) -> None:
    given: list[tuple[torch.dtype, torch.dtype]] = []

    class Watched(Line):
        def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            given.append((self.network(batch["x"]).dtype, self.network.weight.dtype))
            return super().loss(batch)

    rounded = replace(TINY, autocast="bfloat16")
    list(train(Watched(), rounded, tmp_path / "rounded"))  # type: ignore[arg-type]
    assert set(given) == {(torch.bfloat16, torch.float32)}
    list(train(Line(), TINY, tmp_path / "whole"))  # type: ignore[arg-type]
    first, second = weights(tmp_path / "rounded"), weights(tmp_path / "whole")
    assert not equal(first, second)
    assert all(torch.allclose(first[name], second[name], atol=0.02) for name in first)
    for directory, told in (("rounded", {"autocast": "bfloat16"}), ("whole", {})):
        with safe_open(tmp_path / directory / "line.safetensors", "pt") as file:
            stored = json.loads(file.metadata()["training"])
        assert {name: value for name, value in stored.items() if name == "autocast"} == told


def test_a_run_with_autocast_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    rounded, options = replace(TINY, autocast="bfloat16"), {"checkpoint_every": 5, "report_every": 5}
    list(train(Line(), rounded, tmp_path / "whole"))  # type: ignore[arg-type]
    stopped = itertools.islice(train(Line(), rounded, tmp_path / "stopped", **options), 1)  # type: ignore[arg-type]
    assert [record["iteration"] for record in stopped] == [5]
    list(train(Line(), rounded, tmp_path / "stopped"))  # type: ignore[arg-type]
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_a_type_that_cannot_be_computed_in_is_told() -> None:
    with pytest.raises(SpecError, match="autocast is one of bfloat16, float32, or left out; got 'int4'"):
        replace(TINY, autocast="int4")
