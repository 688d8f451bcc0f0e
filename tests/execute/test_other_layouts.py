"""Networks that are no plain U: without skip connections, without a bottleneck, or without both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.design import Null
from causalunet.errors import ComponentError
from tests.models.adapters import Adapter, adapter

LAYOUTS = {
    "a plain U": ({"skips": True, "middle": True}, ("mid", "skip.0")),
    "no skips": ({"skips": False, "middle": True}, ("mid",)),
    "no bottleneck": ({"skips": True, "middle": False}, ("up.0", "skip.0")),
    "neither": ({"skips": False, "middle": False}, ("up.0",)),
}


def study(*interventions: cu.design.Intervention) -> cu.Study:
    return cu.Study(
        name="layouts",
        prompts=["one", "two"],
        sampler=cu.DDPM(steps=4, guidance_scale=1),
        interventions=interventions or [cu.Edit("down.1", cu.Window(3, 2))],
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_network_gets_a_null_intervention_that_it_has_places_for(name: str, tmp_path: Path) -> None:
    options, places = LAYOUTS[name]
    model: Any = adapter(**options)
    asked = study()
    results = asked.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    declared = results["audit"].to_dataset().declared.sel(intervention="null 3-2").sum("step")
    assert {str(place) for place in declared.place.values if int(declared.sel(place=place))} == set(places)
    assert float(results.outcomes.ssim.sel(kind="null").min()) == 1
    assert float(results.outcomes.ssim.sel(kind="edit").max()) < 1
    # The same call goes on with it, so does the study that the store holds, and it can grow.
    commits = len(results.history())
    assert len(asked.run(tmp_path / "s.zarr", model=model, progress=False).history()) == commits
    stored = cu.Study.from_json(results.attrs["study"])
    assert len(stored.run(tmp_path / "s.zarr", model=model, progress=False).history()) == commits
    grown = study(*asked.interventions, cu.SkipSteps(cu.Window(2, 1)))
    assert grown.run(tmp_path / "s.zarr", model=model, progress=False).verify(quiet=True)


def test_a_plain_u_keeps_the_digests_of_its_null_interventions() -> None:
    null = Null(cu.Window(4, 2))
    assert null.to_json()["configuration"].keys() == {"window", "label"}
    model: Any = adapter()
    assert study().plan(model, calibrate=False).spec.digest == study().digest


def test_a_null_intervention_can_name_its_places(tmp_path: Path) -> None:
    null = Null(cu.Window(4, 2), components=["down.0", "up.1"])
    assert null == cu.design.Intervention.from_json(null.to_json())
    assert [edit.component for edit in null.edits()] == ["down.0", "up.1"]
    assert null.label == "null 4-3"
    model: Any = adapter(skips=False, middle=False)
    results = study(null, cu.SkipSteps(cu.Window(2, 1))).run(tmp_path / "s.zarr", model=model, progress=False)
    assert set(results["audit"].place.values) == {"down.0", "up.1", "unet"}
    inside = study(null + cu.Edit("down.1", cu.Window(2, 1)), Null(cu.Window(3, 1)) + cu.SkipSteps(cu.Window(1, 1)))
    places = {
        edit.component for item in inside.plan(model, calibrate=False).spec.interventions for edit in item.edits()
    }
    assert places == {"down.0", "up.1", "down.1", "up.0", "unet"}


@pytest.mark.parametrize("components", [("unet",), ("../x",), 3, (3,), "mid"])
def test_places_of_a_null_intervention_are_names(components: Any) -> None:
    if components == "mid":
        assert Null(cu.Window(4, 2), components=components).components == ("mid",)
        return
    with pytest.raises(cu.CausalUNetError, match="Null got components="):
        Null(cu.Window(4, 2), components=components)


def test_what_a_network_lacks_is_told_with_what_it_has() -> None:
    plain: Any = adapter(skips=False, middle=False)
    has = r"It has down\.0 \.\.\. down\.1, up\.0 \.\.\. up\.1 and no skip connections\.$"
    for item in (
        cu.AblateSkip(1, cu.Window(3, 1)),
        cu.Edit("mid", cu.Window(3, 1)),
        cu.AblateBlock(3, cu.Window(3, 1)),
    ):
        with pytest.raises(ComponentError, match=has):
            study(item).plan(plain, calibrate=False)
    assert study(cu.AblateBlock(2, cu.Window(3, 1))).plan(plain, calibrate=False).unet_calls


def test_a_network_without_skips_can_be_cut(tmp_path: Path) -> None:
    """Against hooks, one row at a time: cut blocks and what feeds them make no difference."""
    model: Any = adapter(skips=False, middle=False)
    always = cu.Window(4, 4)
    cut = study(cu.AblateBlock(1, always)).run(tmp_path / "cut.zarr", model=model, progress=False)
    hooked: Adapter = adapter(skips=False, middle=False)
    hooked.unet.up[0].register_forward_hook(lambda _m, _i, output: torch.zeros_like(output))  # type: ignore[index,union-attr]
    whole = study().run(tmp_path / "hooked.zarr", model=hooked, progress=False)  # type: ignore[arg-type]
    image = cut.outcomes.image.sel(kind="ablate_block").values[0]
    np.testing.assert_allclose(image, whole.baseline.image.values, rtol=0, atol=1e-6)
    assert np.abs(image - cut.baseline.image.values).max() > 1e-3
