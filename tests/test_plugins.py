"""Packages that announce fills, kinds and models as entry points: found without an import, imported when asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

import causalunet as cu
from causalunet.cli.exits import Exit
from causalunet.design import Fill, Intervention
from causalunet.design.fills import FILLS
from causalunet.design.outcomes import Outcome
from causalunet.design.samplers import SAMPLERS, Sampler
from causalunet.errors import PluginError, SpecError
from causalunet.models import load_model, model_names
from causalunet.models.text_to_image import TextToImage
from causalunet.noise import step_noise
from causalunet.schedule import Schedule
from causalunet.testing import check_fill, check_intervention, check_outcome, check_sampler
from tests.conftest import PLUGINS

FLIP = {"name": "guests.flip", "configuration": {}}
FLIP_SKIP = {"name": "guests.flip_skip", "configuration": {"skip": 1, "window": [[3, 2]], "label": "mirrored"}}


pytestmark = pytest.mark.usefixtures("guests")


def test_names_are_listed_without_an_import() -> None:
    assert "guests.flip" in FILLS
    assert "guests.flip" in list(FILLS)
    assert len(FILLS) == len(list(FILLS))
    assert "guests.tiny" in model_names()
    assert not [name for name in sys.modules if name.partition(".")[0] == "guests"]


@pytest.mark.thorough
def test_nothing_is_searched_for_when_the_package_is_imported() -> None:
    code = (
        "import causalunet.models, causalunet.design, causalunet.registry as registry\n"
        "assert registry._announced.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(cu.__file__).parents[1])


def test_what_is_asked_for_is_imported() -> None:
    fill = Fill.from_json(FLIP)
    assert (type(fill).__module__, fill.to_json()) == ("guests.flip", FLIP)
    item = Intervention.from_json(FLIP_SKIP)
    assert [edit.fill for edit in item.edits()] == [fill]
    assert "guests.tiny" not in sys.modules, "only what is asked for"


def test_a_model_needs_no_decorator() -> None:
    assert load_model("guests.tiny").name == "guests.tiny"
    study = cu.Study(
        name="s", model="guests.tiny", prompts=["a red circle"], interventions=[cu.SkipSteps(cu.Window(2, 1))]
    )
    assert study.plan(calibrate=False).samples == 1


@pytest.mark.thorough
def test_a_study_of_a_guest_runs_and_is_opened_by_a_process_that_has_not_imported_it(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = cu.Study(
        name="s",
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=4),
        interventions=[Intervention.from_json(FLIP_SKIP), cu.Edit("mid", cu.Window(3, 2), Fill.from_json(FLIP))],
    )
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert results.verify(quiet=True).exit_code == 0
    assert float(results.outcomes.ssim.sel(kind="guests.flip_skip").squeeze()) < 1
    root, command = (
        Path(cu.__file__).parents[1],
        [sys.executable, "-m", "causalunet", "verify", str(tmp_path / "s.zarr")],
    )
    for path, status in ((f"{PLUGINS}:{root}", Exit.DONE), (str(root), Exit.UNCHECKED)):
        monkeypatch.setenv("PYTHONPATH", path)
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ran.returncode == status, ran.stdout + ran.stderr
    assert "guests.flip" in ran.stdout, "without the package they are named"
    np.testing.assert_array_equal(cu.open_results(tmp_path / "s.zarr").outcomes.status, 1)


@pytest.mark.thorough
def test_an_outcome_is_measured_added_judged_and_drawn(tiny_model: TextToImage, tmp_path: Path) -> None:
    edge_loss = Outcome.from_json({"name": "guests.edge_loss", "configuration": {"least": 0.01}})
    assert check_outcome(edge_loss)
    options: dict[str, Any] = {
        "name": "s",
        "prompts": ["a red circle"],
        "seeds": [0, 1, 2],
        "sampler": cu.DDPM(steps=4),
        "interventions": cu.sweep(cu.AblateBlock, bottom=2, start=(4, 3), length=1),
    }
    named = cu.Study(outcomes=[edge_loss], **options)
    measured = named.run(tmp_path / "named.zarr", model=tiny_model, progress=False)
    plain = cu.Study(**options).run(tmp_path / "plain.zarr", model=tiny_model, progress=False)
    added = plain.add_outcome(edge_loss, progress=False)
    np.testing.assert_allclose(added.outcomes["guests.edge_loss"], measured.outcomes["guests.edge_loss"], atol=1e-6)
    assert added.verify(quiet=True, deep=True).exit_code == 0
    effects = cu.analysis.effects(added, edge_loss, threshold=0.1, resamples=99)
    assert (effects.attrs["better"], effects.sizes["intervention"]) == ("lower", 3)
    figure = cu.report.plot_trend(added, {"kind": "ablate_block"}, variable=edge_loss)
    assert figure.axes[0].get_ylabel().startswith("edge loss\n")


def test_guests_pass_the_kit_that_is_there_for_them(tiny_model: TextToImage) -> None:
    assert check_fill(Fill.from_json(FLIP))
    assert check_intervention(Intervention.from_json(FLIP_SKIP), anatomy=tiny_model.anatomy, steps=4)
    assert check_sampler(Sampler.from_json({"name": "guests.dpmpp_2m", "configuration": {"steps": 8}}))


def two_m(model: TextToImage, *, absent: tuple[int, ...]) -> Any:
    """One image by DPM-Solver++(2M), unguided, with diffusers' scheduler on the steps that are called."""
    schedule = Schedule.spaced(model.alpha_bar, 8)
    called = [step for step in range(8, 0, -1) if step not in absent]
    scheduler = DPMSolverMultistepScheduler(
        1000,
        beta_schedule="squaredcos_cap_v2",
        algorithm_type="dpmsolver++",
        solver_order=2,
        lower_order_final=False,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=[schedule.timestep(step) for step in called])
    shares = torch.tensor([schedule.alpha_bar(step) for step in (*called, 0)], dtype=torch.float64)
    scheduler.sigmas = ((1 - shares) / shares).sqrt()
    x = torch.from_numpy(step_noise((0,), 0, model.image_shape)).double()
    context = model.encode(["a red circle"])
    for timestep in scheduler.timesteps:
        with torch.no_grad():
            eps = model.unet(x.float(), timestep[None].float(), *context).double()[:, :3]
        share = schedule.alpha_bar(8 - schedule.timesteps[::-1].index(int(timestep)))
        x0 = ((x - (1 - share) ** 0.5 * eps) / share**0.5).clamp(-1, 1)
        x = scheduler.step((x - share**0.5 * x0) / (1 - share) ** 0.5, timestep, x).prev_sample
    return (x[0].clamp(-1, 1) + 1) / 2


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_sampler_that_looks_back_is_one_file(tiny_model: TextToImage, tmp_path: Path) -> None:
    """Its history is forked with the state, and made again from stored baselines where a study grows."""
    sampler = Sampler.from_json({"name": "guests.dpmpp_2m", "configuration": {"steps": 8, "guidance_scale": 1.0}})
    assert type(sampler).__module__ == "guests.multistep"

    def run(path: Path, *windows: cu.Window) -> Any:
        interventions = [cu.SkipSteps(window) for window in windows]
        study = cu.Study(name="s", prompts=["a red circle"], sampler=sampler, interventions=interventions)
        return study.run(path, model=tiny_model, progress=False)

    early, late = cu.Window(6, 2), cu.Window(3, 1)
    whole = run(tmp_path / "whole.zarr", early, late)
    for row, absent in enumerate([(6, 5), (3,)]):
        expected = two_m(tiny_model, absent=absent)
        np.testing.assert_allclose(whole.outcomes.image[row, 0], expected, rtol=0, atol=1e-5)
    run(tmp_path / "grown.zarr", early)
    grown = run(tmp_path / "grown.zarr", early, late)
    late_images = [found.outcomes.image.sel(start=3, kind="skip_steps") for found in (grown, whole)]
    np.testing.assert_allclose(*late_images, rtol=0, atol=1e-5)
    assert grown.verify(quiet=True, deep=True).exit_code == 0
    with SAMPLERS.scoped(**{"guests.dpmpp_2m": None}):
        sys.modules["guests.multistep"] = None  # type: ignore[assignment]
        found = cu.open_results(tmp_path / "grown.zarr").verify(quiet=True)
        assert found.exit_code == 4
        assert "the sampler 'guests.dpmpp_2m'" in found.verdict


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("guests.gone", "cannot be imported: ModuleNotFoundError: No module named 'guests.gone'"),
        ("guests.twin", "does not go by that name: guests.flip.Flip is registered under another, or none"),
        ("stray", "is not named after the package; there it should be called guests.stray"),
    ],
)
def test_what_a_package_announces_wrongly_is_told(name: str, said: str) -> None:
    with pytest.raises(PluginError, match=f"The fill '{name}', which the package guests announces as .*{said}"):
        Fill.from_json({"name": name, "configuration": {}})


