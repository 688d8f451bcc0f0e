"""Draw the loss of a training over its iterations, from the log that it writes.

python docs/training/curve.py LOG PNG
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from causalunet import report


def main(log: Path, png: Path) -> None:
    """Write the figure.

    Parameters
    ----------
    log : Path
        ``log.jsonl`` of a training: a record of iteration and mean loss a line.
    png : Path
    """
    records = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.semilogy(
        [record["iteration"] for record in records],
        [record["loss"] for record in records],
    )
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss")
    axes.grid(visible=True, alpha=0.3)
    report.save(figure, png)
    last = records[-1]
    print(f"{last['iteration']} iterations, loss {last['loss']:.4f} at the end")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
