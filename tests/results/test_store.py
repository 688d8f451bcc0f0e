"""Opening results: lazily, without torch, with plain xarray too; what is no store, or a damaged one, is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr

import causalunet as cu
from causalunet.errors import StoreError
from causalunet.models.text_to_image import TextToImage
from causalunet.results.meaning.index import InterventionIndex, StepIndex
from tests.results.opened import arrays_of, chunk_files, flip_one_byte
from tests.without_torch import run_without_torch

OPEN_WITHOUT_TORCH = """
import json

import causalunet as cu

results = cu.open_results(sys.argv[1])
curve = results.outcomes.ssim.sel(kind="ablate_block", bottom=2).mean("sample")
check()
print(json.dumps({"ssim": curve.values.tolist(), "start": curve.start.values.tolist()}))
"""


CHECKSUM = 4


def datasets(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    return {node.path: node.to_dataset() for node in tree.subtree}


def test_groups_and_attributes(results: xr.DataTree, study: cu.Study, tiny_model: TextToImage) -> None:
    groups = (
        "baseline",
        "outcomes",
        "trajectory",
        "activations/mid",
        "activations/up.3",
        "activation_summary",
        "audit",
    )
    paths = {f"/{group}" for group in groups}
    assert paths == {node.path for node in results.leaves}
    attributes = results.attrs
    assert (attributes["format"], attributes["format_version"]) == ("causalunet-results", 3)
    assert cu.Study.from_json(attributes["study"]) == study
    assert attributes["digest"] == study.digest
    assert attributes["block"] == 3
    assert attributes["model_fingerprint"] == tiny_model.fingerprint
    assert {"causalunet", "torch", "nnsight", "numpy", "xarray", "zarr", "icechunk", "python"} <= set(
        attributes["versions"]
    )
    plan = study.plan(tiny_model, calibrate=False)
    assert attributes["unet_calls_planned"] == plan.unet_calls == int(results.audit.unet_calls.sum())
    assert attributes["unet_calls_naive"] == plan.naive_calls


def test_values_are_read_when_asked_for(results: xr.DataTree) -> None:
    for path, dataset in datasets(results).items():
        for name, array in dataset.data_vars.items():
            assert not array.variable._in_memory, f"{path}/{name}"
    ssim = results.outcomes.ssim
    assert not ssim.sel(kind="ablate_block").variable._in_memory
    assert ssim.load().variable._in_memory


def test_status_is_data(results: xr.DataTree, study: cu.Study) -> None:
    assert results.baseline.status.values.tolist() == [1, 1, 1]
    assert results.outcomes.status.shape == (len(study.interventions), 3)
    assert results.outcomes.status.all()


def test_selecting_by_what_interventions_are(results: xr.DataTree, study: cu.Study) -> None:
    ssim = results.outcomes.ssim
    chosen = ssim.sel(kind="ablate_block", bottom=2)
    assert chosen.dims == ("intervention", "sample")
    assert chosen.start.values.tolist() == [6, 4]
    assert np.array_equal(chosen, ssim.values[[0, 1]])
    assert ssim.sel(kind="ablate_block", start=slice(5)).bottom.values.tolist() == [2, 3]
    assert ssim.sel(digest=study.interventions[4].digest).kind.values.tolist() == ["ablate_skip"]
    assert ssim.sel(intervention=study.interventions[1].label).values.tolist() == ssim.values[1].tolist()
    assert ssim.sel(intervention="null 6-5").values == pytest.approx(1.0)
    assert results.outcomes.to_dataset().sel(top=1).sizes["intervention"] == 2
    assert results.trajectory.x0_distance.sel(kind="null", step=3).shape == (1, 3)
    assert results["activations/mid"].intervened.sel(kind="ablate_skip", step=[5]).shape[:3] == (2, 3, 1)
    assert results.activation_summary["mean"].sel(bottom=2, component="up.2").dims == ("intervention", "sample", "step")
    with pytest.raises(KeyError, match=r"'bottom': \[0, 2, 3\]"):
        ssim.sel(bottom=5)


def test_spec_is_that_of_the_study(results: xr.DataTree, study: cu.Study) -> None:
    specs = [json.loads(text) for text in results.outcomes.spec.values]
    assert specs == [intervention.to_json() for intervention in study.interventions]


def test_opens_without_torch(results: xr.DataTree, store: Path) -> None:
    done = run_without_torch(OPEN_WITHOUT_TORCH, str(store))
    assert done.returncode == 0, done.stderr
    expected = results.outcomes.ssim.sel(kind="ablate_block", bottom=2).mean("sample")
    assert json.loads(done.stdout.splitlines()[-1]) == {"ssim": expected.values.tolist(), "start": [6, 4]}


def test_an_export_opens_with_plain_xarray(results: cu.results.Results, tmp_path: Path) -> None:
    with xr.open_datatree(results.export(tmp_path / "export.zarr"), engine="zarr") as plain:
        assert set(datasets(plain)) == set(datasets(results))
        for path, dataset in datasets(plain).items():
            ours = datasets(results)[path]
            assert set(dataset.coords) == set(ours.coords)
            dataset.attrs.pop("declaration", None)  # which is long, and results.declaration
            xr.testing.assert_identical(dataset.load(), with_indexes_of_xarray(ours).load())
        outcomes = plain["outcomes"].to_dataset()
        chosen = outcomes.ssim.where((outcomes.kind == "ablate_block") & (outcomes.bottom == 2), drop=True)
        assert np.array_equal(chosen, results.outcomes.ssim.sel(kind="ablate_block", bottom=2))


def with_indexes_of_xarray(dataset: xr.Dataset) -> xr.Dataset:
    kinds = {name: type(index) for name, index in dataset.xindexes.items()}
    plain = dataset.drop_indexes([name for name, kind in kinds.items() if kind in (InterventionIndex, StepIndex)])
    return plain.set_xindex("step") if kinds.get("step") is StepIndex else plain


def make_other_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("ssim")


def make_file(path: Path) -> None:
    path.write_text("ssim")


def make_foreign_repository(path: Path) -> None:
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repository.writable_session("main")
    zarr.create_group(session.store).create_array("ssim", shape=(3,), dtype="f4")
    session.commit("not ours")


def make_foreign(path: Path) -> None:
    zarr.create_group(path).create_array("ssim", shape=(3,), dtype="f4")


def marker(text: str | bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "zarr.json").write_bytes(text.encode() if isinstance(text, str) else text)

    return make


NO_STORE = {
    "missing": (lambda path: None, r"There is nothing at .*other\.zarr. Run a study with study\.run\("),
    "file": (make_file, "is not a results store: it is a file. Give the path of a folder"),
    "other folder": (make_other_folder, r"is not a results store that can be written to: it holds thesis\.tex"),
    "foreign repository": (make_foreign_repository, "is a zarr store, but not one of causalunet's results"),
    "foreign zarr": (make_foreign, "is a zarr store, but not one of causalunet's results"),
    "broken json": (marker('{"attributes": '), "Failed opening .* JSONDecodeError"),
    "bytes": (marker(b"\xff\xfe\x00"), "Failed opening .* UnicodeDecodeError"),
    "list": (marker("[1, 2]"), "Failed opening "),
    "no attributes": (marker("{}"), "is a zarr store, but not one of causalunet's results"),
    "odd attributes": (marker('{"attributes": [1]}'), "Failed opening |not one of causalunet's results"),
    "other version": (
        marker('{"attributes": {"format": "causalunet-results", "format_version": 99}}'),
        "has format version 99; this causalunet reads 2 and 3. Open it with the version of causalunet that wrote it",
    ),
}


@pytest.mark.parametrize(("make", "message"), NO_STORE.values(), ids=NO_STORE)
def test_what_is_no_store_is_told(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "other.zarr"
    make(path)
    with pytest.raises(StoreError, match=message):
        cu.open_results(path)
    with pytest.raises(StoreError, match=message):
        cu.open_results(str(path))


@pytest.mark.parametrize("make", [make for make, _ in NO_STORE.values()], ids=NO_STORE)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_store_is_never_written_over(
    tmp_path: Path, study: cu.Study, tiny_model: TextToImage, make: Callable[[Path], None], overwrite: bool
) -> None:
    path = tmp_path / "other.zarr"
    make(path)
    if not path.exists():
        return
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"}
    with pytest.raises(StoreError, match=r"is not a results store|not one of causalunet's results"):
        study.run(path, model=tiny_model, overwrite=overwrite, progress=False)
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"}
    assert after == before


def test_a_damaged_chunk_is_told_when_it_is_read(copied: Callable[[], Path]) -> None:
    path = copied()
    size = cu.open_results(path).outcomes.image.nbytes + CHECKSUM
    for file in chunk_files(path):
        if file.stat().st_size == size:
            flip_one_byte(file)
    results = cu.open_results(path)
    assert results.outcomes.ssim.notnull().all()
    with pytest.raises(Exception, match="checksum"):
        results.outcomes.image.load()
    found = results.verify(quiet=True)
    assert found.exit_code == 1
    assert "outcomes/image: chunk 0/0/0/0/0" in str(found)


def test_no_array_is_read_with_a_damaged_chunk(copied: Callable[[], Path]) -> None:
    path = copied()
    arrays = arrays_of(path)
    for file in chunk_files(path):
        flip_one_byte(file)
    for array in arrays.values():
        if array.nchunks_initialized:
            with pytest.raises(Exception, match="checksum"):
                array[...]
