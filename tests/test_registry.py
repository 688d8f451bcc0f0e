"""Names of kinds, fills and models: one means one thing, whatever a user defines."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import causalunet as cu
from causalunet.design import Fill, Intervention, Zero
from causalunet.design.fills import FILLS
from causalunet.design.interventions import KINDS
from causalunet.errors import CausalUNetError, ModelError, SpecError
from causalunet.models.base import MODELS
from causalunet.registry import Registry

ZEROED = cu.Edit("mid", cu.Window(5, 2))


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is gone after it."""
    with FILLS.scoped(), KINDS.scoped(), MODELS.scoped():
        yield


def define(cls: type, attribute: str, name: Any) -> Callable[[], Any]:
    """Define a class as a user does, in one place: as a cell of a notebook that is run once or twice."""

    def run_the_cell() -> Any:
        return dataclass(frozen=True, slots=True)(type("Mine", (cls,), {attribute: name}))

    return run_the_cell


@pytest.mark.parametrize("name", ["zero", "identity", "scale", "jump"])
def test_a_fill_cannot_take_a_name_of_the_package(name: str) -> None:
    with pytest.raises(SpecError, match=rf"The fill '{name}' is causalunet\.design\.fills\..*a name of its own"):
        define(Fill, "name", name)()
    assert Fill.from_json(Zero().to_json()) == Zero()


@pytest.mark.parametrize("kind", ["edit", "ablate_block", "composition", "null"])
def test_a_kind_cannot_take_a_name_of_the_package(kind: str) -> None:
    with pytest.raises(SpecError, match=rf"The kind of intervention '{kind}' is causalunet\.design\.\w+\."):
        define(Intervention, "kind", kind)()
    assert Intervention.from_json(ZEROED.to_json()) == ZEROED


def test_a_subclass_needs_a_name_of_its_own() -> None:
    with pytest.raises(SpecError, match=r"The fill 'zero' is causalunet\.design\.fills\.usual\.Zero; .*Twin a name of"):

        class Twin(Zero):
            pass

    with pytest.raises(SpecError, match="The kind of intervention 'skip_steps' is"):

        class Hurry(cu.SkipSteps):
            pass


def test_two_classes_of_one_name() -> None:
    define(Fill, "name", "mine")()
    with pytest.raises(SpecError, match=r"The fill 'mine' is .*\.Mine; .*Give .*\.Other a name of its own"):

        @dataclass(frozen=True, slots=True)
        class Other(Fill):
            name: ClassVar[str] = "mine"


@pytest.mark.parametrize(("cls", "attribute"), [(Fill, "name"), (Intervention, "kind")])
def test_a_cell_can_be_run_twice(cls: type, attribute: str) -> None:
    cell = define(cls, attribute, "mine")
    first, second = cell(), cell()
    assert first is not second
    registries: dict[type, Registry[Any]] = {Fill: FILLS, Intervention: KINDS}
    assert registries[cls]["mine"] is second


FILE = """
from dataclasses import dataclass
from typing import ClassVar
from causalunet.design import Fill

@dataclass(frozen=True, slots=True)
class Mine(Fill):
    name: ClassVar[str] = "mine"
"""


def test_a_file_is_the_same_under_any_module_name_and_another_file_is_not(tmp_path: Path) -> None:
    for name in ("one.py", "other.py"):
        (tmp_path / name).write_text(FILE)
    runpy.run_path(str(tmp_path / "one.py"), run_name="__study__")
    runpy.run_path(str(tmp_path / "one.py"), run_name="one")
    with pytest.raises(SpecError, match="The fill 'mine' is"):
        runpy.run_path(str(tmp_path / "other.py"), run_name="__study__")


@pytest.mark.parametrize(("cls", "attribute", "what"), [(Fill, "name", "fill"), (Intervention, "kind", "kind")])
@pytest.mark.parametrize("name", [5, None, ("zero",)])
def test_names_are_text(cls: type, attribute: str, what: str, name: Any) -> None:
    with pytest.raises(SpecError, match=rf"Mine has .* for the name of a {what}.*; give text"):
        define(cls, attribute, name)()


def test_a_base_of_several_needs_no_name_and_cannot_be_used() -> None:
    fill = define(Fill, "apply", lambda self, value: 2 * value)()
    with pytest.raises(SpecError, match=r"Mine has no name .*name: ClassVar\[str\] = 'mine'"):
        cu.Edit("mid", cu.Window(5, 2), fill())
    kind = define(Intervention, "edits", lambda self: (ZEROED,))()
    with pytest.raises(SpecError, match=r"Mine has no name .*kind: ClassVar\[str\] = 'mine'"):
        kind()


def test_a_model_cannot_take_the_name_of_another() -> None:
    def load() -> Any:
        return None

    loaders = {name: MODELS[name] for name in MODELS}
    with pytest.raises(ModelError, match=r"The model 'shapes' is causalunet\.models\.shapes\.load_shapes; .*own"):
        cu.register("shapes")(load)
    for name in (None, "", 5):
        with pytest.raises(CausalUNetError, match="give text"):
            cu.register(name)(load)  # type: ignore[arg-type]
    assert loaders == {name: MODELS[name] for name in MODELS}
    cu.register("mine")(load)
    assert MODELS["mine"] is load
