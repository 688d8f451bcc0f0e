"""Calls with a misspelt, doubled or missing value are told with what exists; signatures stay what they were."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import causalunet as cu
from causalunet import analysis, design, models
from causalunet.calls import misfit
from causalunet.errors import SpecError
from causalunet.models.openai_layout import UNetConfig
from causalunet.models.text_transformer import TextConfig

WINDOW = cu.Window(4, 2)
VALUES = sorted(
    {
        found
        for home in (cu, design, analysis, models)
        for found in (getattr(home, name) for name in home.__all__)
        if dataclasses.is_dataclass(found) and isinstance(found, type)
    }
    | {UNetConfig, TextConfig},
    key=lambda kind: kind.__qualname__,
)

MISFITS: dict[str, tuple[Callable[[], Any], str]] = {
    "misspelt": (
        lambda: cu.DDPM(guidance_scal=3),
        "DDPM has no 'guidance_scal'; is guidance_scale meant? It takes steps, guidance_scale, guidance, spacing, "
        "variance.",
    ),
    "unknown": (lambda: cu.Window(start=20, stop=15), "Window has no 'stop'. It takes start, length, stage."),
    "of a study": (
        lambda: cu.Study(name="x", prompt=["a"], interventions=[cu.AblateBlock(2, WINDOW)]),
        "Study has no 'prompt'; is prompts meant? It takes name, interventions, prompts, seeds, starts, model, "
        "sampler, record, outcomes.",
    ),
    "of an intervention": (
        lambda: cu.AblateBlock(botom=2, window=WINDOW),
        "AblateBlock has no 'botom'; is bottom meant? It takes bottom, window, branch, view, components, label.",
    ),
    "of a criterion": (lambda: cu.analysis.Criterion(treshold=0.9), "Criterion has no 'treshold'; is threshold meant?"),
    "missing": (lambda: cu.Window(20), "Window lacks length. It takes start, length, stage."),
    "several missing": (lambda: cu.Study(name="x"), "Study lacks interventions, prompts. It takes"),
    "too many": (lambda: cu.Window(20, 5, 0, 1), "Window takes at most 3 values in order; got 4. It takes start,"),
    "without a name": (lambda: cu.DDPM(50), "DDPM takes its values by name, such as steps=; got 1 without one."),
    "doubled": (lambda: cu.Window(20, 5, start=3), "Window got start twice, by its place and by its name."),
    "nothing to take": (lambda: cu.Zero(1), "Zero takes at most 0 values in order; got 1. It takes nothing."),
    "from JSON": (
        lambda: design.Intervention.from_json({"name": "ablate_block", "configuration": {"bottom": 2}}),
        "AblateBlock lacks window. It takes bottom, window, branch, view, components, label.",
    ),
    "in a sweep": (lambda: cu.sweep(cu.AblateBlock, bottom=2), "AblateBlock lacks window."),
}


@pytest.mark.parametrize(("call", "message"), MISFITS.values(), ids=MISFITS)
def test_a_call_that_does_not_fit_is_told(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        call()
    assert str(caught.value).startswith(message)


READ: dict[type[Any], tuple[str, ...]] = {cu.FromTable: ("dims", "steps")}
"""What is read into a field of another name."""


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__qualname__)
def test_every_value_that_users_make_tells_what_it_takes(kind: type[Any]) -> None:
    with pytest.raises(SpecError) as caught:
        kind(nonsense=1)
    listed = [*(entry.name for entry in dataclasses.fields(kind) if entry.init), *READ.get(kind, ())]
    assert str(caught.value).startswith(f"{kind.__name__} has no 'nonsense'")
    assert sorted(str(caught.value).rpartition("It takes ")[2].rstrip(".").split(", ")) == sorted(listed or ["nothing"])


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__qualname__)
def test_signatures_are_those_of_the_fields(kind: type[Any]) -> None:
    parameters = list(inspect.signature(kind).parameters.values())
    if kind in (
        cu.Channels,
        cu.Heads,
        cu.Queries,
        cu.Tokens,
    ):  # Channels(0, 1) reads as it is meant; the rest is put into the one field
        assert parameters.pop(0).kind is inspect.Parameter.VAR_POSITIONAL
    listed = [*(entry.name for entry in dataclasses.fields(kind) if entry.init), *READ.get(kind, ())]
    assert sorted(entry.name for entry in parameters) == sorted(listed)
    assert not any(entry.kind in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD) for entry in parameters)


@pytest.mark.parametrize("made", [list, tuple, iter], ids=lambda made: made.__name__)
def test_what_is_given_as_any_iterable_is_held_as_a_tuple(made: Callable[[Any], Any]) -> None:
    cut, stop = cu.AblateBlock(2, WINDOW), cu.SkipSteps(cu.Window(9, 2))
    study = cu.Study(
        name="x",
        prompts=made(["a", "b"]),
        seeds=made(range(3)),
        interventions=made([cut]),
        sampler=cu.DDPM(steps=9),
        record=cu.Record(activations=made(["mid"]), summary=made(["up.*"]), steps=made([3, 9])),
    )
    assert (study.prompts, study.seeds) == (("a", "b"), (0, 1, 2))
    assert study.interventions[0] == cut
    assert (study.record.activations, study.record.summary, study.record.steps) == (("mid",), ("up.*",), (9, 3))
    assert cu.Windows(made([cu.Window(9, 2), WINDOW])).parts == (cu.Window(9, 2), WINDOW)
    assert cu.Composition(made([cut, stop])) == cut + stop
    assert cu.Null(WINDOW, made(["mid", "skip.0"])).components == ("mid", "skip.0")


def test_one_value_stands_for_a_list_of_one() -> None:
    study = cu.Study(name="x", prompts="a", interventions=cu.AblateBlock(2, WINDOW))
    assert study == cu.Study(name="x", prompts=["a"], interventions=[cu.AblateBlock(2, WINDOW)])
    assert cu.Windows(WINDOW).parts == (WINDOW,)


def test_a_study_that_is_given_no_sampler_or_record_has_the_default_ones() -> None:
    study = cu.Study(name="x", prompts="a", interventions=cu.AblateBlock(2, WINDOW))
    assert (study.sampler, study.record, study.model, study.seeds) == (cu.DDPM(), cu.Record(), "shapes", None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.name = "y"
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.other = "y"


def test_a_type_error_from_within_stays_what_it_is() -> None:
    class Odd(str):
        __slots__ = ()

        def strip(self, *_: object) -> str:
            raise TypeError("from within")

    with pytest.raises(TypeError, match="from within"):
        cu.Study(name="x", prompts=[Odd("a")], interventions=[cu.AblateBlock(2, WINDOW)])


def test_values_are_copied_and_pickled_as_before() -> None:
    made = cu.AblateBlock(2, WINDOW) + cu.SkipSteps(cu.Window(9, 2))
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert dataclasses.replace(cu.DDPM(steps=5), steps=6) == cu.DDPM(steps=6)


def test_a_signature_that_takes_any_name_misses_none() -> None:
    def loader(path: str, *rest: int, **options: int) -> None: ...

    takes = inspect.signature(loader)
    assert misfit("loader", takes, ("here", 1, 2), {"device": 3}) == ""
    assert misfit("loader", takes, (), {"device": 3}) == "loader lacks path. It takes path."
