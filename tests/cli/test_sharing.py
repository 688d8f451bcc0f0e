"""Options that share a study: workers, devices and shares of the samples."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import causalunet as cu
from causalunet.cli.exits import Exit
from causalunet.results.meaning.schema import COMPLETE
from tests.cli.conftest import Command
from tests.trust.truth import read

STUDY = cu.Study(
    name="shared",
    model="tiny",
    prompts=["a red circle"],
    seeds=range(5),
    sampler=cu.DDPM(steps=2),
    interventions=[cu.AblateBlock(2, cu.Window(2, 1))],
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shared.json"
    path.write_text(json.dumps(STUDY.to_json()))
    return path


@pytest.mark.thorough
def test_shares_together_are_the_whole_study(file: Path, tmp_path: Path, command: Command) -> None:
    store, alone = tmp_path / "shared.zarr", tmp_path / "alone.zarr"
    for number, complete in ((2, 2), (1, 4), (3, 5)):  # blocks of two samples, the last of one
        assert command("run", file, store, "--shard", f"{number}/3").code == Exit.DONE
        status = cu.open_results(store).baseline.status.values
        assert (status == COMPLETE).sum() == complete
    assert command("run", file, store, "--shard", "2/3").code == Exit.DONE, "which is there already"
    results = cu.open_results(store)
    assert results.verify(quiet=True)
    committed = [commit.added for commit in results.history() if commit.added.get("cells")]
    assert sum(added["baselines"] for added in committed) == 5
    assert sum(added["cells"] for added in committed) == results.outcomes.status.size
    assert command("run", file, alone).code == Exit.DONE
    for path, (_, values) in read(cu.open_results(alone)).items():
        if path.startswith(("outcomes/", "baseline/")) and values.dtype.kind == "f" and "psnr" not in path:
            assert read(results)[path][1] == pytest.approx(values, abs=1e-5, nan_ok=True), path


def test_there_are_as_many_shares_as_samples_at_most(file: Path, tmp_path: Path, command: Command) -> None:
    told = command("run", file, tmp_path / "shared.zarr", "--shard", "7/9")
    assert (told.code, cu.open_results(tmp_path / "shared.zarr").outcomes.status.values.sum()) == (Exit.DONE, 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--shard", "0/3"), "'0/3' is no share"),
        (("--shard", "4/3"), "'4/3' is no share"),
        (("--shard", "half"), "'half' is no share"),
        (("--devices", "0"), "'0' is no number of devices"),
        (("--shard", "1/2", "--devices", "all"), "not allowed with argument"),
    ],
)
def test_what_is_no_share_is_told(
    file: Path, tmp_path: Path, command: Command, options: tuple[str, ...], told: str
) -> None:
    ended = command("run", file, tmp_path / "shared.zarr", *options)
    assert ended.code == Exit.ERROR
    assert told in ended.err
    assert not (tmp_path / "shared.zarr").exists()


needs_dask = pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="needs distributed")


@needs_dask
def test_more_devices_than_there_are_is_told(file: Path, tmp_path: Path, command: Command) -> None:
    ended = command("run", file, tmp_path / "shared.zarr", "--devices", "1024")
    assert (ended.code, "--devices 1024, and this machine has" in ended.err) == (Exit.ERROR, True)


@needs_dask
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_by_its_address(file: Path, tmp_path: Path, command: Command) -> None:
    from tests.cluster.conftest import cluster

    with cluster(1, processes=False, protocol="tcp://") as client:
        ended = command("run", file, tmp_path / "shared.zarr", "--scheduler", client.scheduler.address)
    assert ended.code == Exit.DONE
    assert cu.open_results(tmp_path / "shared.zarr").verify(quiet=True)
