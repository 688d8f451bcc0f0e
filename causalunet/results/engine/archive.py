"""Exports in one file, and exports at addresses of the web: read only, and every chunk must be there."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore, ZipStore

from causalunet.errors import DamageError, StorageError, StoreError
from causalunet.results.engine.location import Location

__all__ = ["ArchiveStore", "open_archive", "pack"]

_MOST_FILES = 1_000_000
_MOST_FILE = (1 << 29) + (1 << 25)
"""Bytes of a file: the largest shard, and what goes with it."""
_ROOT = "zarr.json"
_AT_ONCE = 1 << 20
"""Bytes that one request asks for at least: what is small lies side by side in the file."""
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of all files, so that two exports of the same results are the same file."""


class ArchiveStore(WrapperStore[Store]):
    """A store that can be read only, of which every chunk must be there.

    Parameters
    ----------
    store : zarr Store
    where : object
        Whose text names it.
    documents : dict of str to dict, optional
        What its root says of all groups and arrays (consolidated metadata), by path: these are then neither asked for
        one by one nor looked for, as servers of the web list no folders.
    """

    def __init__(self, store: Store, where: object = "", documents: dict[str, Any] | None = None) -> None:
        super().__init__(store)
        self._where, self._documents = where, documents

    def _with_store(self, store: Store) -> ArchiveStore:
        return type(self)(store, self._where, self._documents)

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """Read a file, or part of it.

        Raises
        ------
        DamageError
            A chunk is missing.
        StorageError
            The server could not be reached.
        """
        prototype = prototype or default_buffer_prototype()
        path = key.removesuffix(_ROOT).rstrip("/")
        if self._documents is not None and path in self._documents and key.endswith(_ROOT):
            return prototype.buffer.from_bytes(json.dumps(self._documents[path]).encode())
        try:
            found = await self._store.get(key, prototype, byte_range)
        except Exception as error:
            if _is_of_network(error):
                raise StorageError(f"Failed reading {self._where}: {_said(error)}. Try again.") from error
            raise
        if found is None and "/c/" in key:
            raise DamageError(f"{self._where} is damaged: the file {key} is missing.")
        return found

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of what lies in a group."""
        if self._documents is None:
            async for name in self._store.list_dir(prefix):
                yield name
            return
        below = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        inside = {path.removeprefix(below).partition("/")[0] for path in self._documents if path.startswith(below)}
        for name in sorted(inside - {""}):
            yield name


def open_archive(location: Location) -> ArchiveStore:
    """Open an export that is no folder of this machine.

    Parameters
    ----------
    location : Location
        Of a file, or an address of the web: of such a file, or of the folder.

    Raises
    ------
    StoreError
        There is nothing, or fsspec, which reads addresses, is not installed.
    StorageError
        The server could not be reached.
    DamageError
        It is no such file, or holds what no export does.
    """
    if location.folder is not None:
        store = ZipStore(location.folder, mode="r", read_only=True)
        sync(store._open())
        _check_members(store._zf, location)
        return ArchiveStore(store, location)
    try:
        return _open_zipped(location) if location.zipped else _open_folder(location)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"There is nothing at {location}, or its server cannot be reached.") from error
    except ImportError as error:
        raise StoreError(
            f"To read {location}, fsspec and what it needs for such addresses have to be installed "
            f"({_said(error)}): pip install 'causalunet[share]'."
        ) from error
    except Exception as error:
        if _is_of_network(error):
            raise StorageError(f"Failed opening {location}: {_said(error)}. Try again.") from error
        raise


def _open_zipped(location: Location) -> ArchiveStore:
    import fsspec
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from fsspec.implementations.zip import ZipFileSystem
    from zarr.storage import FsspecStore

    opened = fsspec.open(str(location), "rb", block_size=_AT_ONCE, cache_type="readahead")
    inside = ZipFileSystem(fo=opened.open())
    _check_members(inside.zip, location)
    store = FsspecStore(AsyncFileSystemWrapper(inside, asynchronous=True), read_only=True, path="")
    return ArchiveStore(store, location, _documents(store, location))


def _open_folder(location: Location) -> ArchiveStore:
    from zarr.storage import FsspecStore

    store = FsspecStore.from_url(str(location), read_only=True)
    return ArchiveStore(store, location, _documents(store, location))


def _documents(store: Store, location: Location) -> dict[str, Any]:
    """What the root says of itself and of all that is in it."""
    content = sync(store.get(_ROOT, default_buffer_prototype()))
    if content is None:
        raise StoreError(f"There is nothing at {location}, or no export of results: it has no {_ROOT}.")
    try:
        root = json.loads(content.to_bytes())
        members = root["consolidated_metadata"]["metadata"]
        well = all(isinstance(path, str) and isinstance(one, dict) for path, one in members.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        well = False
    if not well:
        raise DamageError(
            f"{location} is no export of results: its {_ROOT} lacks consolidated metadata, which results.export writes."
        )
    return {"": root, **members}


def _check_members(archive: zipfile.ZipFile, location: Location) -> None:
    """Refuse what no export writes: files that unpack to more than they are, or are too many or too large."""
    members = archive.infolist()
    strange = [
        one.filename
        for one in members
        if one.compress_type != zipfile.ZIP_STORED
        or one.file_size != one.compress_size
        or one.file_size > _MOST_FILE
        or one.flag_bits & 1
        or one.is_dir()
    ]
    if strange or len(members) > _MOST_FILES:
        raise DamageError(
            f"{location} holds {(strange or ['too many files'])[0]!a:.300}, as no export does: an export is written "
            "by results.export, and its files are stored in it as they are."
        )


def pack(folder: Path, file: Path) -> None:
    """Write a folder of plain zarr into one file, what is read first at its beginning.

    Parameters
    ----------
    folder, file : Path
        The file must not exist.
    """
    with zipfile.ZipFile(file, "x", zipfile.ZIP_STORED) as archive:
        for path in _in_order(folder):
            told = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _LONG_AGO)
            told.external_attr = 0o644 << 16
            told.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(told, "w") as target:
                shutil.copyfileobj(source, target, _AT_ONCE)


def _in_order(folder: Path) -> Iterator[Path]:
    """Documents, then chunks from small to large: coordinates are read when results are opened, images later."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return iter(sorted(files, key=lambda path: (path.name != _ROOT, path.stat().st_size, path.as_posix())))


def _is_of_network(error: BaseException) -> bool:
    packages = {"aiohttp", "httpx", "requests", "huggingface_hub", "urllib3"}
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.partition(".")[0] in packages


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(". ")
