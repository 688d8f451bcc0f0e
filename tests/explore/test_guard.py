"""Who is let through: this machine, or who knows the token; pages, files, forms and websockets alike."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler, websocket_connect

from causalunet.explore.serving import _Guard, is_local

TOKEN = "a" * 32


class Page(RequestHandler):
    def get(self) -> None:
        self.write("page")

    def post(self) -> None:
        self.write(f"{len(self.request.body)} bytes")


class Socket(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


def start(token: str, *, local: bool) -> int:
    """Port of a server behind the guard that lets everything through itself."""
    application = Application([("/", Page), ("/static/file", Page), ("/ws", Socket)])
    server = HTTPServer(application)
    server.request_callback = _Guard(application, token, local=local)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    return sockets[0].getsockname()[1]


async def ask(port: int, path: str, headers: Mapping[str, str] = {}, **options: Any) -> HTTPResponse:
    request = HTTPRequest(f"http://127.0.0.1:{port}{path}", headers=dict(headers), follow_redirects=False, **options)
    return await AsyncHTTPClient().fetch(request, raise_error=False)


async def connected(port: int, headers: Mapping[str, str]) -> bool:
    """Whether a websocket answers."""
    try:
        socket = await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{port}/ws", headers=dict(headers)))
    except HTTPClientError:
        return False
    socket.write_message("hello")
    answer = await socket.read_message()
    socket.close()
    return answer == "hello"


def test_addresses_of_this_machine() -> None:
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.3.2.1", "::1", "[::1]")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", "")))


def test_names_of_this_machine_only() -> None:
    async def check() -> None:
        port = start("", local=True)
        hosts = ("localhost:8888", "127.3.2.1:80", "[::1]:80", "evil.example:80", "localhost.evil.example", "[")
        codes = [(await ask(port, "/", {"Host": host})).code for host in hosts]
        assert codes == [200, 200, 200, 403, 403, 403]
        assert await connected(port, {"Origin": f"http://127.0.0.1:{port}"})
        assert not await connected(port, {"Origin": "http://evil.example"})
        assert not await connected(port, {})

    asyncio.run(check())


def test_the_token_is_asked_for_at_every_request() -> None:
    async def check() -> None:
        port = start(TOKEN, local=False)
        origin = {"Origin": f"http://127.0.0.1:{port}"}
        wrong = {"Cookie": f"causalunet-explore-{port}={TOKEN[:-1]}x"}
        for path in ("/", "/?token=", f"/?token={TOKEN}x", "/static/file", "/ws", "/nothing"):
            assert (await ask(port, path)).code == 403
            assert (await ask(port, path, wrong)).code == 403
        assert (await ask(port, "/", method="POST", body="x" * 1000)).code == 403
        assert not await connected(port, origin)
        entered = await ask(port, f"/?view=audit&token={TOKEN}&sample=1")
        assert (entered.code, entered.headers["Location"]) == (303, "/?view=audit&sample=1")
        cookie = entered.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        kept = {"Cookie": cookie.partition(";")[0]}
        assert (await ask(port, "/", kept)).code == 200
        assert (await ask(port, "/static/file", kept)).code == 200
        assert (await ask(port, "/", kept, method="POST", body="x" * 10)).body == b"10 bytes"
        assert await connected(port, {**origin, **kept})
        assert not await connected(port, {"Origin": "http://evil.example", **kept})
        assert (await ask(port, f"//evil.example/?token={TOKEN}")).headers["Location"] == "/"

    asyncio.run(check())
