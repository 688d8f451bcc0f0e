"""Opening, reading and exploring a store of 1000 interventions x 100 samples and 5 GB, without torch: ``make bench``.

Every part of the reading side runs in a process of its own, which prints how long it took and the most memory it had.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from causalunet.bound import BoundStudy
from causalunet.design import DDPM, AblateBlock, StudySpec, Window
from causalunet.plan import make_plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import COMPLETE
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.design.examples import u_anatomy

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

INTERVENTIONS, SAMPLES, STEPS, BLOCK = 1000, 100, 20, 4
IMAGE = (3, 64, 64)

READ = """
import json, sys, time

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"einops", "nnsight", "safetensors", "torch"}:
            raise ModuleNotFoundError(f"{name} is blocked here", name=name)

sys.meta_path.insert(0, Blocker)
started = time.perf_counter()
import causalunet as cu
imported = time.perf_counter()
results = cu.open_results(sys.argv[1])
opened = time.perf_counter()
RUN
done = time.perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) / 1000  # of this program; ru_maxrss would count the parent's before exec
print(json.dumps({"import": imported - started, "open": opened - imported, "work": done - opened, "peak_mb": peak}))
"""
WORK = {
    "open": "pass",
    "mean SSIM of every intervention": "assert results.outcomes.ssim.mean('sample').notnull().all()",
    "images of one intervention": "assert results.outcomes.image.isel(intervention=500).notnull().all()",
    "effects with intervals": "cu.analysis.effects(results, 'ssim', allow_incomplete=True)",
    "verify": "results.verify(quiet=True)",
    "export": "results.export(sys.argv[1] + '.export')",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of random numbers, and SSIM; the other outcomes are not written."""
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    starts = range(STEPS, STEPS - 10, -1)
    items = [
        AblateBlock(bottom, Window(start, length), label=f"{bottom} {start} {length} {copy}", branch=branch)
        for copy, branch in enumerate(("both", "cond", "uncond"))
        for bottom in (1, 2, 3, 4)
        for start in starts
        for length in range(1, 11)
    ][:INTERVENTIONS]
    spec = StudySpec(
        name="large", prompts=["a circle"], seeds=range(SAMPLES), interventions=items, sampler=DDPM(steps=STEPS)
    )
    plan = make_plan(BoundStudy(spec, u_anatomy(), Schedule.spaced(cosine_alpha_bar(), STEPS), IMAGE))
    layout = Layout(plan, {}, BLOCK)
    writer = StudyWriter.create(Location.parse(path), layout, StoreAttributes(study=spec.to_json(), digest=spec.digest))
    rng, count = np.random.default_rng(0), len(layout.grid.interventions)
    images = rng.random((128, BLOCK, *IMAGE), np.float32)
    for start in range(0, SAMPLES, BLOCK):
        part = slice(start, start + BLOCK)
        for first in range(0, count, 128):
            rows = slice(first, min(first + 128, count))
            writer.write("outcomes/image", (rows, part), images[: rows.stop - first])
        for name in ("ssim", "psnr", "mse"):
            writer.write(f"outcomes/{name}", (slice(None), part), rng.random((count, BLOCK)))
        writer.write("baseline/image", (part,), images[0])
        writer.write("baseline/status", (part,), np.array(COMPLETE))
        writer.write("outcomes/status", (slice(None), part), np.array(COMPLETE))
        writer.commit("random numbers", {})
    return path


def test_reading_takes_little_memory(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e9
    lines = [f"{INTERVENTIONS} interventions x {SAMPLES} samples, {size:.2f} GB on disk, reading without torch"]
    for name, work in WORK.items():
        done = subprocess.run(
            [sys.executable, "-c", READ.replace("RUN", work), str(store)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        took = json.loads(done.stdout.splitlines()[-1])
        lines.append(
            f"{name:32s} import {took['import']:5.2f} s  open {took['open']:5.2f} s  then {took['work']:7.2f} s  "
            f"peak memory {took['peak_mb']:4.0f} MB"
        )
        assert took["peak_mb"] < 300, lines[-1]
    with capsys.disabled():
        print("", *lines, sep="\n")


def test_the_explorer_shows_a_number_soon(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to its address, and from a request to a page with number and figure, by view."""
    pytest.importorskip("panel")
    started = time.perf_counter()
    command = [sys.executable, "-m", "causalunet", "explore", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            _explore(process, started, capsys)
        finally:
            process.kill()


def _explore(process: subprocess.Popen[str], started: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert process.stdout is not None
    said = []
    while "http://" not in (line := process.stdout.readline()):
        assert line, "".join(said)
        said.append(line)
    lines = [f"causalunet explore: listens after {time.perf_counter() - started:.2f} s"]
    address = "http://" + line.partition("http://")[2].split()[0]
    time.sleep(2)  # until somebody has opened the address
    for view in ("curves", "images", "plan", "audit", "curves"):
        asked = time.perf_counter()
        with urllib.request.urlopen(f"{address}?view={view}") as page:
            assert "bokeh" in page.read().decode()
        lines.append(f"{view:32s} {time.perf_counter() - asked:5.2f} s")
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1000
    lines.append(f"peak memory {peak:.0f} MB")
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert peak < 500
