"""Makes ``golden_local.json`` by the official code of Lukoianov et al. 2025, which is needed to run this.

    python tests/models/exact/golden_local.py SRC

SRC is the folder ``src`` of ottogin/locality-in-diffusion-models at commit 48d69957a668eeaeff8efad50eb26830299e6484.
Of that code it runs ``models/base.py``, ``wiener.py``, ``pca_locality.py`` and ``utils/wiener.py`` as they are; a
package with a registry that does nothing stands in for what else they import (data sets, FAISS).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

TIMESTEPS = (20, 300, 700)


def fixed() -> tuple[np.ndarray, np.ndarray]:
    """Six images of 4 x 4, and two noisy ones, that every machine makes alike."""
    images, pixels = np.mgrid[:6, :16]
    bank = np.sin(0.7 * images + 0.3 * pixels * (1 + images % 3)) * 0.8
    rows, pixels = np.mgrid[:2, :16]
    return bank.reshape(6, 1, 4, 4), np.cos(1.3 * pixels + 2.1 * rows).reshape(2, 1, 4, 4)


def main(source: Path) -> None:
    sys.path.insert(0, str(source))
    for name in ("local_diffusion", "local_diffusion.data", "local_diffusion.models"):
        package = ModuleType(name)
        package.__path__ = [str(source / name.replace(".", "/"))]
        sys.modules[name] = package
    sys.modules["local_diffusion.data"].DatasetBundle = object
    sys.modules["local_diffusion.models"].register_model = lambda name: lambda kind: kind
    from local_diffusion.models.pca_locality import PCALocalityDenoiser
    from local_diffusion.models.wiener import DenoisingWiener

    torch.set_default_dtype(torch.float64)
    bank, latents = (torch.from_numpy(part) for part in fixed())
    found: dict[str, object] = {}
    for name, kind, batch in (
        ("wiener", DenoisingWiener, 6),
        ("local", PCALocalityDenoiser, 6),
        ("local in batches of 3", PCALocalityDenoiser, 3),
    ):
        data = SimpleNamespace(
            name="fixed", resolution=4, in_channels=1, dataloader=[(part,) for part in bank.split(batch)]
        )
        with tempfile.TemporaryDirectory() as folder:
            model = kind(data, "cpu", 10, params={"wiener_path": Path(folder) / "none"})
            model.scheduler.alphas_cumprod = model.scheduler.alphas_cumprod.double()
            model.train(data)
            found[name] = {t: model.denoise(latents, torch.tensor(t)).flatten(1).tolist() for t in TIMESTEPS}
    found["alpha_bar"] = {t: float(model.scheduler.alphas_cumprod[t]) for t in TIMESTEPS}
    told = {
        "repository": "ottogin/locality-in-diffusion-models",
        "commit": "48d69957a668eeaeff8efad50eb26830299e6484",
        "command": "python tests/models/exact/golden_local.py locality-in-diffusion-models/src",
        **found,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
