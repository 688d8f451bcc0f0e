"""Reading an export: plain zarr takes a chunk that is not there for one of fill values, an export has them all."""

from __future__ import annotations

from typing import Any

from zarr.abc.store import RangeByteRequest
from zarr.storage import LocalStore

from causalunet.errors import DamageError

__all__ = ["ExportedStore"]


class ExportedStore(LocalStore):
    """A folder of plain zarr in which every chunk must be there, whole.

    Parameters
    ----------
    root : Path
    read_only : bool
    """

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Read a file, or part of it.

        Raises
        ------
        DamageError
            A chunk is missing, or ends before the part asked for.
        """
        self._check(key, byte_range)
        return await super().get(key, prototype, byte_range)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        """Read in turn, for versions of zarr that do."""
        self._check(key, byte_range)
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    def _check(self, key: str, byte_range: Any) -> None:
        if "/c/" not in key:
            return
        path = self.root / key
        if not path.is_file() or not path.stat().st_size:
            raise DamageError(f"{self.root} is damaged: the file {key} is missing or empty.")
        # A damaged index of a shard may ask for more bytes than any memory has.
        if isinstance(byte_range, RangeByteRequest) and not byte_range.start <= byte_range.end <= path.stat().st_size:
            raise DamageError(f"{self.root} is damaged: the file {key} ends too early.")
