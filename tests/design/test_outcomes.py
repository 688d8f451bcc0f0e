"""Outcomes as values: names, JSON, digests, what they give and what they refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from causalunet.design.outcomes import (
    OUTCOMES,
    PSNR,
    SSIM,
    EstimateDistance,
    FactorReading,
    HistogramDistance,
    MultiScaleSSIM,
    NoiseDistance,
    Outcome,
    OutcomeContext,
    outcome_named,
    usual_outcomes,
)
from causalunet.design.outcomes.measuring import measured, measured_cells, rehearse_outcomes
from causalunet.errors import SpecError
from causalunet.results.meaning.schema import VARIABLES

SHAPE = (3, 16, 16)
NOTHING = OutcomeContext(stored={})
OWN = (
    *usual_outcomes(factors=True),
    *(MultiScaleSSIM(), MultiScaleSSIM(2), HistogramDistance(), EstimateDistance(3), NoiseDistance(3)),
)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with OUTCOMES.scoped():
        yield


def images(interventions: int = 2, samples: int = 3, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    baseline = rng.random((samples, *SHAPE), dtype=np.float32)
    noise = rng.normal(0, 0.1, (interventions, samples, *SHAPE))
    return np.clip(baseline + noise, 0, 1).astype(np.float32), baseline


def test_the_first_four_are_what_scikit_image_gives() -> None:
    runs, baseline = images()
    expected = {
        "ssim": lambda a, b: structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
        ),
        "psnr": lambda a, b: peak_signal_noise_ratio(a.astype(float), b.astype(float), data_range=1.0),
        "mse": mean_squared_error,
    }
    for outcome in usual_outcomes(factors=False):
        values = measured(outcome, runs, baseline, NOTHING)[outcome.variable]
        by_hand = [[expected[outcome.name](b, a) for a, b in zip(of_run, baseline, strict=True)] for of_run in runs]
        np.testing.assert_allclose(values, by_hand, atol=1e-5, rtol=1e-6)


def test_factors_are_what_the_reader_reads() -> None:
    runs, baseline = images(2, 3)

    def read(shown: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        bright = shown.mean(axis=(1, 2, 3))
        return (bright[:, None] > np.array([0.5, 0.4])).astype(np.int64), np.stack([bright, 1 - bright], axis=1)

    runs[1, 2] = 0.0
    found = measured(FactorReading(), runs, baseline, OutcomeContext(stored={}, read_factors=read))
    assert {name: (value.shape, value.dtype.name) for name, value in found.items()} == {
        "factor_code": ((2, 3, 2), "int8"),
        "factor_probability": ((2, 3, 2), "float32"),
        "factor_changed": ((2, 3, 2), "bool"),
    }
    for row in range(2):
        for sample in range(3):
            code, probability = read(runs[row, sample][None])
            before, _ = read(baseline[sample][None])
            np.testing.assert_array_equal(found["factor_code"][row, sample], code[0])
            np.testing.assert_allclose(found["factor_probability"][row, sample], probability[0])
            np.testing.assert_array_equal(found["factor_changed"][row, sample], code[0] != before[0])
    with pytest.raises(SpecError, match="has none"):
        rehearse_outcomes([FactorReading()], SHAPE, 4)


def test_what_is_stored_of_the_first_four_is_what_they_declare() -> None:
    """Stores name, type, describe and bound them as they did before outcomes were values."""
    stored = {variable.name: variable for variable in VARIABLES if variable.group == "outcomes"}
    for outcome in usual_outcomes(factors=True):
        for one in outcome.variables:
            known = stored[one.name]
            assert known.dims == ("intervention", "sample", *one.dims)
            assert (known.dtype, known.meaning, known.units) == (one.dtype, one.meaning, one.units)
            assert (known.better, known.infinite) == (one.better, outcome.infinite)
            if known.dtype != "bool":
                assert known.range == one.limits, one.name


@pytest.mark.parametrize("outcome", OWN, ids=lambda one: one.variable)
def test_they_come_back_from_json_and_have_digests_of_their_own(outcome: Outcome) -> None:
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert (again, type(again), again.digest) == (outcome, type(outcome), outcome.digest)
    others = [one.digest for one in OWN if one != outcome]
    assert outcome.digest not in others
    assert outcome.definition.endswith(".")
    if "step" not in outcome.to_json()["configuration"] and outcome != MultiScaleSSIM(2):
        assert outcome_named(outcome.name) == outcome


def test_a_digest_names_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SSIM().digest
    monkeypatch.setitem(__import__("causalunet.metrics", fromlist=["x"]).SSIM_DEFINITION, "k1", 0.02)
    assert SSIM().digest != before


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "is not an outcome"),
        ({"name": "nothing", "configuration": {}}, "known outcomes: .*ssim"),
        ({"name": "ssim", "configuration": {"sigma": 2}}, "no field 'sigma'"),
        ({"name": "ssim", "more": 1}, "no field 'more'"),
    ],
)
def test_json_of_something_else_is_refused(value: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        Outcome.from_json(value)


def test_classes_with_impossible_names_or_directions_are_refused() -> None:
    with pytest.raises(SpecError, match="names an array"):
        type("Strange", (Outcome,), {"name": "a/b"})
    with pytest.raises(SpecError, match="'higher' for a similarity"):
        type("Strange", (Outcome,), {"name": "strange", "better": "more"})
    with pytest.raises(SpecError, match="results name it so"):
        type("Other", (Outcome,), {"name": "ssim"})


@dataclass(frozen=True, slots=True)
class Weighted(Outcome):
    """A guest's, that fails as it is told to."""

    name: ClassVar[str] = "weighted"
    fault: str = ""

    def measure(
        self, images: NDArray[np.float32], baseline: NDArray[np.float32], context: OutcomeContext
    ) -> NDArray[np.float64]:
        if self.fault == "raises" and (images > 1).any():
            raise RuntimeError("too bright")
        values = np.abs(images - baseline).mean(axis=(-3, -2, -1), dtype=np.float64)
        given: dict[str, Any] = {
            "pooled": values.mean(),
            "text": values.astype(str),
            "NaN": np.where(images.max(axis=(-3, -2, -1)) > 1, np.nan, values),
            "infinite": np.where(images.max(axis=(-3, -2, -1)) > 1, np.inf, values),
            "named": {"other": values},
        }
        return given.get(self.fault, values)


