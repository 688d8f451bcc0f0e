"""Whatever is written into a store by hand, or by a fault, has right checksums: verifying makes the numbers again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

import causalunet as cu
from causalunet import metrics
from causalunet.cli import main
from causalunet.models.text_to_image import TextToImage
from causalunet.results.guard import recomputed
from causalunet.results.guard.findings import Verification
from tests.analysis.synthetic import edited

Change = Callable[[zarr.Group], None]


class Reading(TextToImage):
    """The tiny model with a reader of brightness."""

    @property
    def factors(self) -> dict[str, tuple[str, ...]]:
        """One factor."""
        return {"brightness": ("dark", "bright")}

    def read_factors(self, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Read whether the upper half is brighter than the lower."""
        bright = images[:, :, :8].mean(axis=(1, 2, 3)) > images[:, :, 8:].mean(axis=(1, 2, 3))
        return bright[:, None].astype(np.int64), np.full((len(images), 1), 0.9, np.float32)


@pytest.fixture(scope="module")
def model(tiny_model: TextToImage) -> Reading:
    return Reading(**{name: getattr(tiny_model, name) for name in ("name", "unet", "tokenize", "alpha_bar")})


@pytest.fixture(scope="module")
def by_hand() -> cu.Study:
    """Three samples, each with a seed of its own; the null comes last."""
    return cu.Study(
        name="by hand",
        prompts=["a red circle", "a blue cross", "a striped cyan square, light background"],
        sampler=cu.DDPM(steps=6),
        interventions=[
            *cu.sweep(cu.AblateBlock, bottom=(2, 3), start=(6, 4), length=2),
            cu.AblateSkip(1, cu.Window(5, 1)),
            cu.SkipSteps(cu.Window(4, 2)),
        ],
    )


