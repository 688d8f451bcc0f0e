"""Estimates of x_0 and the schedule: against scikit-image, and against what the store holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from causalunet.analysis.estimates import estimate_quality, first_staying, to_image
from causalunet.design import SkipSteps, sweep
from causalunet.errors import SpecError, StoreError
from causalunet.report import plot_estimate, plot_estimates, plot_schedule
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.analysis.synthetic import write_results
from tests.report.stores import with_trajectory

STEPS = 20


def store(path: Path, **options: object) -> xr.DataTree:
    write_results(path, sweep(SkipSteps, start=(19, 9), length=2), steps=STEPS, samples=6, block=2, **options)
    return with_trajectory(path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    return store(tmp_path_factory.mktemp("estimates") / "results.zarr")


@pytest.fixture(scope="module")
def quality(results: xr.DataTree) -> xr.Dataset:
    return estimate_quality(results)


def test_quality_is_that_of_scikit_image(results: xr.DataTree, quality: xr.Dataset) -> None:
    assert quality["ssim"].dims == ("step", "sample")
    assert quality["step"].values.tolist() == list(range(STEPS, 0, -1))
    images, estimates = (results["baseline"][name].values for name in ("image", "x0_hat"))
    for position, step in enumerate(quality["step"].values):
        for sample in (0, 3, 5):
            image, estimate = images[sample], (np.clip(estimates[sample, position], -1, 1) + 1) / 2
            expected = structural_similarity(
                image,
                estimate,
                channel_axis=0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1,
            )
            here = quality.sel(step=step, sample=sample)
            assert float(here["ssim"]) == pytest.approx(expected, abs=1e-5)
            assert float(here["mse"]) == pytest.approx(mean_squared_error(image, estimate), rel=1e-5)
            if step > 1:
                assert float(here["psnr"]) == pytest.approx(peak_signal_noise_ratio(image, estimate), rel=1e-4)
    assert np.isinf(quality["psnr"].sel(step=1)).all()
    assert quality["psnr"].attrs["units"] == "dB"
    assert quality["prompt"].values.tolist() == results["baseline"]["prompt"].values.tolist()


def test_estimates_outside_the_range_are_clipped(results: xr.DataTree) -> None:
    baseline = results["baseline"].to_dataset()
    far = xr.DataTree.from_dict({"baseline": baseline.assign(x0_hat=3 * baseline["x0_hat"])})
    image = baseline["image"].values[2]
    clipped = (np.clip(3 * baseline["x0_hat"].values[2, 4], -1, 1) + 1) / 2
    found = float(estimate_quality(far)["mse"].isel(sample=2, step=4))
    assert found == pytest.approx(mean_squared_error(image, clipped), rel=1e-5)


def test_one_step_is_read_at_a_time(results: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def spy(x: np.ndarray) -> np.ndarray:
        read.append(x.shape)
        return to_image(x)

    monkeypatch.setattr("causalunet.analysis.estimates.to_image", spy)
    estimate_quality(results)
    assert read == [(6, 3, 32, 32)] * STEPS


@pytest.mark.thorough
def test_incomplete_studies_say_so(tmp_path: Path) -> None:
    partial = store(tmp_path / "partial.zarr", blocks_done=2)
    with pytest.raises(StoreError, match="2 of 6 samples were not run yet"):
        estimate_quality(partial)
    assert estimate_quality(partial, allow_incomplete=True)["sample"].values.tolist() == [0, 1, 2, 3]
    assert "n = 4" in plot_estimate(partial, allow_incomplete=True).axes[0].get_ylabel()
    none = store(tmp_path / "none.zarr", blocks_done=0)
    with pytest.raises(StoreError, match="6 of 6 samples were not run yet"):
        estimate_quality(none, allow_incomplete=True)


def test_errors_of_what_is_no_pixel_model_or_no_store(results: xr.DataTree, tmp_path: Path) -> None:
    baseline = results["baseline"].to_dataset()
    latent = (("sample", "step", "latent_channel", "v", "u"), np.zeros((6, STEPS, 4, 8, 8), np.float32))
    with pytest.raises(StoreError, match="not one of pixels"):
        estimate_quality(xr.DataTree.from_dict({"baseline": baseline.assign(x0_hat=latent)}))
    with pytest.raises(StoreError, match="lacks x0_hat"):
        estimate_quality(xr.DataTree.from_dict({"baseline": baseline.drop_vars("x0_hat")}))
    with pytest.raises(SpecError, match="got Dataset"):
        estimate_quality(baseline)
    unfilled = write_results(tmp_path / "unfilled.zarr", sweep(SkipSteps, start=9, length=2), samples=2)
    with pytest.raises(StoreError, match="not numbers"):
        estimate_quality(unfilled)


@pytest.mark.parametrize(
    ("mean", "step"),
    [([0.1, 0.9, 0.9], 2), ([0.9, 0.1, 0.9], 1), ([0.9, 0.9, 0.1], None), ([0.8, 0.8, 0.8], 3), ([0.9, np.nan, 1], 1)],
)
def test_first_staying(mean: list[float], step: int | None) -> None:
    assert first_staying(xr.DataArray(mean, dims="step", coords={"step": [3, 2, 1]}), 0.8) == step


def test_estimate_draws_mean_and_two_deviations(results: xr.DataTree, quality: xr.Dataset) -> None:
    ssim, psnr = plot_estimate(results, threshold=0.3).axes
    drawn = {str(line.get_label()): np.asarray(line.get_xydata()) for line in ssim.lines}
    values = quality["ssim"].values
    np.testing.assert_allclose(drawn["mean"], np.stack([quality["step"].values, values.mean(axis=1)], axis=1))
    (band,) = ssim.collections
    for position in (3, 12):
        at = band.get_paths()[0].vertices
        at = at[at[:, 0] == quality["step"].values[position], 1]
        mean, sd = values[position].mean(), values[position].std(ddof=1)
        np.testing.assert_allclose([at.min(), at.max()], [mean - 2 * sd, mean + 2 * sd])
    reached = values.mean(axis=1) >= 0.3
    step = next(s for i, s in enumerate(range(STEPS, 0, -1)) if reached[i:].all())
    for ax in (ssim, psnr):
        (mark,) = [line for line in ax.lines if str(line.get_label()).startswith("mean SSIM stays")]
        assert set(np.asarray(mark.get_xdata()).tolist()) == {step}
        assert mark.get_label() == f"mean SSIM stays ≥ 0.3 from step {step} on"
    assert ssim.get_ylabel() == "SSIM\nmean ± 2 SD, n = 6"
    assert ssim.get_xlim()[0] > ssim.get_xlim()[1]
    assert psnr.get_xlabel() == "step\ninfinite, not drawn: 1"
    with pytest.raises(SpecError, match="no outcome 'lpips'"):
        plot_estimate(results, variable=("lpips",))


def test_strip_shows_the_run(results: xr.DataTree) -> None:
    figure = plot_estimates(results, sample=4, steps=[2, 15])
    axes = np.array(figure.axes).reshape(2, 3)
    baseline = results["baseline"].to_dataset().isel(sample=4)
    assert [ax.get_title() for ax in axes[0, :2]] == ["step 15", "step 2"]
    for row, name in zip(axes, ("x_t", "x0_hat"), strict=True):
        for ax, step in zip(row, (15, 2), strict=False):
            expected = (np.clip(baseline[name].sel(step=step).values, -1, 1) + 1) / 2
            np.testing.assert_allclose(np.moveaxis(np.asarray(ax.images[0].get_array()), -1, 0), expected, atol=1e-6)
    last = np.moveaxis(np.asarray(axes[1, 2].images[0].get_array()), -1, 0)
    np.testing.assert_array_equal(last, baseline["image"].values)
    ssim = estimate_quality(results)["ssim"].sel(sample=4, step=2)
    assert axes[1, 1].get_xlabel() == f"SSIM {float(ssim):.2f}"
    assert figure.get_suptitle().replace("\n", " ") == baseline["prompt"].item()
    with pytest.raises(SpecError, match=r"no step \[21\]; there are 20 \.\.\. 1"):
        plot_estimates(results, steps=[21])
    with pytest.raises(SpecError, match="6 samples"):
        plot_estimates(results, sample=6)


def test_schedule_is_that_of_the_steps(results: xr.DataTree) -> None:
    axes = plot_schedule(results).axes
    schedule = Schedule.spaced(cosine_alpha_bar(), STEPS)
    steps = list(range(1, STEPS + 1))
    expected = [
        [1 - schedule.alpha_bar(step) / schedule.alpha_bar(step - 1) for step in steps],
        [schedule.alpha_bar(step) for step in steps],
        [schedule.log_snr(step) for step in steps],
    ]
    for ax, values in zip(axes, expected, strict=True):
        np.testing.assert_allclose(ax.lines[0].get_xydata(), np.stack([steps, values], axis=1))
        assert ax.get_xlim()[0] > ax.get_xlim()[1]
        assert ax.get_xlabel() == "step"
    assert axes[2].get_ylabel() == "log SNR (nats)"
