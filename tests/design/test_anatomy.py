"""The U as a graph: what is dead when edges are cut, which components exist, which edits could never fire."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causalunet.design import AblateBlock, AblateSkip, Anatomy, Edit, Identity, Intervention, Null, Scale, Window
from causalunet.design.anatomy import u_edges
from causalunet.design.interventions import Composition
from causalunet.errors import ComponentError, SpecError
from causalunet.models.glide import GLIDE_CONFIG
from causalunet.models.openai_anatomy import read_anatomy
from causalunet.models.openai_layout import TextUNet
from causalunet.models.shapes import SHAPES_CONFIG
from causalunet.models.text_to_image import TextToImage
from tests.design.examples import BLOCKS, dead_by_search, interventions, u_anatomy

WINDOW = Window(9, 2)

U16 = u_anatomy(16)
"""As many blocks as the embedded model and GLIDE's base model have."""


def graph(anatomy: Anatomy) -> list[tuple[str, str, str]]:
    """The edges, wherever they enter."""
    return [(edge.source, edge.target, edge.name) for edge in anatomy.edges]


@st.composite
def severed_anatomies(draw: st.DrawFn) -> tuple[Anatomy, set[str]]:
    anatomy = u_anatomy(draw(st.integers(1, 5)))
    places = [*anatomy.by_name, *anatomy.skips]
    return anatomy, draw(st.sets(st.sampled_from(places), max_size=6))


@given(severed_anatomies())
def test_dead_is_what_no_path_leads_on_from(case: tuple[Anatomy, set[str]]) -> None:
    anatomy, severed = case
    assert anatomy.dead(severed) == dead_by_search(anatomy, severed)


@pytest.mark.parametrize("bottom", range(1, 17))
def test_ablating_blocks_leaves_all_below_dead(bottom: int) -> None:
    """The paper's figure 2b: the bottom n decoder blocks, the bottleneck and the n deepest encoder blocks go."""
    dead = U16.dead(U16.severed(AblateBlock(bottom, WINDOW).edits()))
    expected = {"mid", *(f"up.{i}" for i in range(bottom)), *(f"down.{i}" for i in range(16 - bottom, 16))}
    assert dead == expected
    assert U16.live_flops(dead) == U16.flops - sum(U16.by_name[name].flops for name in expected)


@pytest.mark.parametrize("top", [1, 8, 16])
def test_ablating_skips_leaves_nothing_dead(top: int) -> None:
    assert U16.dead(U16.severed(AblateSkip(top, WINDOW).edits())) == set()


@pytest.mark.parametrize("branch", ["cond", "uncond"])
def test_half_a_batch_severs_nothing(branch: str) -> None:
    assert U16.severed(AblateBlock(2, WINDOW, branch).edits()) == set()
    assert U16.severed([Edit("mid", WINDOW, Scale(0.0)), Edit("skip.0", WINDOW, Identity())]) == set()


def test_all_skips_and_the_bottleneck_leave_the_encoder_dead() -> None:
    severed = {"mid", *(f"skip.{i}" for i in range(16))}
    assert U16.dead(severed) == {"mid", *(f"down.{i}" for i in range(16))}


@pytest.mark.parametrize("config", [SHAPES_CONFIG, GLIDE_CONFIG], ids=["shapes", "glide"])
def test_graph_is_that_of_the_models(config: object) -> None:
    with torch.device("meta"):
        anatomy = read_anatomy(TextUNet(config))
    assert graph(anatomy) == graph(U16)
    assert all(edge.port is not None for edge in anatomy.skips.values()), "the last channels of each block"
    assert [component.name for component in anatomy.components] == list(U16.by_name)
    assert [component.role for component in anatomy.components] == [component.role for component in U16.components]


def test_edges_of_a_u() -> None:
    edges = {(edge.source, edge.target): edge.name for edge in u_edges(2, 2)}
    assert edges == {
        ("down.0", "down.1"): "",
        ("down.1", "mid"): "",
        ("mid", "up.0"): "",
        ("up.0", "up.1"): "",
        ("up.1", "out"): "",
        ("down.0", "up.1"): "skip.0",
        ("down.1", "up.0"): "skip.1",
    }
    with pytest.raises(SpecError, match="as many decoder as encoder blocks; got 3, 2"):
        u_edges(3, 2)


