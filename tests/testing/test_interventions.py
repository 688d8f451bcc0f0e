"""The kit tells what is wrong with a kind of intervention, and lets pass what is right."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

import causalunet as cu
from causalunet.design import Intervention
from causalunet.design.fills import FILLS
from causalunet.design.interventions import KINDS
from causalunet.errors import ConformanceError, SpecError
from causalunet.models.text_to_image import TextToImage
from causalunet.testing import check_intervention

WINDOW = cu.cut_relax_cut(9, cut=2, relax=1)
COUNTER = itertools.count(1)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with KINDS.scoped(), FILLS.scoped():
        yield


def own(edits: Callable[[Any], Any], **members: Any) -> Any:
    """One of a kind with a number and a window."""
    body = {
        "__annotations__": {"kind": ClassVar[str], "number": Any, "window": Any},
        "kind": "own",
        "edits": edits,
        **members,
    }
    kind: Any = dataclass(frozen=True)(type("Own", (Intervention,), body))
    return kind(2, WINDOW)


def plain(self: Any) -> tuple[cu.Edit, ...]:
    return (cu.Edit("mid", self.window, cu.Scale(1 / self.number)),)


def earlier(self: Any) -> tuple[cu.Edit, ...]:
    return (cu.Edit("mid", cu.Window(self.window.start + 1, 1)),)


WRONG: dict[str, tuple[Callable[[Any], Any], dict[str, Any], str, str]] = {
    "a list": (lambda s: list(plain(s)), {}, "edits", r"edits\(\) gave .*a tuple of one Edit or more"),
    "no edits": (lambda s: (), {}, "edits", r"edits\(\) gave \(\); it has to give a tuple"),
    "nothing said": (Intervention.edits, {}, "edits", r"does not say what it edits; define edits"),
    "other edits every time": (
        lambda s: (cu.Edit("mid", s.window, cu.Scale(next(COUNTER))),),
        {},
        "edits",
        r"and then something else.*The same fields have to give the same edits",
    ),
    "counted too low": (plain, {"count_edits": lambda s: 1}, "edits", r"count_edits\(\) says 1, and edits\(\) has 2"),
    "against each other": (
        lambda s: (cu.Edit("mid", s.window), cu.Edit("mid", s.window, cu.Scale(2))),
        {},
        "go together",
        r"mid at step 9 is edited twice",
    ),
    "the label is used": (
        lambda s: (cu.Edit("mid", s.window, cu.Scale(len(s.label))),),
        {},
        "digest",
        r"labelled 'under another label' it has other edits",
    ),
    "a digest of the label": (
        plain,
        {"digest": property(lambda s: f"{len(s.label):016x}")},
        "digest",
        "another digest",
    ),
    "a digest of another form": (plain, {"digest": property(lambda s: "own")}, "digest", "sixteen hexadecimal digits"),
    "outside its window": (earlier, {}, "windows", r"mid is edited at step 10, outside .*say in coordinates\(\)"),
    "coordinates of its own": (
        plain,
        {"coordinates": lambda s: {**Intervention.coordinates(s), "number": [s.number]}},
        "coordinates",
        "a store cannot hold number",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_kind_is_told(name: str) -> None:
    edits, members, check, message = WRONG[name]
    with pytest.raises(
        ConformanceError, match=rf"(?s)the kind 'own' fails 1 of 7 checks.*{check}: .*{message}"
    ) as told:
        check_intervention(own(edits, **members))
    assert [finding.check for finding in told.value.report.findings if finding.problems] == [check]


def test_all_failures_are_told_at_once() -> None:
    with pytest.raises(ConformanceError) as told:
        check_intervention(own(earlier, digest=property(lambda s: s.label)), steps=5)
    checks = [finding.check for finding in told.value.report.findings if finding.problems]
    assert checks == ["digest", "windows"]


def test_a_kind_that_is_right_passes() -> None:
    assert check_intervention(own(plain), steps=9)
    said = {**own(plain).coordinates(), "start": 10, "length": 1}
    assert check_intervention(own(earlier, coordinates=lambda s: {**said, "label": s.label, "digest": s.digest}))
    labelled = own(lambda s: (cu.Edit("mid", s.window, label=f"{s.label}, inside"),))
    assert check_intervention(labelled)


def test_fields_that_do_not_come_back_are_told() -> None:
    for number, message in (((1, 2), "came back|AttributeError"), ([1], "no hash"), (float("nan"), "ValueError")):
        item = own(lambda s: (cu.Edit("mid", s.window),))
        with pytest.raises(ConformanceError, match=f"JSON: .*({message})"):
            check_intervention(type(item)(number, WINDOW))


def test_a_kind_that_hides_another_is_told() -> None:
    with KINDS.scoped():
        item = own(plain)
    with pytest.raises(ConformanceError, match=r"Own is not what the kind of intervention 'own' stands for"):
        check_intervention(item)


def test_windows_lie_in_the_run_and_places_in_the_model(tiny_model: TextToImage) -> None:
    with pytest.raises(ConformanceError, match=r"windows: Window\(start=9, length=2\) starts above step 8"):
        check_intervention(own(plain), steps=8)
    anatomy = tiny_model.anatomy
    assert check_intervention(own(plain), anatomy=anatomy)
    assert check_intervention(cu.Null(WINDOW), anatomy=anatomy)
    with pytest.raises(ConformanceError, match=r"places: .* asks for up\.9, which this U-Net does not have"):
        check_intervention(cu.Edit("up.9", WINDOW), anatomy=anatomy)
    with pytest.raises(ConformanceError, match=r"places: .* the edit of mid could never fire"):
        check_intervention(cu.Edit("mid", WINDOW, cu.Scale(2)) + cu.AblateBlock(1, WINDOW), anatomy=anatomy)


KINDS_OF_THE_PACKAGE = [
    cu.AblateBlock(2, WINDOW, branch="cond"),
    cu.AblateSkip(2, WINDOW, label="named"),
    cu.SkipSteps(WINDOW),
    cu.Null(WINDOW),
    cu.Null(WINDOW, ["mid", "up.1"]),
    cu.Edit("mid", WINDOW, cu.Scale(0.3), "uncond"),
    cu.AblateSkip(2, cu.Window(9, 2)) + cu.SkipSteps(cu.Window(4, 1)),
]


@pytest.mark.parametrize("item", KINDS_OF_THE_PACKAGE, ids=lambda item: item.label)
def test_kinds_of_the_package_pass(item: Intervention) -> None:
    assert check_intervention(item, steps=9)


@pytest.mark.parametrize("given", [cu.AblateBlock, cu.Window(9, 2), None], ids=["class", "window", "nothing"])
def test_what_is_no_intervention(given: Any) -> None:
    with pytest.raises(SpecError, match=r"is no intervention\. Give an instance"):
        check_intervention(given)
