"""Curves of trainings: what is drawn is what the logs say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from causalunet.errors import SpecError
from causalunet.report import plot_training

RECORDS = [{"iteration": 50 * i, "loss": 2.0 / i, "noise_mse": 1.0 / i} for i in range(1, 5)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.mark.parametrize("variable", ["loss", "noise_mse"])
def test_curves_are_those_of_the_logs(log: Path, variable: str) -> None:
    (ax,) = plot_training({"one": log, "other": str(log)}, variable=variable).axes
    assert [line.get_label() for line in ax.lines] == ["one", "other"]
    expected = [[record["iteration"], record[variable]] for record in RECORDS]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), expected)
    assert ax.get_ylabel() == variable.replace("_", " ")


def test_what_is_no_log_is_told(log: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"log\.jsonl has no 'accuracy'; there are loss, noise_mse"):
        plot_training({"one": log}, variable="accuracy")
    with pytest.raises(SpecError, match=r"none\.jsonl is no log of a training"):
        plot_training({"one": tmp_path / "none.jsonl"})
    for text in ("no json\n", "[1]\n", '{"iteration": "x", "loss": null}\n', "\n"):
        log.write_text(text)
        with pytest.raises(SpecError, match=r"log\.jsonl is no log of a training"):
            plot_training({"one": log})