def test_lookups() -> None:
    assert list(U16.skips) == [f"skip.{i}" for i in range(16)]
    assert [component.name for component in U16.decoder] == [f"up.{i}" for i in range(16)]
    edge = U16.skip_into("up.15")
    assert edge is not None
    assert (edge.source, edge.name) == ("down.0", "skip.0")
    assert U16.skip_into("mid") is None
    assert set(U16.consumers("down.3")) == {"down.4", "up.12"}
    assert U16.consumers("up.15") == ("out",)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), ()),
        (("mid",), ("mid",)),
        (("up.1",), ("up.1",)),
        (("up.*", "mid"), ("mid", "up.0", "up.1", "up.2", "up.3")),
        (("up.[12]", "down.?", "down.0"), ("down.0", "down.1", "down.2", "down.3", "up.1", "up.2")),
        (("*",), tuple(u_anatomy().by_name)),
    ],
)
def test_select(patterns: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert u_anatomy().select(patterns) == names


@pytest.mark.parametrize("pattern", ["up.4", "Mid", "skip.0", "up", ""])
def test_select_names_what_exists(pattern: str) -> None:
    listing = "The model has down.0 ... down.3, mid, up.0 ... up.3 and skip.0 ... skip.3"
    with pytest.raises(ComponentError, match=re.escape(f"No component matches {pattern!r}. {listing}")):
        u_anatomy().select(("mid", pattern))


@pytest.mark.parametrize(
    ("intervention", "component"),
    [
        (AblateSkip(17, WINDOW), "skip.16"),
        (AblateBlock(17, WINDOW), "up.16"),
        (Edit("down.16", WINDOW), "down.16"),
        (Edit("middle", WINDOW), "middle"),
        (Null(WINDOW) + Edit("skip.99", Window(3, 1)), "skip.99"),
    ],
)
def test_check_names_what_exists(intervention: Intervention, component: str) -> None:
    with pytest.raises(ComponentError) as caught:
        U16.check(intervention)
    nearest = " Nearest: mid." if component == "middle" else ""
    assert str(caught.value) == (
        f"{intervention.label!r} asks for {component}, which this U-Net does not have. "
        f"It has down.0 ... down.15, mid, up.0 ... up.15 and skip.0 ... skip.15.{nearest}"
    )


def test_the_most_that_exists_is_accepted() -> None:
    for intervention in (AblateSkip(16, WINDOW), AblateBlock(16, WINDOW), Null(WINDOW)):
        U16.check(intervention)


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (
            AblateBlock(2, WINDOW) + AblateSkip(16, WINDOW),
            r"At step 9 the edit of skip\.1[45] could never fire: up\.[01] is dead, because .*up\.1 is replaced",
        ),
        (AblateBlock(4, WINDOW) + AblateBlock(2, WINDOW), r"edit of up\.1 could never fire: up\.1 is dead"),
        (AblateBlock(4, WINDOW) + Edit("up.2", WINDOW, Scale(2.0)), r"edit of up\.2 could never fire"),
        (
            AblateBlock(1, WINDOW) + Null(WINDOW),
            r"edit of mid could never fire: mid is dead, because up\.0 is replaced",
        ),
        (AblateBlock(1, Window(20, 3)) + Null(Window(18, 9)), "At step 18 the edit of mid could never fire"),
    ],
)
def test_an_edit_that_could_never_fire(intervention: Intervention, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        U16.check(intervention)


@pytest.mark.parametrize(
    "intervention",
    [
        AblateBlock(2, WINDOW) + AblateSkip(14, WINDOW),
        AblateBlock(2, WINDOW) + Edit("up.2", WINDOW, Scale(2.0)),
        AblateBlock(2, WINDOW, "cond") + AblateSkip(16, WINDOW),
        AblateBlock(1, Window(20, 3)) + Null(Window(17, 9)),
        Edit("mid", WINDOW) + AblateSkip(16, WINDOW),
        Edit("down.15", WINDOW) + Edit("skip.15", WINDOW, Scale(2.0)),
    ],
)
def test_edits_that_fire_together(intervention: Composition) -> None:
    U16.check(intervention)


@given(interventions())
def test_parts_at_different_steps_are_always_possible(intervention: Intervention) -> None:
    u_anatomy(BLOCKS).check(intervention)


def test_tiny_model_has_the_same_kind_of_graph(tiny_model: TextToImage) -> None:
    assert graph(tiny_model.anatomy) == graph(u_anatomy(BLOCKS))


@pytest.mark.parametrize("steps", [100, 1000])
def test_checking_walks_over_each_window_once(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once per step, or studies of many steps took minutes to plan."""
    walked, searched, walk, search = [], [], Window.__iter__, Anatomy.dead
    intervention = AblateSkip(3, Window(steps, steps)) + AblateBlock(2, Window(steps // 2, 9))
    monkeypatch.setattr(Window, "__iter__", lambda window: walked.append(window) or walk(window))
    monkeypatch.setattr(Anatomy, "dead", lambda anatomy, *places: searched.append(places) or search(anatomy, *places))
    U16.check(intervention)
    assert not walked, "windows are compared by their ends"
    assert len(searched) == 2, "what is dead is searched for once per set of edits"


def test_the_first_step_at_which_an_edit_cannot_fire_is_told() -> None:
    windows = Window(90, 2), Window(50, 2)
    item = Composition(tuple(AblateBlock(1, window) + Edit("mid", window, Scale(2.0)) for window in windows))
    with pytest.raises(SpecError, match=r"^At step 90 the edit of mid could never fire"):
        U16.check(item)
