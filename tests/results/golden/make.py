"""Golden stores: one small store for each format version, written by the version that had it, and never made again.

``python -m tests.results.golden.make`` writes ``format-N.tar.xz`` and ``format-N.json`` beside this file, N being the
format that the package writes now. The archive is a live store; the other file says what its readers must find, as the
package that wrote it found it. It refuses to write over a golden store: one that was made anew would show only that the
package can read what it writes.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

import causalunet as cu
from causalunet.analysis import effects
from causalunet.design import Intervention
from causalunet.design.outcomes import HistogramDistance, NoiseDistance
from causalunet.design.views import Channels
from causalunet.models.openai_layout import TextUNet, UNetConfig
from causalunet.models.text_to_image import TextToImage
from causalunet.models.text_transformer import TextConfig
from causalunet.models.vocabulary import CONTEXT, WORDS, tokenize
from causalunet.results.meaning.schema import FORMAT_VERSION
from causalunet.schedule import cosine_alpha_bar

__all__ = ["FOLDER", "STUDIES", "golden_model", "told"]

FOLDER = Path(__file__).parent

_CONFIG = UNetConfig(
    image_size=12,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(6,),
    head_channels=8,
    norm_groups=4,
    in_channels=1,
    out_channels=2,
    text=TextConfig(vocabulary=len(WORDS) + 1, context=CONTEXT, width=8, layers=1, heads=2),
)

_FIRST = cu.Study(
    name="golden",
    prompts=["a red circle", "a striped blue cross, dark background"],
    sampler=cu.DDPM(steps=4),
    interventions=[
        cu.AblateBlock(2, cu.Window(3, 2)),
        cu.Edit("mid", cu.Window(4, 1), cu.Scale(0.5), "cond"),
        cu.AblateSkip(1, cu.Window(3, 1)) + cu.SkipSteps(cu.Window(1, 1)),
    ],
    record=cu.Record(activations="mid", summary="up.*", steps=(3,), of="all"),
)


@dataclass(frozen=True, slots=True)
class _Rated(Intervention):
    """A kind with coordinates of its own."""

    kind: ClassVar[str] = "rated in a golden store"
    rate: float
    window: cu.Window

    def edits(self) -> tuple[cu.Edit, ...]:
        return (cu.Edit("mid", self.window, cu.Scale(self.rate)),)

    def coordinates(self) -> dict[str, Any]:
        said = {"rate": self.rate, "rank": 3, "gentle": self.rate > 0.5, "words": f"times {self.rate:g}"}
        return {**Intervention.coordinates(self), **said}


_DECLARED = replace(
    _FIRST,
    interventions=[
        *_FIRST.interventions,
        cu.Edit("up.1", cu.Window(2, 1), view=Channels(0, 2)),
        _Rated(0.25, cu.Window(2, 1)),
    ],
    outcomes=[HistogramDistance(), NoiseDistance(3)],
)
STUDIES = {2: _FIRST, 3: _DECLARED}
"""By the version that stored it."""


@dataclass(frozen=True)
class _Bright(TextToImage):
    """Random weights, and a factor that needs none."""

    @property
    def factors(self) -> dict[str, tuple[str, ...]]:
        return {"brightness": ("dark", "light")}

    def read_factors(self, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        mean = images.mean(axis=(1, 2, 3))[:, None]
        return (mean > 0.5).astype(np.int64), np.maximum(mean, 1 - mean)


def golden_model() -> TextToImage:
    """Model of all golden stores."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = TextUNet(_CONFIG)
        for parameter in unet.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return _Bright("golden", unet.eval().requires_grad_(False), tokenize, cosine_alpha_bar())


def told(results: xr.DataTree) -> dict[str, Any]:
    """Plain numbers and texts that a reader of a golden store must find for as long as the package reads it."""
    outcomes, found = results["outcomes"].to_dataset(), effects(results)
    numbers = {name: outcomes[name].values.tolist() for name in ("ssim", "mse", "factor_changed", "status", "flops")}
    coordinates = {
        name: outcomes[name].values.tolist()
        for name in ("intervention", "kind", "digest", "start", "length", "component", "fill", "branch", "prompt")
    }
    if "histogram_distance" in outcomes:  # in all but format 2
        numbers |= {name: outcomes[name].values.tolist() for name in ("histogram_distance", "eps_distance_3", "gentle")}
        numbers |= {name: outcomes[name].values.astype(str).tolist() for name in ("rate", "rank")}  # NaN is not JSON
        coordinates |= {name: outcomes[name].values.tolist() for name in ("view", "words")}
        numbers["units"] = {name: outcomes[name].attrs["units"] for name in ("psnr", "histogram_distance")}
        numbers["better"] = {name: outcomes[name].attrs["better"] for name in ("mse", "histogram_distance")}
    of_steps = {name: results["baseline"][name].values.tolist() for name in ("step", "timestep", "alpha_bar")}
    return {
        "study": results.attrs["study"],
        **numbers,
        **coordinates,
        **of_steps,
        "effects": {"mean": found["mean"].values.tolist(), "interval": found["interval"].values.tolist()},
        "x_t": results["baseline"]["x_t"].values[1, 0, 0].tolist(),
        "activations": results["activations/mid"]["intervened"].values[1, 1, 0, 0].astype(float).tolist(),
        "fired": results["audit"]["fired"].sum().item(),
    }


def _write() -> None:
    archive = FOLDER / f"format-{FORMAT_VERSION}.tar.xz"
    if archive.exists():
        raise SystemExit(f"{archive} exists, and golden stores are made once.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "golden.zarr"
        results = STUDIES[FORMAT_VERSION].run(path, model=golden_model(), progress=False)
        assert results.verify(deep=True)
        results.tag("golden")
        (FOLDER / f"format-{FORMAT_VERSION}.json").write_text(json.dumps(told(cu.open_results(path)), indent=1) + "\n")
        with tarfile.open(archive, "w:xz") as made:
            made.add(path, "golden.zarr", filter=_nameless)
    print(f"{archive}: {archive.stat().st_size:,} bytes")


def _nameless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out whose files they are."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    _write()
    sys.stdout.flush()
    os._exit(0)
