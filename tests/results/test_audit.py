"""What is stored to trust results by, and whether verifying finds what is wrong with them."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import causalunet as cu
from causalunet.errors import CausalUNetWarning
from causalunet.execute.measure import audit
from causalunet.models.text_to_image import TextToImage
from causalunet.provenance import describe
from causalunet.results.meaning.noise_floor import Bounds, beyond_rounding, first_distance
from tests.analysis.synthetic import edited

SCRIPT = """
import causalunet as cu
from causalunet.provenance import calling_source

def helper():
    return calling_source()

print(helper()["name"], helper()["git"]["changed"])
"""


def test_every_edit_is_counted_where_it_applied(results: xr.DataTree, study: cu.Study) -> None:
    fired = results.audit.fired
    steps, places = fired.step.values.tolist(), fired.place.values.tolist()
    expected = np.zeros(fired.shape, np.uint8)
    for row, item in enumerate(study.interventions):
        for edit in item.edits():
            for step in edit.window:
                expected[row, :, steps.index(step), places.index(edit.component)] = 1
    np.testing.assert_array_equal(fired, expected)
    np.testing.assert_array_equal(fired.sel(kind="skip_steps", place="unet").sum("sample").values, [[0, 0, 3, 3, 0, 0]])


def test_noise_floor_and_drift_are_measured(results: xr.DataTree) -> None:
    image, null = results.baseline.image, results.outcomes.image.sel(kind="null").squeeze("intervention")
    np.testing.assert_array_equal(results.audit.null_difference, np.abs(null.values - image.values).max(axis=(1, 2, 3)))
    drift = results.audit.drift.values
    assert np.isfinite(drift[0])
    assert drift[0] < 1e-4
    assert np.isnan(drift[1:]).all(), "one plain call per part"


@pytest.mark.thorough
def test_a_hook_that_stays_behind_shows_as_drift(
    tiny_model: TextToImage, study: cu.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left_behind(*arguments: Any) -> Any:
        handle = tiny_model.unet.out[2].register_forward_hook(lambda _module, _inputs, output: output + 0.1)
        try:
            return audit.drift(*arguments)
        finally:
            handle.remove()

    monkeypatch.setattr("causalunet.execute.fill.part_runner.drift", left_behind)
    with pytest.warns(CausalUNetWarning, match="drift 0.1"):
        results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert results.audit.drift.values[0] > 0.05
    found = results.verify(quiet=True)
    assert found.exit_code == 1
    assert "drift" in {finding.check for finding in found.findings if finding.problems}


def spoil(path: str, value: Any, index: Any = ...) -> Callable[[zarr.Group], None]:
    def change(root: zarr.Group) -> None:
        root[path][index] = value  # type: ignore[index]

    return change


def forget(path: str) -> Callable[[zarr.Group], None]:
    def change(root: zarr.Group) -> None:
        del root[path]

    return change


def other_study(root: zarr.Group) -> None:
    root.attrs["study"] = {**root.attrs["study"], "name": "better"}  # type: ignore[dict-item]


WRONG = {
    "edit that did not fire": (spoil("audit/fired", 0, (2, 1)), "edits fired", "the first of intervention 2, sample 1"),
    "edit that fired twice": (spoil("audit/fired", 2, (2, 1, 0, 0)), "edits fired", "1 edits fired another number"),
    "number that is none": (spoil("outcomes/ssim", np.nan, (1, 2)), "finite", r"outcomes/ssim: 1 not finite.*\(1, 2\)"),
    "infinite activation": (
        spoil("activations/mid/baseline", np.inf, (0, 1, 0, 0, 0)),
        "finite",
        "activations/mid/baseline: 1 not finite",
    ),
    "noise": (spoil("audit/null_difference", 0.1), "noise floor", "largest difference 0.1, more than 1e-05"),
    "another study": (other_study, "study", "not the one that its digest names"),
    "array that is gone": (forget("outcomes/mse"), "written whole", "outcomes/mse: the array is missing"),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("change", "check", "message"), WRONG.values(), ids=WRONG)
def test_verifying_finds_what_is_wrong(
    copied: Callable[[], Path], change: Callable[[zarr.Group], None], check: str, message: str
) -> None:
    path = copied()
    with edited(path) as root:
        change(root)
    found = cu.open_results(path).verify(quiet=True)
    assert not found
    assert found.exit_code == 1
    (finding,) = [finding for finding in found.findings if finding.problems]
    assert finding.check == check
    (problem,) = finding.problems
    assert re.search(message, problem), problem


def test_what_is_missing_is_not_what_is_wrong(copied: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = copied()
    with edited(path) as root:
        root["outcomes/status"][1, 2] = 0
    found = cu.open_results(path).verify()
    assert found.exit_code == 3
    printed = capsys.readouterr().out
    assert "sound, not complete" in printed
    assert "1 cells not run yet" in printed


@pytest.mark.thorough
def test_a_sound_store_is_told_so(
    results: cu.results.Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results.verify()
    assert "sound and complete" in capsys.readouterr().out
    exported = cu.open_results(results.export(tmp_path / "export.zarr")).verify(quiet=True)
    assert (exported.exit_code, capsys.readouterr().out) == (0, "")
    assert "sound and complete" in str(exported)


def test_of_the_study_file_name_and_digest_are_kept(results: cu.results.Results, tmp_path: Path) -> None:
    (source,) = results.attrs["sources"]
    file = Path(__file__).with_name("conftest.py")  # where the fixture calls study.run
    assert source["name"] == file.name
    assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert source["text"] is None
    exported = results.export(tmp_path / "export.zarr") / "zarr.json"
    assert "One small study, run once" not in exported.read_text()


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["run", "search"])
def test_the_script_is_kept_if_that_is_asked_for(
    way: str, study: cu.Study, tiny_model: TextToImage, tmp_path: Path
) -> None:
    study = replace(study, record=cu.Record())
    path, here = tmp_path / "kept.zarr", Path(__file__)
    for keep, text in ((False, None), (True, here.read_text()), (False, here.read_text())):
        getattr(study, way)(path, model=tiny_model, keep_script=keep, progress=False)
        (source,) = cu.open_results(path).attrs["sources"]
        assert (source["name"], source["text"]) == (here.name, text)


def test_git_tells_the_state_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text(SCRIPT)
    assert describe(file)["git"] is None  # type: ignore[index]
    for command in (
        ["init", "-q"],
        ["add", "study.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "study"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert describe(file)["git"] == {"commit": commit.stdout.strip(), "changed": False}  # type: ignore[index]
    (tmp_path / "other.py").write_text("")
    assert not describe(file)["git"]["changed"], "another file does not matter"  # type: ignore[index]
    file.write_text(SCRIPT + "\n")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["study.py", "True"]


def test_what_cannot_be_kept_is_left_out(tmp_path: Path) -> None:
    large = tmp_path / "large.py"
    large.write_text("#" * 300_000)
    assert describe(large, keep_text=True)["text"] is None  # type: ignore[index]
    assert describe(tmp_path / "gone.py") is None
    bytes_ = tmp_path / "bytes.py"
    bytes_.write_bytes(b"\xff\xfe")
    assert describe(bytes_, keep_text=True)["text"] == "\ufffd\ufffd"  # type: ignore[index]


def noisy_null(difference: float, call: float) -> Callable[[zarr.Group], None]:
    """A null run whose image differs by so much, and whose first call by itself."""

    def change(root: zarr.Group) -> None:
        kinds = [item["name"] for item in root.attrs["study"]["interventions"]]  # type: ignore[index,call-overload,union-attr]
        row = kinds.index("null")
        distances = root["trajectory/eps_distance"]
        first = int(np.argmax(np.asarray(root["audit/declared"])[row].any(axis=1)))
        distances[row, 1, first] = call  # type: ignore[index]
        spoil("audit/null_difference", difference, (1,))(root)

    return change


HALF = [{"dtypes": ["bfloat16"], "device_name": "some GPU", "call": 0.02, "largest": 0.1, "image": 0.05}]
"""Of which ten times the call, and four times what runs make of it, are rounding."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("rounding", "difference", "call", "sound"),
    [
        (None, 9e-6, 0.5, True),
        (None, 3e-5, 2e-7, True),
        (None, 9e-3, 9e-6, True),
        (None, 3e-5, 2e-5, False),
        (None, 2e-2, 2e-7, False),
        (HALF, 0.19, 0.19, True),
        (HALF, 0.21, 0.01, False),
        (HALF, 3e-5, 0.21, False),
    ],
)
def test_what_the_noise_floor_owes_to_rounding(
    copied: Callable[[], Path], rounding: Any, difference: float, call: float, sound: bool
) -> None:
    """What the first call differs by is told from what the run makes of it, by bounds that were measured, if any."""
    path = copied()
    with edited(path) as root:
        noisy_null(difference, call)(root)
        if rounding:
            root.attrs["rounding"] = rounding
        else:  # as earlier versions wrote stores
            del root.attrs["rounding"]
    (finding,) = [one for one in cu.open_results(path).verify(quiet=True).findings if one.check == "noise floor"]
    assert (not finding.problems) == sound
    whose = "measured in bfloat16 on some GPU" if rounding else "assumed for float32: none were measured"
    told = " ".join(finding.problems) or finding.looked_at
    assert (whose in told) == (difference > 1e-5)
    assert (f"from {call:.1g} in a call" in finding.looked_at) == (sound and difference > 1e-5)


