"""The command ``explore``: it reads, and needs no torch."""

from __future__ import annotations

import argparse

from causalunet.cli.exits import Exit
from causalunet.cli.printing import tell
from causalunet.explore import serve
from causalunet.results.store import open_results

__all__ = ["explore"]


def explore(options: argparse.Namespace) -> Exit:
    """Show a store in a browser until Ctrl-C."""
    results = open_results(options.store, at=options.at)
    served = serve(results, address=options.address, port=options.port, token=options.token)
    tell(f"Open {served.url}")
    if served.token:
        tell(
            "Whoever has this address can look at the results. It is not encrypted: keep it to networks that you trust."
        )
    tell("Ctrl-C ends it.")
    served.run()
    return Exit.DONE
