"""Which workers run a study, and how they come by its model: checked before anything runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causalunet.calls import clear_calls
from causalunet.errors import ClusterError, SpecError

if TYPE_CHECKING:
    from causalunet.models.base import DiffusionModel

__all__ = ["Workers", "adapts", "asked", "check_versions", "loader_bytes", "number_of", "workers_of"]

_MOST_BYTES = 10_000_000
"""Of a pickled loader: one that carries weights would send them through the scheduler."""
_ASKED = ("submit", "nthreads", "register_plugin", "scheduler_info")


@clear_calls
@dataclass(frozen=True, kw_only=True)
class Workers:
    """Workers of a dask cluster that run a study.

    Parameters
    ----------
    client : distributed.Client
        Of any cluster: ``LocalCluster``, ``SSHCluster``, ``SLURMCluster``, ``LocalCUDACluster`` and others. Not an
        asynchronous one.
    load : callable, optional
        Called without arguments by every worker, once, to load the model. It travels pickled, so it is a function of
        few bytes, such as ``functools.partial(causalunet.load_model, "shapes", device="cuda")``. By default what loads
        the study's registered model.
    resources : mapping of str to float, optional
        That a worker must have to run a part, such as ``{"GPU": 1}``.
    retries : int
        How often a part is tried again whose run ended in an error that may pass, such as one of storage or of a GPU.

    Notes
    -----
    ``study.run(path, client=cu.Workers(client=Client("tcp://host:8786"), resources={"GPU": 1}))``.
    """

    client: Any
    load: Callable[[], DiffusionModel] | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    retries: int = 3

    def __post_init__(self) -> None:
        if lacking := [name for name in _ASKED if not callable(getattr(self.client, name, None))]:
            raise SpecError(
                f"client={type(self.client).__name__} is no client of dask (it has no {', '.join(lacking)}). Give a "
                "distributed.Client, such as Client(LocalCluster(threads_per_worker=1)), or Workers of one."
            )
        if getattr(self.client, "asynchronous", False):
            raise SpecError("The client is asynchronous, and a study waits for its parts: give Client(address).")
        if self.load is not None and not callable(self.load):
            raise SpecError(
                f"Workers got load={type(self.load).__name__}, which cannot be called. Give a function that loads the "
                'model, such as functools.partial(causalunet.load_model, "shapes", device="cuda").'
            )
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise SpecError(f"Workers got retries={self.retries!r}; give a number of times, such as 3, or 0 for none.")
        if not all(isinstance(name, str) and amount > 0 for name, amount in self.resources.items()):
            raise SpecError(
                f'Workers got resources={dict(self.resources)!r}; give amounts by name, such as {{"GPU": 1}}.'
            )


def workers_of(client: Any) -> Workers:
    """The workers of a client, with all else as by default, or those given."""
    return client if isinstance(client, Workers) else Workers(client=client)


@contextmanager
def asked() -> Iterator[None]:
    """Say in one way that the scheduler is gone: its client says it in another at every call, and at every moment.

    Raises
    ------
    ClusterError
    """
    from distributed.client import ClosedClientError

    try:
        yield
    except (asyncio.CancelledError, concurrent.futures.CancelledError, OSError, ClosedClientError) as error:
        raise ClusterError(
            "The scheduler of the cluster is gone, or has forgotten this study. What was committed stays, and the same "
            "call goes on after it, on this cluster or another."
        ) from error


def number_of(client: Any) -> int:
    """How many workers a client's cluster has now; raises `ClusterError` where its scheduler is gone."""
    with asked():
        return len(client.nthreads())


def adapts(client: Any) -> bool:
    """Whether a client's cluster, as far as it is known here, grows with what waits."""
    return getattr(getattr(client, "cluster", None), "_adaptive", None) is not None


def loader_bytes(workers: Workers, model: DiffusionModel, name: str) -> bytes:
    """What loads the model on a worker, pickled.

    Parameters
    ----------
    workers : Workers
    model : DiffusionModel
        The one that the study was planned with.
    name : str
        Of the study's registered model.

    Raises
    ------
    SpecError
        The model was handed in, or its loader cannot be pickled or carries a model.
    """
    load = workers.load or _registered(name, model)
    try:
        import cloudpickle

        sent: bytes = cloudpickle.dumps(load, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever a user's object raises
        raise SpecError(
            f"What loads the model cannot be sent to workers ({type(error).__name__}: {error!s:.200}). Give Workers a "
            "load= that holds nothing but names and numbers, such as a function of a module that workers can import."
        ) from error
    if len(sent) > _MOST_BYTES:
        raise SpecError(
            f"What loads the model takes {len(sent) / 1e6:,.0f} MB: it carries a model or weights, which would go "
            "through the scheduler. Give Workers a load= that reads them from a file that workers can reach."
        )
    return sent


def _registered(name: str, model: DiffusionModel) -> Callable[[], DiffusionModel]:
    from causalunet.models.base import loader_of, model_names

    if name in model_names() or "/" in name:
        return loader_of(name)
    raise SpecError(
        f"The model {model.name!r} was handed in as an object, and objects with weights are not sent to workers: each "
        f"loads the model itself, once. The study's model={name!r} is not registered either (registered: "
        f"{', '.join(model_names())}). Give client=causalunet.Workers(client=client, load=function), with a function "
        "that returns the model."
    )


def check_versions(here: Mapping[str, str], there: Mapping[str, str], worker: str) -> None:
    """Check that a worker has the software that results depend on.

    Raises
    ------
    ClusterError
        Another version of the package or of the storage engine.
    """
    if different := [name for name in ("causalunet", "icechunk", "zarr") if here[name] != there[name]]:
        told = ", ".join(f"{name} {there[name]} there and {here[name]} here" for name in different)
        raise ClusterError(f"The worker {worker} has other versions: {told}. Install the same on all machines.")
