"""Time saved on GLIDE at its full size when bottom blocks are cut, beside FLOP and kernel shares: ``make bench``.

Weights are random, which changes no time. Needs 2 GB of memory, and some minutes on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import causalunet as cu
from causalunet.design import Zero
from causalunet.design.study import one_run
from causalunet.execute import TracedUNet
from causalunet.execute.measure.timing import count_kernels
from causalunet.models.glide import Glide
from causalunet.plan import Action, PlacedFill
from causalunet.prompts import imagenet
from causalunet.schedule import cosine_alpha_bar
from tests.models.full_size import TOKENIZE, random_glide

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

BOTTOM = (2, 4, 8)
CUDA = torch.cuda.is_available()
BATCHES = (1, 16) if CUDA else (1,)
REPEATS = 30 if CUDA else 5
RUNS = 3


def machine() -> str:
    """Device and precision, as a table names them."""
    if not CUDA:
        return f"float32, CPU, {torch.get_num_threads()} thread(s)"
    tf32 = "TF32 convolutions" if torch.backends.cudnn.allow_tf32 else "no TF32"
    return f"float32 ({tf32}), {torch.cuda.get_device_name()}, torch {torch.__version__}"


@pytest.fixture(scope="module")
def model() -> Glide:
    unet = random_glide().to("cuda" if CUDA else "cpu")
    return Glide("glide", unet, TOKENIZE, cosine_alpha_bar())


def interleaved(arms: dict[str, Callable[[], object]]) -> dict[str, NDArray[np.float64]]:
    """Seconds of every repeat of every arm, after one that does not count; arms take turns."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(1 + REPEATS):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            if CUDA:
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return {name: np.array(values[1:]) for name, values in times.items()}


def arguments_of(model: Glide, samples: int) -> tuple[torch.Tensor, ...]:
    """Of one guided call, as Glide's U-Net takes them."""
    rows = 2 * samples
    texts = zip(model.encode(["tench"]), model.encode([""]), strict=True)
    context = [torch.cat([part.expand(samples, *part.shape[1:]) for part in pair]) for pair in texts]
    x = torch.randn(rows, *model.image_shape, generator=torch.Generator().manual_seed(0)).to(context[0].device)
    return x, torch.full((rows,), 500.0, device=x.device), *context


@torch.inference_mode()
@pytest.mark.parametrize("samples", BATCHES)
def test_tracing_against_the_plain_forward(model: Glide, samples: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = arguments_of(model, samples)
    traced = TracedUNet(model.unet, model.anatomy)
    times = interleaved(
        {"plain": lambda: model.unet(*arguments), "traced": lambda: traced(Action(), arguments, samples)}
    )
    ratio = times["traced"] / times["plain"]
    low, high = np.quantile(ratio, (0.25, 0.75))
    with capsys.disabled():
        print(f"\nGLIDE base, one guided call of {samples} sample(s), {machine()}, {REPEATS} repeats")
        print(f"traced takes {np.median(ratio):.3f} of the plain forward's time, quartiles {low:.3f} - {high:.3f}; ")
        print(f"baseline: the plain forward, median {np.median(times['plain']):.4f} s")


@torch.inference_mode()
@pytest.mark.parametrize("samples", BATCHES)
def test_time_saved_by_cutting_the_bottom(model: Glide, samples: int, capsys: pytest.CaptureFixture[str]) -> None:
    anatomy, unet, rows = model.anatomy, TracedUNet(model.unet, model.anatomy), 2 * samples
    arguments = arguments_of(model, samples)
    actions = {"uncut": Action()}
    for bottom in BOTTOM:
        place = f"up.{bottom - 1}"
        actions[str(bottom)] = Action(frozenset({PlacedFill(cu.Site(place), Zero())}), anatomy.dead({place}))
    times = interleaved({name: partial(unet, action, arguments, samples) for name, action in actions.items()})
    bound = one_run(["tench"], None, cu.DDPM(), None).bind(model)
    kernels = {name: count_kernels(bound, action, samples) for name, action in actions.items()}
    lines = []
    for bottom in BOTTOM:
        saved = 1 - times[str(bottom)] / times["uncut"]
        low, high = np.quantile(saved, (0.25, 0.75))
        flops = 1 - anatomy.live_flops(actions[str(bottom)].dead) / anatomy.flops
        of_kernels = 1 - kernels[str(bottom)] / kernels["uncut"]
        spread = f"{low:.1%} - {high:.1%}"
        lines.append(f"{bottom:>6}  {np.median(saved):>10.1%}  {spread:>15}  {flops:>5.1%}  {of_kernels:>7.1%}")
    with capsys.disabled():
        print(f"\nGLIDE base, one guided call of {samples} sample(s), {rows} rows, {machine()}, {REPEATS} repeats")
        print(f"baseline: the uncut traced call, text cached, median {np.median(times['uncut']):.3f} s")
        print("bottom  time saved        quartiles  FLOPs  kernels\n" + "\n".join(lines))


@pytest.mark.skipif(not CUDA, reason="a whole run of 100 steps takes an hour on a CPU; this one needs a GPU")
@pytest.mark.parametrize("samples", BATCHES)
def test_time_saved_by_figure_11(model: Glide, samples: int, capsys: pytest.CaptureFixture[str]) -> None:
    strategy = cu.Shortcut(
        name="figure 11",
        intervention=cu.AblateBlock(bottom=8, window=cu.cut_relax_cut(75, cut=12, relax=10, cuts=3))
        + cu.SkipSteps(cu.Window(17, 17)),
        sampler=cu.DDPM(steps=100, guidance_scale=3.0),
        model="glide",
    )
    timed = cu.time_shortcut(strategy, imagenet(samples), model=model, repeats=RUNS, memory=1 << 36)
    assert timed.attrs["samples_per_call"] == samples
    lines = []
    for arm in timed["arm"].values:
        one = timed.sel(arm=arm)
        low, high = one["spread"].values
        shares = f"{float(one['flops_saved']):>6.1%}  {float(one['kernels_saved']):>7.1%}"
        lines.append(f"{arm:>8}  {float(one['saved']):>10.1%}  {f'{low:.1%} - {high:.1%}':>15}  {shares}")
    with capsys.disabled():
        print(f"\nGLIDE base, 100 steps, batch of {samples}, {machine()}, plain calls, {RUNS} repeats")
        print(f"baseline: {timed.attrs['baseline']}, median {float(timed['seconds'][0].median()):.2f} s")
        print("     arm  time saved        quartiles   FLOPs  kernels\n" + "\n".join(lines))
