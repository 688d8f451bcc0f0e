"""The kit tells what is wrong with a fill, and lets pass what is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import causalunet as cu
from causalunet.design import Fill, Jump
from causalunet.design.fills import FILLS
from causalunet.errors import ConformanceError, SpecError
from causalunet.testing import check_fill


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with FILLS.scoped():
        yield


def own(apply: Callable[[Any, Any], Any] | None, **members: Any) -> Fill:
    methods = {} if apply is None else {"apply": apply}
    kind: Any = type("Own", (Fill,), {"name": "own", **methods, **members})
    return dataclass(frozen=True)(kind)()


def found(fill: Fill, **options: Any) -> dict[str, str]:
    """Problems by check."""
    with pytest.raises(ConformanceError) as told:
        check_fill(fill, **options)
    report = told.value.report
    assert not report
    assert all(problem in str(told.value) for problem in report.problems)
    assert str(told.value).count("\n") == len(report.problems)
    return {finding.check: "; ".join(finding.problems) for finding in report.findings if finding.problems}


def written_in_place(self: Any, value: Any) -> Any:
    value[:, 0] = 0
    return value.clone()


def random(self: Any, value: Any) -> Any:
    return value + torch.randn_like(value)


def seeded(self: Any, value: Any) -> Any:
    torch.manual_seed(0)
    return value + torch.randn_like(value[:1])


def by_place(self: Any, value: Any) -> Any:
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return value + noise.to(value)


def same_for_all_rows(self: Any, value: Any) -> Any:
    noise = torch.randn(value.shape[1:], generator=torch.Generator().manual_seed(0))
    return value + noise.to(value)


WRONG: dict[str, tuple[Callable[[Any, Any], Any] | None, dict[str, Any], str, str]] = {
    "no apply": (None, {}, "registered", r"Own does not say what it puts in place: give the class apply"),
    "another shape": (
        lambda s, v: v.mean((-2, -1), keepdim=True),
        {},
        "same shape, dtype",
        r"\(3, 8, 1, 1\) float32 for",
    ),
    "another dtype": (lambda s, v: v.float(), {}, "same shape, dtype", r"gave \(3, 8, 6, 6\) float32 for .* float16"),
    "no tensor": (lambda s, v: 0.0, {}, "same shape, dtype", r"gave a float for \(3, 8, 6, 6\) float32"),
    "an error": (lambda s, v: v.view(-1).view(v.shape) + 1, {}, "same shape, dtype", r"ended in RuntimeError: view"),
    "the value itself": (lambda s, v: v, {}, "a new tensor", r"shares memory with the value.*\.clone\(\)"),
    "a view of it": (lambda s, v: v.view_as(v), {}, "a new tensor", r"shares memory with the value"),
    "expanded": (
        lambda s, v: v.mean((-2, -1), keepdim=True).expand_as(v),
        {},
        "a new tensor",
        r"several numbers in one place of memory.*\.clone\(\)",
    ),
    "written in place": (written_in_place, {}, "value untouched", r"wrote into the value, \(3, 8, 6, 6\) float32"),
    "random": (random, {}, "repeatable", r"something else the second time.*a seed that is a field"),
    "the user's random numbers": (seeded, {}, "repeatable", r"PyTorch's random numbers, which are the user's"),
    "mean over rows": (lambda s, v: v * 0 + v.mean(0), {}, "rows apart", r"row 0 of .* beside other rows than alone"),
    "noise by place in the batch": (by_place, {}, "rows apart", r"row 1 of .* beside other rows than alone"),
    "not finite": (
        lambda s, v: v / v.abs().amax((1, 2, 3), keepdim=True),
        {},
        "finite",
        r"not finite for zeros, .*before dividing",
    ),
    "severs and does not": (lambda s, v: v * 0.5, {"severs": True}, "severs", r"severs = True, and .* depends on"),
    "another device": (
        lambda s, v: torch.zeros(v.shape, dtype=v.dtype),
        {},
        "device",
        r"gave a tensor on cpu for one on",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_fill_is_told(name: str) -> None:
    apply, members, check, message = WRONG[name]
    problems = found(own(apply, **members))
    assert check in problems
    with pytest.raises(ConformanceError, match=rf"(?s)the fill 'own' fails .*{check}: .*{message}"):
        check_fill(own(apply, **members))


@pytest.mark.parametrize("name", ["another shape", "random", "not finite", "severs and does not", "expanded"])
def test_one_failure_is_one_line(name: str) -> None:
    apply, members, check, _ = WRONG[name]
    assert list(found(own(apply, **members))) == [check]


def test_all_failures_are_told_at_once() -> None:
    def apply(self: Any, value: Any) -> Any:
        value /= value.norm()
        return value

    problems = found(own(apply))
    assert {"a new tensor", "value untouched", "rows apart", "finite"} <= problems.keys()


def test_what_needs_a_failed_check_is_not_made() -> None:
    with pytest.raises(ConformanceError) as told:
        check_fill(own(random))
    left = {finding.check for finding in told.value.report.findings if finding.unchecked}
    assert left == {"rows apart", "severs"}
    assert "2 not made before these are mended" in str(told.value)


@pytest.mark.parametrize(
    "apply",
    [
        same_for_all_rows,
        lambda self, value: value.mean((-2, -1), keepdim=True).expand_as(value).clone(),
        lambda self, value: (value - value.mean((1, 2, 3), keepdim=True)) * value.norm().item() * 0 + value,
    ],
    ids=["noise that is the same for all rows", "spatial mean", "numbers taken out"],
)
def test_what_is_right_passes(apply: Callable[[Any, Any], Any]) -> None:
    assert check_fill(own(apply))


@pytest.mark.parametrize("fill", [cu.Zero(), cu.Identity(), cu.Scale(0.3), Jump()], ids=lambda fill: fill.name)
def test_fills_of_the_package_pass(fill: Fill) -> None:
    report = check_fill(fill)
    assert report
    assert "passes" in str(report)
    assert "ok" in str(report)
    assert "\n" not in repr(report)


def test_a_fill_leaves_its_random_numbers_alone_while_checked() -> None:
    state = torch.get_rng_state()
    found(own(seeded))
    found(own(random))
    check_fill(cu.Scale(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_values_of_ones_own() -> None:
    """A fill may be made for one shape."""
    fill = own(lambda self, value: value * torch.arange(16.0)[:, None, None])
    assert "same shape, dtype" in found(fill)
    assert check_fill(fill, values=[torch.randn(2, 16, 4, 4)])
    for wrong in ([torch.randn(1, 16, 4, 4)], [torch.randn(2, 16)], [3]):
        with pytest.raises(SpecError, match="two rows or more"):
            check_fill(fill, values=wrong)  # type: ignore[arg-type]


def test_what_is_no_field_does_not_come_back() -> None:
    @dataclass(frozen=True)
    class Kept(Fill):
        name = "kept"
        factor: float = field(default=1.0)
        shape: Any = None

        def apply(self, value: Any) -> Any:
            return value * self.factor

    assert check_fill(Kept(2.0))
    assert "came back from JSON as" in found(Kept(2.0, (1, 2)))["JSON"]
    assert "no hash" in found(Kept(2.0, [1, 2]))["JSON"]  # type: ignore[arg-type]
    assert "cannot be written as JSON (ValueError" in found(Kept(float("nan")))["JSON"]
    assert "cannot be written as JSON (TypeError" in found(Kept(torch.float32))["JSON"]  # type: ignore[arg-type]


def test_a_fill_without_a_name_of_its_own() -> None:
    class Heir(cu.Scale):  # a Scale that is written as one, and read back as one
        name = ""

    assert "has no name that results know it by" in found(Heir(2.0))["registered"]
    with FILLS.scoped(own=cu.Scale):
        assert "not what the fill 'own' stands for" in found(own_unregistered())["registered"]


def own_unregistered() -> Fill:
    with FILLS.scoped(own=None):
        return own(lambda self, value: value + 1)


@pytest.mark.parametrize("given", [cu.Zero, 3, None], ids=str)
def test_what_is_no_fill(given: Any) -> None:
    with pytest.raises(SpecError, match=r"is no fill\. Give an instance"):
        check_fill(given)
