"""LPIPS with random weights in a file: what the libraries compute of the same weights, image by image."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from causalunet.design.outcomes import OUTCOMES, Outcome, OutcomeContext
from causalunet.design.outcomes.measuring import measured, rehearse_outcomes
from causalunet.errors import CheckpointError, SpecError
from causalunet.models.lpips import LPIPS

NOTHING = OutcomeContext(stored={})


def library(net: str = "alex") -> torch.nn.Module:
    lpips = pytest.importorskip("lpips", reason="the extra lpips is not installed")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: torch.nn.Module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "lin" in name:
                value.abs_()  # as those that are trained
    return network.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "alex.pt"
    torch.save(library().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is none of weights, for what does not load it."""
    path = tmp_path_factory.mktemp("made_up") / "weights.pt"
    path.write_bytes(b"weights")
    return path


def images(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    baseline = rng.random((3, 3, 40, 36), dtype=np.float32)
    return np.clip(baseline + rng.normal(0, 0.2, (2, *baseline.shape)), 0, 1).astype(np.float32), baseline


def test_it_is_what_the_library_computes(weights: Path) -> None:
    runs, baseline = images()
    found = measured(LPIPS(weights), runs, baseline, NOTHING)["lpips"]
    network = library()
    with torch.no_grad():
        for row in range(2):
            for sample in range(3):
                pair = (torch.from_numpy(one[None] * 2 - 1) for one in (runs[row, sample], baseline[sample]))
                assert found[row, sample] == pytest.approx(float(network(*pair)), rel=1e-5)
    np.testing.assert_allclose(measured(LPIPS(weights), baseline[None], baseline, NOTHING)["lpips"], 0, atol=1e-7)
    assert (found > 0.001).all()


def test_it_is_what_torchmetrics_computes_of_the_same_weights(weights: Path) -> None:
    lpips = pytest.importorskip("torchmetrics.functional.image.lpips")
    network = lpips._LPIPS(pretrained=False, net="alex", pnet_rand=True).eval()
    network.load_state_dict(library().state_dict(), strict=False)
    runs, baseline = images(1)
    with torch.no_grad():
        expected = network(torch.from_numpy(runs[0]) * 2 - 1, torch.from_numpy(baseline) * 2 - 1).flatten()
    found = measured(LPIPS(weights), runs, baseline, NOTHING)["lpips"][0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_weights_are_known_by_their_digest(weights: Path, tmp_path: Path) -> None:
    outcome = LPIPS(weights)
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes(weights.read_bytes())
    assert LPIPS(moved).digest == outcome.digest != LPIPS(weights, net="vgg").digest
    changed = tmp_path / "changed.pt"
    state = library().state_dict()
    state["lin0.model.1.weight"] += 1
    torch.save(state, changed)
    assert LPIPS(changed).digest != outcome.digest
    with pytest.raises(CheckpointError, match="not the file asked for"):
        measured(LPIPS(changed, sha256=outcome.sha256), *images(), NOTHING)


def test_weights_of_another_network_are_refused(weights: Path) -> None:
    with pytest.raises(CheckpointError, match="names missing"):
        measured(LPIPS(weights, net="squeeze"), *images(), NOTHING)


def test_it_is_found_by_name_and_comes_back_from_json(made_up: Path) -> None:
    outcome = LPIPS(made_up)
    assert "lpips" in OUTCOMES
    with OUTCOMES.scoped(lpips=None):
        assert OUTCOMES.get("lpips") is None, "its module is loaded already, and enters it once"
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert (again, again.digest) == (outcome, outcome.digest)


def test_what_it_cannot_do_is_told(made_up: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights file"):
        LPIPS(tmp_path / "nothing.pt")
    with pytest.raises(SpecError, match="alex, squeeze, vgg"):
        LPIPS(made_up, net="resnet")  # type: ignore[arg-type]
    for shape in ((3, 16, 16), (1, 64, 64)):
        with pytest.raises(SpecError, match="3 channels and at least 31"):
            rehearse_outcomes([LPIPS(made_up)], shape, 4)
