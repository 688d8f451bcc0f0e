"""A calling process with workers, on a store in an object store that others work on, or worked on."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import pytest

from causalunet.execute.fill.run_plan import run_plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from tests.cluster.conftest import run
from tests.trust import small
from tests.trust.object_store import ENVIRONMENT, s3_server
from tests.trust.truth import Truth

pytest.importorskip("moto", reason="the S3 server is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.mark.thorough
def test_workers_take_over_what_a_killed_process_had_claimed(
    whole: Truth, at_hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server("results") as url, ExitStack() as left:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        address = "s3://results/claimed"
        run_plan(small.STUDY.plan(small.model()), address, memory=small.MEMORY, progress=False, shard=(1, 3))
        other, running = Repository.open(Location.parse(address)), Repository.open(Location.parse(address))
        left.enter_context(other.claim("block-000001", wait="no"))
        other._leases._ended.set()  # it is killed: no beat any more
        claim = running.claim("block-000002", wait="no")
        claim.__enter__()
        after = threading.Timer(2 * small.LEASE_SECONDS, claim.__exit__, (None, None, None))
        after.start()
        results = run(address, at_hand)
        assert after.finished.is_set(), "it is waited for one that runs"
        seen = whole.compare(results)
        assert (seen.wrong, seen.whole) == ([], True)
        assert len([commit for commit in results.history() if commit.added.get("cells")]) == small.PARTS
        assert running._leases._handle.list_branches() == {"main"}