@pytest.fixture(scope="module")
def sound(by_hand: cu.Study, model: Reading, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's store; not to be changed."""
    path = tmp_path_factory.mktemp("sound") / "s.zarr"
    by_hand.run(path, model=model, progress=False)
    return path


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy.zarr"))


def checked(path: Path, **how: Any) -> Verification:
    return cu.open_results(path).verify(quiet=True, **how)


def problems(found: Verification) -> dict[str, tuple[str, ...]]:
    return {finding.check: finding.problems for finding in found.findings if finding.problems}


def setting(path: str, value: Any, index: Any = ...) -> Change:
    def change(root: zarr.Group) -> None:
        root[path][index] = value  # type: ignore[index]

    return change


def passing(path: str, through: Callable[[NDArray[Any]], NDArray[Any]], index: Any = ...) -> Change:
    def change(root: zarr.Group) -> None:
        array: Any = root[path]
        array[index] = through(np.asarray(array[index]))

    return change


def swapped(*paths: str, axis: int, pair: tuple[int, int] = (0, 1)) -> Change:
    """Exchange two entries along an axis of every array."""

    def change(root: zarr.Group) -> None:
        for path in paths:
            array: Any = root[path]
            values = np.asarray(array[...])
            order = list(range(values.shape[axis]))
            order[pair[0]], order[pair[1]] = pair[1], pair[0]
            array[...] = np.take(values, order, axis)

    return change


def of_images(root: zarr.Group) -> None:
    """Make pixel outcomes fit to whatever images there are."""
    arrays: Any = root
    image, baseline = arrays["outcomes/image"][...], arrays["baseline/image"][...]
    error = metrics.mse(image, baseline)
    arrays["outcomes/mse"][...], arrays["outcomes/psnr"][...] = error, metrics.psnr(error)
    arrays["outcomes/ssim"][...] = metrics.ssim(metrics.moments(image), metrics.moments(baseline))


def several(*changes: Change) -> Change:
    def change(root: zarr.Group) -> None:
        for one in changes:
            one(root)

    return change


def noisy(values: NDArray[Any]) -> NDArray[Any]:
    drawn = np.random.default_rng(0).normal(0, 0.05, values.shape)
    return np.clip(values + drawn, 0, 1).astype(values.dtype)


OUTCOMES = ("image", "ssim", "psnr", "mse")
CHANGES: dict[str, tuple[Change, str, str]] = {
    "SSIM all 2": (setting("outcomes/ssim", 2.0), "in range", r"outcomes/ssim: 21 not in -1 \.\.\. 1, the first, 2,"),
    "SSIM all 0.9": (setting("outcomes/ssim", 0.9), "outcomes", "ssim is 0.9, and its images give 0"),
    "one SSIM a little better": (
        passing("outcomes/ssim", lambda x: x + 2e-4, (0, 1)),
        "outcomes",
        r"^intervention 0, sample 1: ssim is 0\.\d+, and its images give 0\.\d+$",
    ),
    "MSE halved": (passing("outcomes/mse", lambda x: x / 2), "outcomes", "mse is"),
    "PSNR": (setting("outcomes/psnr", 30.0, (2, 2)), "outcomes", "^intervention 2, sample 2: psnr is 30, and"),
    "SSIM of interventions exchanged": (swapped("outcomes/ssim", axis=0), "outcomes", "intervention 0, sample 0: ssim"),
    "images of samples exchanged": (swapped("outcomes/image", axis=1), "outcomes", "ssim is .*; psnr|mse is .*; psnr"),
    "images of interventions exchanged": (swapped("outcomes/image", axis=0), "outcomes", "intervention 1, sample 0"),
    "baselines exchanged": (swapped("baseline/image", axis=0), "outcomes", "sample 1: mse is"),
    "noise in an image": (passing("outcomes/image", noisy, (3, 0)), "outcomes", "^intervention 3, sample 0: mse"),
    "brighter images": (passing("outcomes/image", lambda x: x + 1), "in range", "outcomes/image: .* not in 0 ... 1"),
    "all outcomes of samples exchanged": (
        several(swapped(*(f"outcomes/{name}" for name in OUTCOMES), axis=1)),
        "outcomes",
        "mse is",
    ),
    "interventions exchanged with all their outcomes": (
        swapped(*(f"outcomes/{name}" for name in OUTCOMES), axis=0),
        "outcomes",
        "x0_distance at step 1 is .*, and its images give",
    ),
    "other images, with outcomes that fit": (
        several(passing("outcomes/image", noisy), of_images),
        "outcomes",
        "x0_distance at step 1|null_difference",
    ),
    "a worse noise floor": (
        several(passing("outcomes/image", noisy, (6, slice(None))), of_images),
        "outcomes",
        "null_difference is 0, and its images give 0",
    ),
    "samples exchanged with everything": (
        several(
            swapped(*(f"baseline/{name}" for name in ("image", "x_t", "x0_hat", "eps", "factor_code")), axis=0),
            swapped(*(f"outcomes/{name}" for name in (*OUTCOMES, "factor_code", "factor_changed")), axis=1),
            swapped("trajectory/x0_distance", "trajectory/eps_distance", axis=1),
        ),
        "baselines",
        "^sample 1: x_t at step 6 is not the noise of its seed, 1$",
    ),
    "a state": (passing("baseline/x_t", lambda x: x[..., ::-1], (1, 3)), "baselines", "^sample 1: x_t at step 3 does"),
    "the first state": (
        passing("baseline/x_t", np.negative, (2, 0)),
        "baselines",
        "sample 2: x_t at step 6 is not the",
    ),
    "an estimate": (passing("baseline/x0_hat", lambda x: x * 0.5, (0, 2)), "baselines", "sample 0: x0_hat at step 4"),
    "a prediction": (passing("baseline/eps", lambda x: x + 0.1, (0, 2)), "baselines", "sample 0: x0_hat at step 4"),
    "a baseline image, with outcomes that fit": (
        several(passing("baseline/image", noisy, 1), of_images),
        "baselines",
        "sample 1: its image is not the one",
    ),
    "distances": (setting("trajectory/eps_distance", 0.1), "outcomes", "eps_distance is not 0 before the first edit"),
    "negative distances": (passing("trajectory/x0_distance", np.negative), "in range", "trajectory/x0_distance"),
    "seeds": (
        several(*(setting(f"{group}/seed", 4, 1) for group in ("baseline", "outcomes", "trajectory", "audit"))),
        "study",
        "1 samples of the study have no place",
    ),
    "a seed of one group": (
        setting("trajectory/seed", 4, 1),
        "coordinates",
        "trajectory/seed: 4 at position 1, where 1",
    ),
    "factors that changed": (passing("outcomes/factor_changed", np.logical_not), "outcomes", "codes of factor 0 say"),
    "factors": (
        passing("outcomes/factor_code", lambda x: 1 - x, (2, 1)),
        "outcomes",
        "^intervention 2, sample 1: factor",
    ),
    "a factor that there is not": (setting("outcomes/factor_code", 7), "in range", "factor_code: .* not in 0 ... 1"),
    "certainty": (setting("baseline/factor_probability", 1.5), "in range", "factor_probability: 3 not in 0 ... 1"),
    "prompts of one group": (
        swapped("trajectory/prompt", axis=0),
        "coordinates",
        "trajectory/prompt: .*blue.* belongs",
    ),
    "starts exchanged": (
        swapped(*(f"{group}/start" for group in ("outcomes", "trajectory", "audit")), axis=0),
        "coordinates",
        "outcomes/start: 4 at position 0, where 6 belongs",
    ),
    "labels exchanged": (
        swapped("outcomes/intervention", axis=0),
        "coordinates",
        "outcomes/intervention: 'ablate_block",
    ),
    "a digest": (setting("outcomes/digest", "0" * 16, 2), "coordinates", "outcomes/digest: '0000"),
    "steps": (passing("trajectory/step", lambda x: x[::-1]), "coordinates", "trajectory/step: 1 at position 0"),
    "shares of signal": (setting("baseline/alpha_bar", 0.5, 2), "coordinates", "log_snr|alpha_bar"),
    "what is declared": (
        several(setting("audit/declared", 0, 2), setting("audit/fired", 0, 2)),
        "edits and calls",
        "audit/declared: intervention 2 edits something else",
    ),
    "what ran": (setting("trajectory/ran", True), "edits and calls", "trajectory/ran: intervention"),
    "calls": (setting("outcomes/unet_calls", 1), "edits and calls", "outcomes/unet_calls: intervention 0 has another"),
    "costs": (setting("outcomes/flops", 1 << 60), "edits and calls", "outcomes/flops: intervention 0 has more"),
    "time": (setting("audit/seconds", -1.0), "in range", "audit/seconds: 3 not in 0 ... inf"),
    "a status": (setting("outcomes/status", 7, (0, 0)), "in range", "outcomes/status: 1 not in 0 ... 2, the first, 7"),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", CHANGES)
def test_what_was_written_by_hand_is_found(name: str, copy: Path) -> None:
    change, check, told = CHANGES[name]
    with edited(copy) as root:
        change(root)
    found = checked(copy, deep=True)
    assert found.exit_code == 1
    assert check in problems(found), str(found)
    assert any(re.search(told, problem) for problem in problems(found)[check]), problems(found)


@pytest.mark.thorough
def test_a_sound_store_is_sound_however_deep_one_looks(
    sound: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (sound, store, cu.open_results(sound).export(tmp_path / "export.zarr")):
        assert not problems(checked(path, deep=True)), str(checked(path, deep=True))
        assert not problems(checked(path))
    assert main(["verify", "--deep", str(sound)]) == 0
    printed = capsys.readouterr().out
    assert "21 of 21 from their images" in printed
    assert "3 of 3 from their seeds" in printed


def test_exports_are_checked_too(copy: Path, tmp_path: Path) -> None:
    with edited(copy) as root:
        setting("outcomes/ssim", 0.5, (0, 0))(root)
    exported = cu.open_results(copy).export(tmp_path / "export.zarr")
    assert "intervention 0, sample 0: ssim is 0.5, and" in str(checked(exported))


def test_the_command_names_every_cell(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with edited(copy) as root:
        setting("outcomes/psnr", 12.5)(root)
    assert main(["verify", "--deep", "--quiet", str(copy)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[3].startswith(f"{copy}: outcomes: intervention 1, sample 0: psnr is 12.5, and its images give ")


@pytest.mark.thorough
def test_some_are_drawn_and_others_the_next_time(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputed, "_CELLS", 5)
    monkeypatch.setattr(recomputed, "_BASELINES", 1)
    with edited(copy) as root:
        setting("outcomes/mse", 0.5)(root)
    first, second = checked(copy), checked(copy)
    looked_at = {finding.check: finding.looked_at for finding in first.findings}
    assert looked_at["outcomes"] == "5 of 21 from their images, at random"
    assert looked_at["baselines"] == "1 of 3 from their seeds, at random"
    assert len(problems(first)["outcomes"]) == len(problems(second)["outcomes"]) == 5
    drawn = {problem.split(":")[0] for _ in range(6) for problem in problems(checked(copy))["outcomes"]}
    assert len(drawn) > 5
    assert len(problems(checked(copy, deep=True))["outcomes"]) == 21


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 1 << 30), st.data())
def test_cells_are_drawn_of_the_complete_ones(rows: int, most: int, seed: int, data: st.DataObject) -> None:
    complete = data.draw(arrays_of.arrays(bool, (rows, 3)))
    chosen = recomputed._drawn(complete, complete, most, np.random.default_rng(seed))
    assert not (chosen & ~complete).any()
    assert chosen.sum() == min(most, complete.sum())
    assert np.array_equal(recomputed._drawn(complete, complete, None, np.random.default_rng(seed)), complete)


def test_cells_that_failed_or_are_missing_are_not_asked(copy: Path) -> None:
    with edited(copy) as root:
        setting("outcomes/ssim", 2.0, (0, 0))(root)
        setting("outcomes/status", 0, (0, 0))(root)
        setting("outcomes/status", 2, (1, 0))(root)
        setting("outcomes/ssim", np.nan, (1, 0))(root)
    found = checked(copy, deep=True)
    assert found.exit_code == 3
    assert "19 of 19 from their images" in str(found)


def test_another_ssim_is_not_compared_with_this_one(copy: Path) -> None:
    with edited(copy) as root:
        root.attrs["ssim"] = {**root.attrs["ssim"], "window": "uniform 7 x 7"}  # type: ignore[dict-item]
        setting("outcomes/ssim", 0.5)(root)
    found = checked(copy)
    assert (found.exit_code, found.unchecked) == (4, ("SSIM, of another definition than this version's",))


FLAT = arrays_of.arrays(np.float32, (3, 16, 16), elements=st.sampled_from([0.0, 0.25, 0.999, 1.0]), fill=st.just(1.0))


@given(FLAT, FLAT, st.floats(0, 1, width=32))
def test_rounding_stays_below_what_counts_as_another_ssim(
    image: NDArray[np.float32], other: NDArray[np.float32], share: float
) -> None:
    """The flatter the images, the more their variances are rounding."""
    near = (share * image + (1 - share) * other).astype(np.float32)
    for a, b in ((image, other), (image, near), (near, near)):
        ours = float(metrics.ssim(metrics.moments(a), metrics.moments(b)))
        exact = structural_similarity(
            a.astype(np.float64),
            b.astype(np.float64),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert abs(ours - exact) < recomputed._TOLERANCES["ssim"][0] / 2
