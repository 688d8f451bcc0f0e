"""Running a study on the workers of a dask cluster; nothing here imports dask before a client is given."""

from causalunet.cluster.workers import Workers

__all__ = ["Workers"]
