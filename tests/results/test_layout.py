"""The stored form: which arrays a plan gives, their dimensions, chunks, checksums, attributes and coordinates."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.codecs import Crc32cCodec

from causalunet.bound import BoundStudy
from causalunet.design import DDPM, AblateBlock, AblateSkip, Intervention, Record, StudySpec, Window, cut_relax_cut
from causalunet.dims import DIMS
from causalunet.plan import Plan, make_plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import SOMETIMES, VARIABLES
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.design.examples import u_anatomy
from tests.results.opened import arrays_of, root_of

FACTORS = {"colour": ("red", "blue"), "shape": ("circle", "cross", "square")}
RECORDS = {
    "nothing": Record(),
    "baseline": Record(activations="up.*", summary=("mid", "down.1"), steps=(5, 2), of="baseline"),
    "all": Record(activations=("mid", "up.0"), summary="up.*", of="all", bins=(-1, 0, 0.5, 2)),
    "single precision": Record(activations="mid", steps=(1,), of="all", dtype="float32"),
}


def plan(record: Record) -> Plan:
    spec = StudySpec(
        name="study",
        prompts=["a circle", "a cross", "a square"],
        seeds=(7, 8),
        sampler=DDPM(steps=6),
        interventions=[AblateBlock(2, Window(6, 2)), AblateSkip(1, cut_relax_cut(5, cut=1, relax=2), label="mine")],
        record=record,
    )
    return make_plan(BoundStudy(spec, u_anatomy(), Schedule.spaced(cosine_alpha_bar(), 6), (3, 8, 4)))


class Created:
    """A store just laid out: its arrays by path, and those of them that stand in the schema."""

    def __init__(self, path: Path, record: Record, factors: dict[str, tuple[str, ...]] | None = None) -> None:
        self.plan = plan(record)
        layout = Layout(self.plan, {"factor": tuple(factors)} if factors else {}, block=4)
        StudyWriter.create(Location.parse(path), layout, StoreAttributes(study={"name": "mine"}))
        self.root, self.arrays = root_of(path), arrays_of(path)
        known = {(item.group, item.name): item for item in (*VARIABLES, *SOMETIMES)}
        places = {path: (general(path.rpartition("/")[0]), path.rpartition("/")[2]) for path in self.arrays}
        self.variables = {path: known[place] for path, place in places.items() if place in known}


def general(group: str) -> str:
    return "activations/*" if group.startswith("activations/") else group


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Created]:
    """One store for every record, without factors; not to be changed."""
    folder = tmp_path_factory.mktemp("layouts") / "deep"
    return {name: Created(folder / f"{name}.zarr", record) for name, record in RECORDS.items()}


@pytest.fixture(scope="module")
def with_factors(tmp_path_factory: pytest.TempPathFactory) -> Created:
    """Everything that can be stored; not to be changed."""
    return Created(tmp_path_factory.mktemp("factors") / "results.zarr", RECORDS["all"], FACTORS)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", RECORDS)
def test_every_array_is_described(stores: dict[str, Created], name: str) -> None:
    store = stores[name]
    for path, variable in store.variables.items():
        array = store.arrays[path]
        assert array.metadata.dimension_names == variable.dims, path
        better = {"better": variable.better} if variable.better else {}
        assert dict(array.attrs) == {"long_name": variable.meaning, "units": variable.units, **better}, path
        activation = path.startswith("activations/") and variable.dtype.startswith("float")
        if variable.dtype == "str":
            assert array.dtype.kind in "TO", path
        else:
            assert array.dtype == np.dtype(RECORDS[name].dtype if activation else variable.dtype), path


@pytest.mark.parametrize("name", RECORDS)
def test_every_other_array_is_a_coordinate(stores: dict[str, Created], name: str) -> None:
    store = stores[name]
    used: dict[str, set[str]] = {}
    for path, variable in store.variables.items():
        used.setdefault(path.rpartition("/")[0], set()).update(variable.dims)
    named = {group: store.root[group].attrs["coordinates"].split() for group in used}
    for path in store.arrays.keys() - store.variables.keys():
        group, _, coordinate = path.rpartition("/")
        (dim,) = store.arrays[path].metadata.dimension_names
        assert dim in used[group], path
        assert (coordinate in named[group]) != (coordinate == dim), path


def test_dimensions_have_one_order_and_a_meaning() -> None:
    order = list(DIMS)
    for variable in VARIABLES:
        assert list(variable.dims) == sorted(variable.dims, key=order.index), variable
        assert variable.meaning
        assert variable.units
    assert max(Counter((variable.group, variable.name) for variable in VARIABLES).values()) == 1


def test_what_is_stored_follows_the_record(stores: dict[str, Created]) -> None:
    names = {name: set(store.variables) for name, store in stores.items()}
    always = {path for path in names["nothing"] if not path.startswith("activation")}
    assert names["nothing"] == always
    assert names["baseline"] - always == {
        *(f"activations/up.{i}/{n}" for i in range(4) for n in ("baseline", "baseline_status")),
        *(f"activation_summary/baseline_{name}" for name in ("mean", "sd", "norm", "min", "max", "status")),
    }
    whole = ("baseline", "baseline_status", "intervened", "ran", "status")
    assert names["single precision"] - always == {f"activations/mid/{n}" for n in whole}
    summary = ("mean", "sd", "norm", "min", "max", "cosine", "ran", "status")
    assert names["all"] - always == {
        *(f"activations/{c}/{n}" for c in ("mid", "up.0") for n in whole),
        *(f"activation_summary/{name}" for name in (*summary, "histogram")),
        *(
            f"activation_summary/baseline_{name}"
            for name in ("mean", "sd", "norm", "min", "max", "histogram", "status")
        ),
    }


def test_factors_are_stored_where_a_reader_gives_them(stores: dict[str, Created], with_factors: Created) -> None:
    assert set(with_factors.variables) - set(stores["all"].variables) == {
        *(f"{group}/factor_{name}" for group in ("baseline", "outcomes") for name in ("code", "probability")),
        "outcomes/factor_changed",
    }
    assert with_factors.arrays["outcomes/factor_code"].shape == (3, 6, 2)
    assert with_factors.arrays["outcomes/factor"][:].tolist() == ["colour", "shape"]


@pytest.mark.parametrize("name", RECORDS)
def test_plans_foretell_the_bytes(stores: dict[str, Created], name: str) -> None:
    groups = ("baseline", "outcomes", "trajectory", "activations", "activation_summary", "audit")
    stored = dict.fromkeys(groups, 0)
    for path in stores[name].variables.keys() - {"outcomes/failure"}:  # text is as long as it is, mostly empty
        stored[path.split("/")[0]] += stores[name].arrays[path].nbytes
    assert stores[name].plan.stored_bytes == stored


def test_every_array_is_checked_on_reading(with_factors: Created) -> None:
    assert {path: array.compressors for path, array in with_factors.arrays.items()} == dict.fromkeys(
        with_factors.arrays, (Crc32cCodec(),)
    )


@pytest.mark.parametrize("block", [1, 4, 6])
def test_a_chunk_never_spans_two_blocks(block: int) -> None:
    for array in Layout(plan(RECORDS["all"]), {"factor": tuple(FACTORS)}, block).arrays:
        if "sample" in array.variable.dims:
            assert array.chunks[array.variable.dims.index("sample")] == block, array.path


def test_chunks_follow_the_questions(stores: dict[str, Created]) -> None:
    """Activations are written and read one intervention and step at a time, everything else together."""
    chunks = {path: array.chunks for path, array in stores["all"].arrays.items()}
    assert chunks["baseline/x_t"] == chunks["baseline/x0_hat"] == chunks["baseline/eps"] == (4, 6, 3, 8, 4)
    assert chunks["outcomes/image"] == (3, 4, 3, 8, 4)
    assert chunks["outcomes/ssim"] == (3, 4)
    assert chunks["trajectory/x0_distance"] == (3, 4, 6)
    assert chunks["activations/mid/baseline"] == (4, 1, 2, 4, 4)
    assert chunks["activations/mid/intervened"] == (1, 4, 1, 2, 4, 4)
    assert chunks["activation_summary/mean"] == (3, 4, 6, 4)
    assert chunks["activation_summary/histogram"] == (3, 4, 6, 4, 3)


def test_chunks_stay_small() -> None:
    """However large the study, unless one sample of one intervention and step is larger itself."""
    items = [AblateBlock(bottom, Window(start, 1)) for bottom in range(1, 5) for start in range(1000, 500, -1)]
    spec = StudySpec(name="large", prompts=["a circle"], seeds=range(64), interventions=items, sampler=DDPM(steps=1000))
    schedule = Schedule.spaced(cosine_alpha_bar(), 1000)
    large = Plan(BoundStudy(replace(spec, record=RECORDS["all"]), u_anatomy(), schedule, (3, 64, 64)), ())
    for array in Layout(large, {}, 4).arrays:
        if array.dtype != "str":
            assert math.prod(array.chunks) * np.dtype(array.dtype).itemsize <= 2_000_000, array


def test_new_cells_are_neither_written_nor_complete(with_factors: Created) -> None:
    known = {"outcomes/unet_calls", "outcomes/flops", "audit/declared"}
    for path in with_factors.variables.keys() - known:
        values = with_factors.arrays[path][...]
        if path.endswith("/ran"):
            continue
        if path == "outcomes/failure":
            assert set(values.ravel().tolist()) == {""}
            continue
        assert (np.isnan(values) if values.dtype.kind == "f" else values == 0).all(), path


def test_costs_are_those_of_the_plan(stores: dict[str, Created]) -> None:
    store = stores["nothing"]
    for name, costs in (("unet_calls", store.plan.calls_by_run), ("flops", store.plan.flops_by_run)):
        assert store.arrays[f"outcomes/{name}"][:].tolist() == [costs[run] for run in range(3)]
        assert min(costs.values()) > 0


def test_coordinates_tell_what_the_plan_knows(stores: dict[str, Created]) -> None:
    made, arrays = stores["baseline"].plan, stores["baseline"].arrays
    schedule, items = made.schedule, made.spec.interventions
    components = [made.anatomy.by_name[name] for name in ("down.1", "mid")]
    expected = {
        "baseline/sample": list(range(6)),
        "baseline/prompt": [sample.prompt for sample in made.spec.samples],
        "outcomes/seed": [7, 8] * 3,
        "trajectory/step": [6, 5, 4, 3, 2, 1],
        "activations/up.3/step": [5, 2],
        "outcomes/intervention": [item.label for item in items],
        "activation_summary/component": ["down.1", "mid"],
        "activation_summary/channels": [2, 2],
        "activation_summary/resolution": [4, 4],
        "activation_summary/component_flops": [component.flops for component in components],
    }
    for name in ("timestep", "alpha_bar", "log_snr"):
        expected[f"activation_summary/{name}"] = [getattr(schedule, name)(step) for step in (5, 2)]
    for name in ("kind", "digest", "top", "bottom", "start", "length", "cuts", "relax"):
        expected[f"trajectory/{name}"] = [item.coordinates()[name] for item in items]
    for name in ("role", "level", "depth"):
        expected[f"activation_summary/{name}"] = [getattr(component, name) for component in components]
    assert {path: arrays[path][:].tolist() for path in expected} == expected
    assert [Intervention.from_json(json.loads(text)) for text in arrays["outcomes/spec"][:]] == list(items)


def test_a_step_is_told_with_its_noise(stores: dict[str, Created]) -> None:
    alpha_bar, log_snr = (stores["nothing"].arrays[f"baseline/{name}"][:] for name in ("alpha_bar", "log_snr"))
    assert np.all(np.diff(alpha_bar) > 0)
    assert log_snr == pytest.approx([math.log(a / (1 - a)) for a in alpha_bar])


def test_creation_that_is_cut_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "results.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Layout, "coordinates", cut_off)
        with pytest.raises(KeyboardInterrupt):
            Created(path, Record())
    assert not list(tmp_path.iterdir())
    assert Created(path, Record()).root.attrs["study"] == {"name": "mine"}
