"""Where a results store lies: a folder, or an address in an object store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from causalunet.errors import StoreError
from causalunet.paths import given_path

if TYPE_CHECKING:
    import icechunk

__all__ = ["Location", "check_outside"]

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<bucket>[^/]*)/?(?P<prefix>.*)")
_WEB = ("hf", "http", "https")
"""Addresses at which exports can be read."""
_ZIP = ".zip"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


@dataclass(frozen=True, slots=True)
class Location:
    """A place that can hold a results store.

    Parameters
    ----------
    folder : Path, optional
        On a local disk.
    scheme, bucket, prefix : str
        Of an object store otherwise, or of an address of the web, where exports can be read.
    given : str
        The folder as it was given, for messages.
    """

    folder: Path | None
    scheme: str = ""
    bucket: str = ""
    prefix: str = ""
    given: str = field(default="", compare=False)

    @classmethod
    def parse(cls, path: str | Path | Location) -> Location:
        """Read a path or an address such as ``s3://bucket/prefix`` or ``https://host/export.zarr.zip``.

        Raises
        ------
        StoreError
            It is no path, or the address is of another kind, lacks a bucket or prefix, or carries credentials.
        """
        if isinstance(path, Location):
            return path
        found = _ADDRESS.fullmatch(str(path))
        if found is None:
            # The working directory may change later.
            return cls(given_path(path, StoreError).absolute(), given=str(path))
        scheme, bucket, prefix = found["scheme"].lower(), found["bucket"], found["prefix"].strip("/")
        if scheme not in ("s3", "gs", *_WEB):
            raise StoreError(
                f"Results cannot be kept at {scheme}:// addresses; give a folder, s3://... or gs://..., or to read an "
                "export hf://..., https://... or http://..."
            )
        unsafe = {"?"} if scheme == "hf" else {"@", "?"}  # user/name@revision is no secret
        if not unsafe.isdisjoint(bucket + prefix):  # a secret may hold a slash
            raise StoreError(
                "The address holds credentials, or a @ or ? that they might stand at, and addresses end up in logs. "
                "Give s3://bucket/prefix, and the credentials in the environment (such as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY)."
            )
        known = (scheme in _WEB and bucket) or _BUCKET.fullmatch(bucket)
        if not known or not prefix or ".." in prefix.split("/"):
            form = {"hf": "hf://datasets/user/name/export.zarr.zip"}.get(
                scheme, f"{scheme}://host/export.zarr.zip" if scheme in _WEB else f"{scheme}://bucket/prefix"
            )
            raise StoreError(f"{path} is not the address of a store; give {form}.")
        return cls(None, scheme, bucket, prefix)

    def __str__(self) -> str:
        """As it was given."""
        return self.given or str(self.folder or f"{self.scheme}://{self.bucket}/{self.prefix}")

    @property
    def web(self) -> bool:
        """Whether it is an address of the web."""
        return self.scheme in _WEB

    @property
    def zipped(self) -> bool:
        """Whether it is an export in one file."""
        if self.folder is None:
            return self.web and self.prefix.lower().endswith(_ZIP)
        return self.folder.suffix.lower() == _ZIP and self.folder.is_file()

    @property
    def export(self) -> bool:
        """Whether an export lies there, and no store of a study's runs."""
        return self.web or self.zipped or (self.folder is not None and (self.folder / "zarr.json").is_file())

    def storage(self) -> icechunk.Storage:
        """What icechunk reads and writes through; credentials of object stores come from the environment.

        Raises
        ------
        StoreError
            It is an address of the web.
        """
        if self.web:
            raise StoreError(
                f"At {self} exports can be read, and nothing can be written. Run a study into a folder, s3://... or "
                "gs://..., and copy its export there: results.export('results.zarr.zip')."
            )
        import icechunk

        if self.folder is not None:
            return icechunk.local_filesystem_storage(str(self.folder))
        if self.scheme == "gs":
            return icechunk.gcs_storage(bucket=self.bucket, prefix=self.prefix, from_env=True)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return icechunk.s3_storage(
            bucket=self.bucket,
            prefix=self.prefix,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=endpoint,
            allow_http=bool(endpoint and endpoint.startswith("http://")),
            force_path_style=endpoint is not None,
            from_env=True,
        )


def check_outside(path: Path) -> None:
    """Check that a path does not lie inside a results store, whose folder holds nothing but its own files.

    Raises
    ------
    StoreError
        It does.
    """
    for folder in path.absolute().parents:
        if (folder / "zarr.json").is_file() or all((folder / name).is_dir() for name in ("manifests", "snapshots")):
            raise StoreError(f"{path} lies inside the store {folder}, which would be none any more. Give another path.")