def test_bounds_of_rounding() -> None:
    """At least some units in the last place, at most what is no rounding any more; the widest of several."""
    exact = {"dtypes": ["float32"], "device_name": "cpu", "call": 0.0, "largest": 0.0}
    assert Bounds.of([exact]).call == pytest.approx(8 * 2**-23)
    assert Bounds.of([exact | {"dtypes": ["float16", "float32"]}]).call == pytest.approx(8 * 2**-10)
    assert Bounds.of([exact | {"call": 5e-7}]).call == pytest.approx(5e-6)
    assert Bounds.of([exact | {"call": 0.3}]).call == pytest.approx(128 * 2**-23), "a norm over the batch"
    both = Bounds.of([exact, *HALF])
    assert (both.call, both.image) == (pytest.approx(0.2), pytest.approx(0.2))
    assert both.told == "measured in float32 on cpu and measured in bfloat16 on some GPU"
    nonsense: list[dict[str, Any]] = [
        {},
        exact | {"call": "1"},
        exact | {"largest": -1.0},
        exact | {"dtypes": "float32"},
    ]
    assert Bounds.of(nonsense) == Bounds()


def test_the_first_call_that_differs() -> None:
    distances = np.array(
        [[[0, 0, 2e-7, 5e-3], [0, 0, 0, 0], [np.nan, 3e-6, 1, 1], [np.nan] * 4], [[0, 3e-7, 1, 1]] * 4]
    )
    np.testing.assert_allclose(first_distance(distances), [3e-7, 3e-7, 3e-6, 3e-7])
    np.testing.assert_array_equal(first_distance(distances[:1]), [2e-7, 0, 3e-6, np.nan])
    first = first_distance(distances[:1])
    np.testing.assert_array_equal(
        beyond_rounding(np.array([3e-5, 3e-5, 2e-2, 3e-5]), first), [False, False, True, True]
    )
    assert not beyond_rounding(np.array([np.nan, 1e-6]), np.array([np.nan, np.nan])).any()
