"""What a study stores against torch hooks on a run by hand, NumPy and scikit-image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

import causalunet as cu
from causalunet.models.text_to_image import TextToImage
from tests.execute.reference import Change, Trajectory, sample

STEPS = 6
RECORDED = (6, 4, 3)
PROMPTS = ("a red circle", "a striped blue cross")
CUT = cu.AblateBlock(bottom=2, window=cu.Window(5, 2))
JUMP = cu.SkipSteps(window=cu.Window(4, 2))
SKIP = cu.AblateSkip(top=1, window=cu.Window(6, 1))
NULL = cu.Null(window=cu.Window(5, 1))
LABELS = ("cut", "jump", "skip")
FULL = ("down.3", "mid", "up.1", "up.3")
SUMMARISED = ("down.0", "down.3", "mid", "up.0", "up.1", "up.2", "up.3")
BINS = (-2.0, -0.5, 0.0, 0.25, 1.5)
DEAD = ("down.2", "down.3", "mid", "up.0", "up.1")
Recorded = Callable[..., xr.DataTree]


@pytest.fixture(scope="module")
def runs(tiny_model: TextToImage) -> dict[str, list[Trajectory]]:
    """The same runs by hand, one entry per sample."""
    changes = {"cut": dict.fromkeys((5, 4), (Change("up", 1),)), "skip": {6: [Change("skip", 0)]}}
    absent = {"jump": (4, 3)}
    return {
        name: [
            sample(
                tiny_model, prompt, seed, steps=STEPS, scale=3.0, changes=changes.get(name), absent=absent.get(name, ())
            )
            for seed, prompt in enumerate(PROMPTS)
        ]
        for name in ("baseline", *LABELS)
    }


@pytest.fixture(scope="module")
def record(run_study: Callable[..., xr.DataTree]) -> Recorded:
    """Run the study once per kind of record; two samples go through in one batch, or each alone."""
    stored: dict[tuple[str, str], xr.DataTree] = {}

    def run(of: str, dtype: str = "float32", memory: int = 1 << 30) -> xr.DataTree:
        if (of, dtype, memory) not in stored:
            what = cu.Record(
                activations=FULL,
                summary=("down.0", "down.3", "mid", "up.*"),
                steps=RECORDED,
                of=of,
                dtype=dtype,
                bins=BINS,
            )
            stored[of, dtype, memory] = run_study(
                CUT, JUMP, SKIP, NULL, steps=STEPS, prompts=PROMPTS, record=what, memory=memory
            ).load()
        return stored[of, dtype, memory]

    return run


def test_the_baseline_is_recorded_without_interventions_at_the_cost_of_one_call(
    run_study: Callable[..., xr.DataTree], runs: dict[str, list[Trajectory]], tiny_model: TextToImage
) -> None:
    what = cu.Record(activations=("mid",), dtype="float32")
    results = run_study(steps=STEPS, prompts=PROMPTS, record=what)
    assert results.outcomes.intervention.values.tolist() == ["null 1-1"]
    for step in RECORDED:
        expected = expected_activations(runs, "baseline", "mid", step)
        np.testing.assert_allclose(results["activations"]["mid"].baseline.sel(step=step), expected, rtol=0, atol=5e-5)
    study = cu.Study(name="x", interventions=[], prompts=PROMPTS, sampler=cu.DDPM(steps=STEPS), record=what)
    assert study.plan(tiny_model, calibrate=False).unet_calls == (STEPS + 1) * len(PROMPTS)


def expected_activations(runs: dict[str, list[Trajectory]], name: str, component: str, step: int) -> np.ndarray:
    return np.stack([trajectory.activations[step, component] for trajectory in runs[name]])


def ran(name: str, component: str, step: int) -> bool:
    return not (name == "jump" and step in (4, 3)) and not (name == "cut" and step in (5, 4) and component in DEAD)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["one block", "a block per sample"])
@pytest.mark.parametrize("of", ["baseline", "all"])
def test_activations_are_those_of_torch_hooks(
    record: Recorded, runs: dict[str, list[Trajectory]], of: str, memory: int
) -> None:
    results = record(of, "float32", memory)
    for component in FULL:
        stored = results["activations"][component]
        assert stored.baseline.dtype == np.float32
        for step in RECORDED:
            expected = expected_activations(runs, "baseline", component, step)
            np.testing.assert_allclose(stored.baseline.sel(step=step), expected, rtol=0, atol=5e-5)
        assert ("intervened" in stored) == (of == "all")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["one block", "a block per sample"])
def test_activations_of_interventions(record: Recorded, runs: dict[str, list[Trajectory]], memory: int) -> None:
    results = record("all", "float32", memory)
    for index, name in enumerate(LABELS):
        for component in FULL:
            stored = results["activations"][component]
            for step in RECORDED:
                found = stored.intervened[index].sel(step=step)
                assert bool(stored.ran[index].sel(step=step)) == ran(name, component, step)
                if ran(name, component, step):
                    expected = expected_activations(runs, name, component, step)
                    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)
                else:
                    assert np.isnan(found).all()


def test_half_precision_is_the_default_and_close(record: Recorded, runs: dict[str, list[Trajectory]]) -> None:
    assert cu.Record().dtype == "float16"
    stored = record("baseline", "float16")["activations"]["mid"].baseline
    assert stored.dtype == np.float16
    expected = expected_activations(runs, "baseline", "mid", 4)
    np.testing.assert_allclose(stored.sel(step=4), expected, rtol=2e-3, atol=1e-3)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["one block", "a block per sample"])
@pytest.mark.parametrize("of", ["baseline", "all"])
def test_summaries_are_those_of_numpy(
    record: Recorded, runs: dict[str, list[Trajectory]], of: str, memory: int
) -> None:
    summary = record(of, "float32", memory)["activation_summary"]
    assert tuple(summary.component.values) == SUMMARISED
    assert ("cosine" in summary) == (of == "all")
    for component in SUMMARISED:
        for step in RECORDED:
            place = {"component": component, "step": step}
            reference = expected_activations(runs, "baseline", component, step).reshape(len(PROMPTS), -1)
            for key, value in numbers(reference, reference).items():
                if key != "cosine":
                    np.testing.assert_allclose(summary[f"baseline_{key}"].sel(place), value, rtol=1e-4, atol=1e-4)
            for index, name in enumerate(LABELS if of == "all" else ()):
                assert bool(summary.ran[index].sel(place)) == ran(name, component, step)
                if not ran(name, component, step):
                    assert np.isnan(summary["cosine"][index].sel(place)).all()
                    continue
                value = expected_activations(runs, name, component, step).reshape(len(PROMPTS), -1)
                for key, number in numbers(value, reference).items():
                    np.testing.assert_allclose(summary[key][index].sel(place), number, rtol=1e-4, atol=1e-4)


def numbers(value: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    norm, of_reference = np.linalg.norm(value, axis=1), np.linalg.norm(reference, axis=1)
    cosine = (value * reference).sum(axis=1) / (norm * of_reference)
    return {
        "mean": value.mean(axis=1),
        "sd": value.std(axis=1),
        "norm": norm,
        "min": value.min(axis=1),
        "max": value.max(axis=1),
        "cosine": cosine,
    }


@pytest.mark.sampled(1)
@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["one block", "a block per sample"])
@pytest.mark.parametrize("of", ["baseline", "all"])
def test_extremes_and_histograms_are_those_of_whole_activations(record: Recorded, of: str, memory: int) -> None:
    results = record(of, "float32", memory)
    summary = results["activation_summary"].to_dataset()
    assert summary.bin_low.values.tolist() == list(BINS[:-1])
    assert summary.bin_high.values.tolist() == list(BINS[1:])
    for component in FULL:
        whole, own = results["activations"][component].to_dataset(), summary.sel(component=component)
        check_counts(whole.baseline, own.rename({f"baseline_{key}": key for key in KEYS if of == "baseline"}), of)
        if of == "all":
            check_counts(whole.intervened, own, "intervened")


KEYS = ("min", "max", "histogram")


def check_counts(values: xr.DataArray, summary: xr.Dataset, of: str) -> None:
    """To the bit, whatever the batch; NaN where nothing ran."""
    names = {key: f"baseline_{key}" if of == "all" else key for key in KEYS}
    image = ("channel", "y", "x")
    np.testing.assert_array_equal(summary[names["min"]], values.min(image, skipna=False))
    np.testing.assert_array_equal(summary[names["max"]], values.max(image, skipna=False))
    leading = [dim for dim in values.dims if dim not in image]
    flat = values.stack(cell=leading, value=image).transpose("cell", "value").values
    counts = summary[names["histogram"]].stack(cell=leading).transpose("cell", "bin").values
    for numbers, found in zip(flat, counts, strict=True):
        expected = np.full(len(BINS) - 1, np.nan) if np.isnan(numbers).all() else np.histogram(numbers, BINS)[0]
        np.testing.assert_array_equal(found, expected)


def test_bins_are_half_open_but_for_the_last(run_study: Callable[..., xr.DataTree]) -> None:
    """Edges that are values."""
    what = cu.Record(activations=["mid"], summary=["mid"], dtype="float32")
    values = run_study(steps=2, record=what)["activations/mid"].baseline.values[0]
    edges = np.unique(values)[[3, 40, 41, 90, 130]].astype(float)
    again = cu.Record(summary=[cu.Site("mid")], bins=edges)
    found = run_study(steps=2, record=again).activation_summary.baseline_histogram.sel(component="mid")
    for counts, whole in zip(found.values[0], values, strict=True):
        np.testing.assert_array_equal(counts, np.histogram(whole, edges)[0])


PARTS = {
    "mid channels 0 2": cu.Site("mid") @ cu.Channels(0, 2),
    "up.1 channels 1 pixels y 0-1": cu.Site("up.1") @ cu.Channels(1) @ cu.Pixels(y=(0, 2)),
    "mid.joint.maps heads 1 tokens red": cu.Site("mid.joint.maps") @ cu.Heads(1) @ cu.Tokens("red"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("memory", [1 << 30, 1], ids=["one block", "a block per sample"])
def test_parts_of_places_are_summarised(
    run_study: Callable[..., xr.DataTree], memory: int, tiny_model: TextToImage
) -> None:
    prompts = ("a red circle", "a red square on a red background")
    whole = ("mid", "up.1", "mid.joint.maps")
    what = cu.Record(
        activations=whole, summary=PARTS.values(), of="all", dtype="float32", steps=RECORDED, bins=(0, 0.1, 1)
    )
    record = cu.design.record.record_from_json(what.to_json())
    assert record == what
    results = run_study(CUT, NULL, steps=STEPS, prompts=prompts, record=record, memory=memory)
    assert results.verify(quiet=True)
    summary = results.activation_summary.to_dataset()
    assert summary.component.values.tolist() == list(PARTS)
    assert summary.channels.values.tolist() == [
        results["activations/mid"].sizes["channel"],
        *summary.channels.values[1:],
    ]
    for name, site in PARTS.items():
        values = results[f"activations/{site.component}"].to_dataset()
        own = summary.sel(component=name)
        for number, prompt in enumerate(prompts):
            red = list(tiny_model.spelled(prompt)[0].numbers("red"))
            shown = {
                "mid": lambda part: part[:, [0, 2]],
                "up.1": lambda part: part[:, [1], :2],
                "mid.joint.maps": lambda part, red=red: part[:, [1]][..., red],
            }[site.component]
            flat = shown(values.baseline.values[number]).reshape(len(RECORDED), -1)
            run = shown(values.intervened.values[0, number]).reshape(len(RECORDED), -1)
            np.testing.assert_array_equal(own.baseline_max[number], flat.max(axis=1))
            np.testing.assert_allclose(own["mean"][0, number], run.mean(axis=1), rtol=1e-5)
            for step, part in enumerate(flat):
                expected = np.histogram(part, (0, 0.1, 1))[0]
                np.testing.assert_array_equal(own.baseline_histogram[number, step], expected)


def test_a_record_that_cannot_be_kept_is_told(tiny_model: TextToImage) -> None:
    for given, message in {
        cu.Site("mid") @ cu.Heads(0): "head",
        cu.Site("mid") @ cu.Channels(999): "999",
        cu.Site("skip.0"): "down.0",
        cu.Site("mad"): "mad",
        cu.Site("mid.joint.maps") @ cu.Tokens("purple"): "purple",
    }.items():
        study = cu.Study(name="x", interventions=[CUT], prompts=PROMPTS, record=cu.Record(summary=given))
        with pytest.raises(cu.CausalUNetError, match=message):
            study.plan(tiny_model, calibrate=False)
    for options, message in (
        ({"summary": cu.Site("mid") @ cu.Rows("cond")}, "conditional"),
        ({"activations": cu.Site("mid")}, "patterns"),
        ({"summary": "mid", "bins": (1, 1)}, "ascending"),
        ({"summary": "mid", "bins": (0, float("nan"))}, "ascending"),
        ({"summary": "mid", "bins": 3}, "ascending"),
        ({"bins": (0, 1)}, "summary"),
    ):
        with pytest.raises(cu.CausalUNetError, match=message):
            cu.Record(**options)  # type: ignore[arg-type]


def test_trajectories(record: Recorded, runs: dict[str, list[Trajectory]]) -> None:
    results = record("baseline")
    trajectory = results.trajectory
    for step in range(STEPS, 0, -1):
        expected = np.stack([one.x[step] for one in runs["baseline"]])
        np.testing.assert_allclose(results.baseline.x_t.sel(step=step), expected, rtol=0, atol=2e-5)
        for index, name in enumerate(LABELS):
            absent = name == "jump" and step in (4, 3)
            assert bool(trajectory.ran[index].sel(step=step)) == (not absent)
            for key in ("x0", "eps"):
                found = trajectory[f"{key}_distance"][index].sel(step=step)
                if absent:
                    assert np.isnan(found).all()
                    continue
                pairs = zip(runs[name], runs["baseline"], strict=True)
                distance = [
                    np.sqrt(np.square(getattr(one, key)[step] - getattr(other, key)[step]).mean())
                    for one, other in pairs
                ]
                np.testing.assert_allclose(found, distance, rtol=1e-3, atol=2e-5)


def test_outcomes_are_those_of_scikit_image(record: Recorded) -> None:
    results = record("baseline")
    outcomes, baseline = results.outcomes, results.baseline.image.values
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for index in range(len(LABELS)):
        for image, reference, ssim, psnr, mse in zip(
            outcomes.image.values[index],
            baseline,
            outcomes.ssim.values[index],
            outcomes.psnr.values[index],
            outcomes.mse.values[index],
            strict=True,
        ):
            expected = structural_similarity(image, reference, data_range=1.0, channel_axis=0, **options)
            assert ssim == pytest.approx(expected, abs=1e-5)
            assert psnr == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=1.0), rel=1e-5)
            assert mse == pytest.approx(mean_squared_error(reference, image), rel=1e-5)


def test_costs(record: Recorded, tiny_model: TextToImage) -> None:
    outcomes, anatomy = record("baseline").outcomes, tiny_model.anatomy
    assert outcomes.unet_calls.values.tolist() == [STEPS, STEPS - 2, STEPS, STEPS]
    dead = sum(anatomy.by_name[name].flops for name in DEAD)
    whole = 2 * STEPS * anatomy.flops
    assert outcomes.flops.values.tolist() == [whole - 2 * 2 * dead, whole - 2 * 2 * anatomy.flops, whole, whole]
