"""Without the extra, and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.without_torch import run_without_torch

_WITHOUT = """
import sys

sys.modules["panel"] = sys.modules["bokeh"] = None

import causalunet as cu
from causalunet.cli import main

results = cu.open_results(sys.argv[1])
for call in (results.explore, lambda: cu.explore.serve(results), lambda: cu.explore.draw(results, "curves")):
    try:
        call()
    except cu.MissingExtraError as error:
        print(error)
print(main(["explore", sys.argv[1]]))
"""


@pytest.mark.thorough
def test_what_is_missing_is_told(store: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT, str(store)], capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()
    assert len(told) == 4
    assert told[-1] == "2"
    assert all("pip install 'causalunet[explore]'" in line for line in [*told[:-1], done.stderr])


@pytest.mark.thorough
def test_it_needs_no_torch_and_only_it_loads_panel(store: Path) -> None:
    script = """
import causalunet as cu
import causalunet.cli.commands
results = cu.open_results(sys.argv[1])
assert not {"panel", "bokeh"} & sys.modules.keys()
shown = results.explore()
assert "panel" in sys.modules
cu.explore.draw(results, "images")
check()
"""
    done = run_without_torch(script, str(store))
    assert done.returncode == 0, done.stderr
