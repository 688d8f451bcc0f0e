"""Ten faults, planted into small models: each ends in an error that names it, or the package makes it right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import causalunet as cu
from causalunet.errors import ConformanceError, ModelError
from causalunet.testing import Conformance, check_model
from tests.models.adapters import SIZE, Adapter, adapter, around
from tests.models.joined import CUT, REFUSED, Join, anatomy_of, joined

PROMPTS = ["one", "two words"]
STUDY = cu.Study(
    name="planted",
    prompts=PROMPTS,
    sampler=cu.DDPM(steps=3, guidance_scale=2),
    interventions=[cu.AblateBlock(1, cu.Window(2, 1)), cu.AblateSkip(1, cu.Window(3, 2))],
)


def u(change: Callable[[str, Tensor], Tensor] = lambda name, h: h) -> Callable[..., Tensor]:
    """The forward of a plain U; what each module puts out goes through ``change``."""

    def forward(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
        time = timesteps[:, None] / 1000
        first = change("down.0", unet.down[0](x, time))
        second = change("down.1", unet.down[1](first, time))
        h = change("mid", unet.mid(second, time))
        h = change("up.0", unet.up[0](torch.cat([h, second], dim=1), time))
        h = change("up.1", unet.up[1](torch.cat([h, first], dim=1), time))
        return unet.out(h)

    return forward


def at(place: str, does: Callable[[Tensor], Tensor]) -> Any:
    return around(u(lambda name, h: does(h) if name == place else h))


def anatomical(change: Callable[[tuple[Any, ...]], Any]) -> Any:
    model: Any = adapter()
    model.anatomy = replace(model.anatomy, components=tuple(change(model.anatomy.components)))
    return model


def joined_by(join: Join) -> Any:
    unet = joined(join, CUT["skip last"])
    return Adapter(unet, anatomy_of(unet))


def halves_exchanged(h: Tensor) -> Tensor:
    return h.roll(len(h) // 2, dims=0)


def interleaved(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    """Samples beside each other inside, the order restored at the end: nothing to be seen from outside."""
    order = torch.arange(len(x)).reshape(-1, max(1, len(x) // 2)).T.flatten()
    return u()(unet, x[order], timesteps[order])[order.argsort()]


def exchanged_inside(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    return halves_exchanged(u()(unet, halves_exchanged(x), halves_exchanged(timesteps)))


def never_called(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    time = timesteps[:, None] / 1000
    first = unet.down[0](x, time)
    second = unet.down[1](first, time)
    h = unet.up[0](torch.cat([second * 2, second], dim=1), time)
    return unet.out(unet.up[1](torch.cat([h, first], dim=1), time))


def twice(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    unet.mid(unet.down[1](unet.down[0](x, timesteps[:, None]), timesteps[:, None]), timesteps[:, None])
    return u()(unet, x, timesteps)


def dropped_at_the_end(unet: Any, x: Tensor, timesteps: Tensor) -> Tensor:
    """Every block runs, and the output is made of what went in."""
    u()(unet, x, timesteps)
    return torch.cat([x, x], dim=1)


def kept_and_changed() -> Any:
    """The bottleneck keeps what it puts out, and that is changed in place: the same tensor, unless it is edited."""

    def join(block: Any, h: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        unet.mid.kept.mul_(2)
        return block(torch.cat([h, skip], dim=1), time)

    unet: Any = joined(join, CUT["skip last"])
    return Adapter(unet, anatomy_of(unet))


FAULTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "joins inside, from a list": (
        lambda: joined_by(REFUSED["in a list"][0]),
        "joints",
        r"skip\.1 brings what down\.1 puts out to up\.0, .*does it join inside, or come in a list\?",
    ),
    "called twice": (lambda: around(twice), "run once", r"ran 2 times in one call: down\.0, down\.1, mid\. "),
    "two components on one module": (
        lambda: anatomical(lambda parts: [parts[0], replace(parts[1], module=parts[0].module), *parts[2:]]),
        "modules",
        r"down\.0 and down\.1 are one module, 'down\.0'",
    ),
    "out of order": (
        lambda: anatomical(lambda parts: [parts[0], parts[2], parts[1], *parts[3:]]),
        "order",
        r"ran in the order down\.0, down\.1, mid, .* anatomy says down\.0, mid, down\.1",
    ),
    "never called": (lambda: around(never_called), "run once", r"ran 0 times in one call: mid\. "),
    "changed and not used": (
        lambda: at("mid", lambda h: torch.full_like(h, 0.3)),
        "joints",
        r"nothing depends on what mid puts out, .*it goes to up\.0\. .*dropped, overwritten in place",
    ),
    "changed and not used, at the end": (
        lambda: around(dropped_at_the_end),
        "reach",
        r"no place reaches the output",
    ),
    "the other half": (
        lambda: around(exchanged_inside),
        "reach",
        r"down\.0, down\.1, mid, up\.0 and 3 more: other numbers in the conditional rows \(0 and 1\) change the output "
        r"in rows 2, 3\. ",
    ),
    "interleaved halves": (
        lambda: around(interleaved),
        "reach",
        r"other numbers in the conditional rows \(0 and 1\) change the output in rows 2\. ",
    ),
    "overwritten afterwards": (
        lambda: at("mid", lambda h: h.copy_(torch.ones_like(h))),
        "joints",
        r"nothing depends on what mid puts out",
    ),
    "overwritten afterwards, a skip connection": (
        lambda: at("down.1", lambda h: h.mul_(2)),
        "joints",
        r"skip\.1 .*channels 4-7 of argument 0 .*not equal to it",
    ),
    "overwritten afterwards, through another name": (
        kept_and_changed,
        "null",
        r"^mid: taking the value out",
    ),
    "another shape, of a component": (
        lambda: anatomical(lambda parts: [*parts[:2], replace(parts[2], shape=(9, SIZE, SIZE)), *parts[3:]]),
        "shapes",
        r"mid of the model 'adapted' puts out \(4, 12, 12\), .*anatomy says \(9, 12, 12\)",
    ),
    "another shape, of the U-Net": (
        lambda: around(lambda unet, x, t: u()(unet, x, t)[..., :6]),
        "one call",
        r"gave \(4, 6, 12, 6\); expected a tensor \(4, 6, 12, 12\)",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(name: str) -> None:
    build, check, message = FAULTS[name]
    with pytest.raises(ConformanceError) as told:
        check_model(build(), PROMPTS)
    report: Conformance = told.value.report
    wrong = {finding.check: "; ".join(finding.problems) for finding in report.findings if finding.problems}
    assert list(wrong) == [check]
    with pytest.raises(ConformanceError, match=message):
        raise ConformanceError(wrong[check])


@pytest.mark.parametrize("name", [name for name, (_, check, _) in FAULTS.items() if check not in ("reach", "null")])
def test_a_study_refuses_it_before_it_runs(name: str, tmp_path: Path) -> None:
    """All but what takes edits to be seen."""
    build, _, message = FAULTS[name]
    with pytest.raises(ModelError, match=message.replace("4, 6", "2, 6")):
        STUDY.run(tmp_path / "s.zarr", model=build(), progress=False)
    assert not list(tmp_path.iterdir())


RIGHT: dict[str, Callable[[], Any]] = {
    "joins inside, an argument of its own": lambda: joined_by(CUT["an argument of its own"]),
    "called by keyword": lambda: joined_by(CUT["by keyword"]),
    "skip connection first": lambda: joined_by(CUT["skip first"]),
    "path scaled in place": lambda: joined_by(CUT["path scaled"]),
    "as it should be": lambda: around(u()),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_the_package_makes_right_passes(name: str) -> None:
    """That the numbers are those of a forward that joins zeros is shown in `tests.models.test_wiring`."""
    assert check_model(RIGHT[name](), PROMPTS)


def test_a_cut_skip_connection_leaves_every_shape_as_it_is() -> None:
    """The block is given channels(path) + channels(skip connection), and the U-Net puts out what it should."""
    from causalunet.execute.call.trace import TracedUNet
    from causalunet.plan import Action, PlacedFill

    model = RIGHT["skip connection first"]()
    widths: list[int] = []
    model.unet.up[0].register_forward_pre_hook(lambda module, given: widths.append(given[0].shape[1]))
    arguments = (torch.randn(2, 3, SIZE, SIZE), torch.ones(2))
    with torch.no_grad():
        call = TracedUNet(model.unet, model.anatomy)
        output = call(Action(frozenset([PlacedFill(cu.Site("skip.1"), cu.Zero())])), arguments, 2).output
    channels = {name: part.shape[0] for name, part in model.anatomy.by_name.items()}
    assert set(widths) == {channels["mid"] + channels["down.1"]}
    assert output.shape == (2, 6, SIZE, SIZE)
