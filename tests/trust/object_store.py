"""A local server that speaks S3, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SECONDS = 60.0
"""That the server may take to start."""

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}


@contextmanager
def s3_server(bucket: str, **options: str) -> Iterator[str]:
    """Serve an empty bucket; gives the address of the server, whose environment takes some options."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **options}
    )
    try:
        _make_bucket(f"{url}/{bucket}", server)
        yield url
    finally:
        server.terminate()
        server.wait()


def _make_bucket(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"no S3 server came up at {url}")


def put(address: str, content: bytes) -> None:
    """Store an object at an address such as s3://bucket/name."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{address.removeprefix('s3://')}"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=content), timeout=5).close()
