"""Addresses with credentials are refused without being printed back, wherever in the address these stand."""

from __future__ import annotations

import pytest

from causalunet.errors import StoreError
from causalunet.results.engine.location import Location


@pytest.mark.parametrize(
    "address",
    [
        "s3://KEY:secret@bucket/path",
        "s3://KEY:se/cret@bucket/path",
        "S3://KEY:se/c/ret@bucket",
        "gs://bucket/path?AWS_SECRET_ACCESS_KEY=secret",
        "s3://bucket?AWS_SECRET_ACCESS_KEY=se/cret",
        "https://KEY:se/cret@bucket/path",
    ],
)
def test_a_secret_is_never_printed_back(address: str) -> None:
    with pytest.raises(StoreError) as caught:
        Location.parse(address)
    assert not any(part in str(caught.value) for part in ("KEY:", "se/c", "cret@", "=se", "secret@"))


def test_addresses_without_credentials_are_taken() -> None:
    assert str(Location.parse("s3://bucket/a/b=1/c.zarr")) == "s3://bucket/a/b=1/c.zarr"
