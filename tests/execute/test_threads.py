"""Threads that share a model: none sees the edits of another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.walk.generate import generate
from causalunet.models.alone import alone
from causalunet.models.text_to_image import TextToImage
from tests.execute.test_installed import action_of

PROMPTS = ("a red circle", "a striped blue cross, dark background")
CUTS = [
    cu.AblateBlock(bottom=2, window=cu.Window(5, 5)),
    cu.AblateSkip(top=2, window=cu.Window(5, 5)),
    cu.AblateBlock(bottom=4, window=cu.Window(5, 5)),
]


def together(*tasks: Callable[[], object]) -> list[object]:
    """Results of tasks that begin at one moment, each in a thread."""
    gate = threading.Barrier(len(tasks))

    def begin(task: Callable[[], object]) -> object:
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(begin, tasks))


def test_threads_with_different_cuts_on_one_model_give_the_images_of_each_alone(tiny_model: TextToImage) -> None:
    def task(position: int) -> Callable[[], object]:
        sampler = cu.DDPM(steps=6)
        return lambda: generate(
            PROMPTS, model=tiny_model, sampler=sampler, intervention=CUTS[position], traced=position == 1
        )

    tasks = [task(position) for position in range(len(CUTS))]
    alone_each = [run() for run in tasks]
    for _ in range(3):
        for got, expected in zip(together(*tasks), alone_each, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.thorough
def test_two_studies_run_in_threads_on_one_model(tiny_model: TextToImage, tmp_path: Path) -> None:
    def task(position: int, path: Path) -> Callable[[], object]:
        study = cu.Study(name="s", prompts=PROMPTS, interventions=[CUTS[position]], sampler=cu.DDPM(steps=6))

        def run() -> object:
            return study.run(path, model=tiny_model, progress=False).outcomes.image.load()

        return run

    got = together(*(task(position, tmp_path / f"{position}.zarr") for position in (0, 1)))
    for position in (0, 1):
        expected = task(position, tmp_path / f"alone-{position}.zarr")()
        np.testing.assert_array_equal(got[position], expected)


def test_a_thread_waits_while_cuts_are_installed(tiny_model: TextToImage) -> None:
    entered = threading.Event()

    def other() -> None:
        with alone(tiny_model.unet):
            entered.set()

    thread = threading.Thread(target=other)
    context = tuple(part.expand(2, *part.shape[1:]) for part in tiny_model.encode(["a red circle"]))
    x, timesteps = torch.zeros(2, *tiny_model.image_shape), torch.full((2,), 500.0)
    with InstalledUNet(tiny_model.unet, tiny_model.anatomy) as unet:
        unet(action_of(tiny_model, CUTS[0]), (x, timesteps, *context), 1)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()