@pytest.mark.parametrize("fault", ["raises", "NaN", "infinite"])
def test_a_cell_that_cannot_be_measured_fails_by_itself(fault: str) -> None:
    runs, baseline = images()
    runs[1, 2] += 1.5
    asked = np.ones((2, 3), bool)
    asked[0, 0] = False
    found = measured_cells(Weighted(fault), runs, baseline, NOTHING, asked)
    told = found.reasons[1, 2]
    assert ("too bright" in told) if fault == "raises" else "NaN" in told
    assert [reason for reason in found.reasons.ravel() if reason] == [told]
    right = np.abs(runs - baseline).mean(axis=(-3, -2, -1), dtype=np.float64)
    right[1, 2] = right[0, 0] = np.nan
    np.testing.assert_allclose(found.values["weighted"], right)


def test_a_scorer_that_fails_everywhere_leaves_reasons() -> None:
    runs, baseline = images()
    found = measured_cells(Weighted("raises"), runs + 2, baseline, NOTHING, np.ones((2, 3), bool))
    assert (found.reasons == "RuntimeError: too bright").all()
    assert np.isnan(found.values["weighted"]).all()


@pytest.mark.parametrize(("fault", "told"), [("pooled", "shape"), ("text", "type"), ("named", "its variables are")])
def test_numbers_of_another_form_are_refused(fault: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        rehearse_outcomes([Weighted(fault)], SHAPE, 4)


def test_rehearsal_tells_before_anything_runs() -> None:
    rehearse_outcomes([*usual_outcomes(factors=False), Weighted()], SHAPE, 4)
    with pytest.raises(SpecError, match="at least 11 x 11"):
        rehearse_outcomes([SSIM()], (3, 8, 8), 4)

    class Broken(Outcome):
        name: ClassVar[str] = "broken"

        def measure(self, *_: Any) -> Any:
            return 1 / 0

    class Greedy(Outcome):
        name: ClassVar[str] = "greedy"
        reads: ClassVar[tuple[str, ...]] = ("audit/fired",)

    with pytest.raises(SpecError, match=r"'broken' cannot be measured.*ZeroDivisionError"):
        rehearse_outcomes([Broken()], SHAPE, 4)
    with pytest.raises(SpecError, match=r"outcomes can read trajectory/x0_distance"):
        rehearse_outcomes([Greedy()], SHAPE, 4)


def test_psnr_of_equal_images_is_infinite_and_no_failure() -> None:
    _, baseline = images()
    found = measured_cells(PSNR(), baseline[None], baseline, NOTHING, np.ones((1, 3), bool))
    assert (found.values["psnr"] == math.inf).all()
    assert not (found.reasons != "").any()


def test_distances_at_a_step_are_those_of_the_trajectory() -> None:
    runs, baseline = images()
    stored = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
    context = OutcomeContext(stored={"trajectory/x0_distance": stored, "trajectory/eps_distance": stored + 1})
    for step, position in ((4, 0), (1, 3)):
        for kind, expected in ((EstimateDistance, stored), (NoiseDistance, stored + 1)):
            found = measured(kind(step), runs, baseline, context)[f"{kind.name}_{step}"]
            np.testing.assert_allclose(found, expected[..., position])
    stored[1, 2, 3] = np.nan
    found = measured_cells(EstimateDistance(1), runs, baseline, context, np.ones((2, 3), bool))
    assert "no U-Net call at step 1" in found.reasons[1, 2]
    assert (found.reasons != "").sum() == 1
    with pytest.raises(SpecError, match=r"step 5; the run has the steps 4 \.\.\. 1"):
        rehearse_outcomes([EstimateDistance(5)], SHAPE, 4)
    with pytest.raises(SpecError, match="integers from T down to 1"):
        NoiseDistance(0)


def test_scales_are_those_that_images_have_room_for() -> None:
    rehearse_outcomes([MultiScaleSSIM(1), HistogramDistance(), EstimateDistance(2)], SHAPE, 4)
    with pytest.raises(SpecError, match="at least 22 x 22"):
        rehearse_outcomes([MultiScaleSSIM(2)], SHAPE, 4)
    with pytest.raises(SpecError, match="1 to 5"):
        MultiScaleSSIM(6)
    assert [MultiScaleSSIM().variable, MultiScaleSSIM(3).variable] == ["ms_ssim", "ms_ssim_3"]