def test_a_store_of_a_fill_that_cannot_be_imported_is_read_and_told_as_that(
    tiny_model: TextToImage, tmp_path: Path
) -> None:
    study = cu.Study(
        name="s",
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=4),
        interventions=[cu.Edit("mid", cu.Window(3, 2), Fill.from_json(FLIP))],
    )
    study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    with FILLS.scoped(**{"guests.flip": None}):
        sys.modules["guests.flip"] = None  # type: ignore[assignment]
        found = cu.open_results(tmp_path / "s.zarr").verify(quiet=True)
        assert found.exit_code == 4
        assert "cannot be imported" in found.verdict


def test_nobody_else_takes_a_name_that_is_announced() -> None:
    def define() -> Any:
        return type("Other", (Fill,), {"name": "guests.flip"})

    with pytest.raises(SpecError, match=r"'guests\.flip' is announced by the package guests\. Give .*Other a name"):
        define()


def test_what_exists_is_named_where_nothing_is_found() -> None:
    with pytest.raises(SpecError, match=r"known fills: .*guests\.blend, guests\.flip, .*, zero"):
        Fill.from_json({"name": "guests.flap", "configuration": {}})
    with pytest.raises(SpecError, match=r"No fill is called 'guests\.flap'; there are .*guests\.blend, guests\.flip"):
        FILLS["guests.flap"]


def test_scoped_brings_back_what_was_there() -> None:
    before = {name: FILLS[name] for name in ("zero", "scale")}
    with FILLS.scoped(zero=None, mine=before["scale"]):
        assert "zero" not in FILLS
        assert FILLS["mine"] is before["scale"]
    assert "mine" not in FILLS
    assert FILLS["zero"] is before["zero"]
    assert json.loads(json.dumps(Fill.from_json({"name": "zero", "configuration": {}}).to_json()))
