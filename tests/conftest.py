"""What all tests share: one thread, hypothesis without a clock, and a model so small that a study takes a moment."""

from __future__ import annotations

import math
import os
import sys
import time

# Before torch: tests run side by side, and the processes that they start would each take all cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from hypothesis import settings

import causalunet as cu
from causalunet import registry
from causalunet.design.fills import FILLS
from causalunet.design.guidance import GUIDANCES
from causalunet.design.interventions import KINDS
from causalunet.design.outcomes import OUTCOMES
from causalunet.design.samplers import SAMPLERS
from causalunet.design.spacings import SPACINGS
from causalunet.design.starts import STARTS
from causalunet.design.views import VIEWS
from causalunet.models.base import MODELS
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.text_to_image import TextToImage
from causalunet.models.text_transformer import TextConfig
from causalunet.models.vocabulary import CONTEXT, WORDS, tokenize
from causalunet.schedule import cosine_alpha_bar

# A deadline measures the machine; random examples would make a failure come and go.
settings.register_profile("causalunet", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("causalunet")

PLUGINS = Path(__file__).parent / "plugins"
"""A package of somebody else's, laid out as pip would install it."""

TINY_CONFIG = UNetConfig(
    image_size=16,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
    head_channels=8,
    norm_groups=4,
    text=TextConfig(vocabulary=len(WORDS) + 1, context=CONTEXT, width=8, layers=1, heads=2),
)


_BEGUN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take a time after which no more is begun."""
    told = "begin no test after so many minutes; those that are left are skipped, and the summary says how many"
    parser.addoption("--minutes", type=float, default=math.inf, help=told)


@pytest.hookimpl(tryfirst=True)  # before anything is made for the test
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what there is no time left for."""
    if time.monotonic() - _BEGUN > 60 * item.config.getoption("--minutes"):
        pytest.skip("no time left")


@pytest.hookimpl(tryfirst=True)  # before markers are selected by
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests of many cases that are ``sampled``, all but so many are ``thorough``; of one that is named none is.

    Cases that are ``slow`` stay what they are, and are none of those.
    """
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for together in cases.values():
        marker = together[0].get_closest_marker("sampled")
        most = min(marker.args[0] if marker else 0, len(together))
        kept = {number * len(together) // most for number in range(most)}
        for number, item in enumerate(together):
            if number not in kept:
                item.add_marker(pytest.mark.thorough)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches are tiny: more threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model() -> TextToImage:
    """A model of 4 + 1 + 4 blocks with random weights, 16 x 16 pixels; nothing in it is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = TextUNet(TINY_CONFIG)
        for parameter in unet.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return TextToImage("tiny", unet.eval().requires_grad_(False), tokenize, cosine_alpha_bar())


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """As if pip had installed the packages in a folder, and nothing had imported them."""
    registries = (FILLS, GUIDANCES, KINDS, MODELS, OUTCOMES, SAMPLERS, SPACINGS, STARTS, VIEWS)
    with pytest.MonkeyPatch.context() as patched, ExitStack() as scopes:
        patched.syspath_prepend(folder)
        registry._announced.cache_clear()
        for one in registries:
            scopes.enter_context(one.scoped())
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "guests"]:
        del sys.modules[name]
    registry._announced.cache_clear()


@pytest.fixture
def guests() -> Iterator[None]:
    """The package in tests/plugins is installed."""
    with installed(PLUGINS):
        yield


@pytest.fixture(scope="session")
def run_study(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., xr.DataTree]:
    """Run interventions on the tiny model, over two samples unless told otherwise, and open the results."""

    def run(
        *interventions: cu.design.Intervention,
        steps: int = 8,
        guidance_scale: float = 3.0,
        memory: int = 1 << 30,
        **fields: Any,
    ) -> xr.DataTree:
        study = cu.Study(
            name="test",
            interventions=interventions,
            sampler=cu.DDPM(steps=steps, guidance_scale=guidance_scale),
            **{"prompts": ("a red circle", "a striped blue cross, dark background"), **fields},
        )
        path = tmp_path_factory.mktemp("study") / "results.zarr"
        return study.run(path, model=tiny_model, memory=memory, progress=False)

    return run
