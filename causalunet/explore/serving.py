"""The explorer as a server: on this machine for this machine, or with a token for others."""

from __future__ import annotations

import hmac
import importlib
import ipaddress
import logging
import secrets
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import panel as pn
import xarray as xr
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop

from causalunet.errors import SpecError
from causalunet.explore.app import Explorer
from causalunet.explore.stored import Stored

__all__ = ["Served", "is_local", "serve"]

_COOKIE = "causalunet-explore"


def is_local(address: str) -> bool:
    """Whether only this machine reaches an address that a server listens at."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Served:
    """A server of the explorer that listens, and answers once its loop runs.

    Parameters
    ----------
    server : bokeh.server.server.Server
    address : str
    token : str
        That every request has to know; empty where the server is for this machine only.
    """

    server: Any
    address: str
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        """What to open, with the token."""
        wild = self.address in ("0.0.0.0", "::")
        host = socket.gethostname() if wild else self.address
        host = f"[{host}]" if ":" in host else host
        query = f"?{urlencode({'token': self.token})}" if self.token else ""
        return f"http://{host}:{self.server.port}/{query}"

    def run(self) -> None:
        """Answer until the process is interrupted."""
        self.server.start()
        self.server.io_loop.start()

    def stop(self) -> None:
        """Listen no more."""
        self.server.stop()


def serve(
    results: xr.DataTree,
    *,
    address: str = "localhost",
    port: int = 0,
    token: bool = False,
    loop: IOLoop | None = None,
) -> Served:
    """Listen for browsers that want to look at results.

    Parameters
    ----------
    results : xarray.DataTree
        As `causalunet.open_results` gives it; read when something is looked at.
    address : str
        Of one of this machine's networks, or "0.0.0.0" for all. Others than that of this machine itself need a token.
    port : int
        0 for any that is free.
    token : bool
        Make a token also for this machine, as where others are logged in to it.
    loop : tornado.ioloop.IOLoop, optional
        To answer in; that of the thread by default.

    Raises
    ------
    SpecError
        The address or the port cannot be listened at.
    """
    stored = Stored(results)
    secret = secrets.token_urlsafe(24) if token or not is_local(address) else ""

    def page() -> pn.Template:
        asked = pn.state.location.search if pn.state.location else ""
        dark = dict(parse_qsl(asked.lstrip("?"))).get("theme") == "dark"
        explorer = Explorer(stored, asked, dark=dark, standing=True)
        if pn.state.location is not None:
            pn.state.location.param.watch(lambda event: explorer.follow(event.new), "search")
        return explorer.page()

    log = logging.getLogger("bokeh.server.util")
    before = log.level
    log.setLevel(logging.ERROR)  # it warns of any origin; the guard is stricter than a list of them
    try:
        server = pn.io.server.get_server(
            {"/": page},
            address=address,
            port=port,
            websocket_origin="*",
            title="causalunet explore",
            loop=loop,
            index=None,
        )
    except OSError as error:
        raise SpecError(
            f"Cannot listen at {address}, port {port}: {error.strerror or error}. Give an address of this machine, "
            "such as localhost, and a port that is free, such as 0 for any."
        ) from error
    finally:
        log.setLevel(before)
    # The first number needs scipy.stats, which takes a while to import: while the page is being opened it can.
    server.io_loop.add_callback(importlib.import_module, "scipy.stats")
    server._http.request_callback = _Guard(server._tornado, secret, local=is_local(address))
    return Served(server, address, secret)


class _Guard(HTTPServerConnectionDelegate):
    """Stands before every request, for pages, files and websockets alike, and lets through those that may."""

    def __init__(self, behind: Any, token: str, *, local: bool) -> None:
        self._behind, self._token, self._local = behind, token, local

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        return _Guarded(self, server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        self._behind.on_close(server_conn)

    def refusal(self, start: RequestStartLine, headers: HTTPHeaders) -> tuple[HTTPStatus, dict[str, str], str] | None:
        """Answer to what may not pass: status, headers and text; None to what may."""
        host = headers.get("Host", "")
        if self._local and not is_local(_host(host)):
            return HTTPStatus.FORBIDDEN, {}, "This server is for this machine only: open it at localhost."
        origin = headers.get("Origin")
        if headers.get("Upgrade", "").lower() == "websocket" and (origin is None or urlsplit(origin).netloc != host):
            return HTTPStatus.FORBIDDEN, {}, "This page may not connect to this server."
        if not self._token:
            return None
        parts = urlsplit(start.path)
        query = parse_qsl(parts.query, keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and self._known(given[-1]):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            cookie = f"{_name(host)}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            there = parts.path + (f"?{rest}" if rest else "")
            if not there.startswith("/") or there.startswith("//"):
                there = "/"
            return HTTPStatus.SEE_OTHER, {"Location": there, "Set-Cookie": cookie, "Cache-Control": "no-store"}, ""
        kept = [value for name, value in _cookies(headers) if name == _name(host)]
        if any(self._known(value) for value in kept):
            return None
        return HTTPStatus.FORBIDDEN, {}, "A token is needed: open the address that causalunet explore printed."

    def _known(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())


class _Guarded(HTTPMessageDelegate):
    """One request: handed on, or answered here without being read any further."""

    def __init__(self, guard: _Guard, server_conn: object, request_conn: Any) -> None:
        self._guard, self._server, self._connection = guard, server_conn, request_conn
        self._behind: HTTPMessageDelegate | None = None
        self._answer: tuple[HTTPStatus, dict[str, str], str] | None = None

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Any:
        self._answer = self._guard.refusal(start_line, headers)
        if self._answer is None:
            self._behind = self._guard._behind.start_request(self._server, self._connection)
            return self._behind.headers_received(start_line, headers)
        return None

    def data_received(self, chunk: bytes) -> Any:
        return self._behind.data_received(chunk) if self._behind else None

    def finish(self) -> None:
        if self._behind is not None:
            self._behind.finish()
            return
        if self._answer is None:
            return
        status, told, text = self._answer
        content = text.encode()
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(content)), **told}
        start = ResponseStartLine("HTTP/1.1", status, status.phrase)
        self._connection.write_headers(start, HTTPHeaders(headers), content)
        self._connection.finish()

    def on_connection_close(self) -> None:
        if self._behind is not None:
            self._behind.on_connection_close()


def _host(netloc: str) -> str:
    """Name in a ``Host`` header, without the port."""
    return (urlsplit(f"//{netloc}").hostname or "") if netloc.count("[") == netloc.count("]") else ""


def _name(netloc: str) -> str:
    """Name of the cookie: browsers do not tell ports apart, and several stores may be looked at."""
    return f"{_COOKIE}-{urlsplit(f'//{netloc}').port or 80}"


def _cookies(headers: HTTPHeaders) -> list[tuple[str, str]]:
    parts = [part.strip().partition("=") for part in headers.get("Cookie", "").split(";")]
    return [(name, value) for name, _, value in parts]
