"""Who may look: this machine, or who knows the token; every request is asked, those of websockets too."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
from bokeh.util.token import generate_jwt_token, generate_session_id
from tornado.ioloop import IOLoop

from causalunet.errors import SpecError
from causalunet.explore import serve
from causalunet.explore.serving import Served, is_local
from causalunet.results import open_results

pytestmark = [
    pytest.mark.thorough,
    # Bokeh leaves sockets that could not be bound, and those of its websockets, to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
Start = Callable[..., Served]
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
def start(store: Path) -> Iterator[Start]:
    """Start servers that answer in threads of their own."""
    running = []

    def started(**options: Any) -> Served:
        ready = threading.Event()
        found: list[Served] = []

        def work() -> None:
            asyncio.set_event_loop(asyncio.new_event_loop())
            found.append(serve(open_results(store), loop=IOLoop.current(), **options))
            found[0].server.io_loop.add_callback(ready.set)
            found[0].run()

        thread = threading.Thread(target=work)
        thread.start()
        assert ready.wait(60)
        running.append((found[0], thread))
        return found[0]

    yield started
    for served, thread in running:
        loop = served.server.io_loop
        loop.add_callback(lambda served=served, loop=loop: (served.stop(), loop.stop()))
        thread.join(30)
        assert not thread.is_alive()


class Answer(NamedTuple):
    status: int
    headers: Message
    text: str


def ask(served: Served, path: str, headers: Mapping[str, str] = {}) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=dict(headers))
        with connection.getresponse() as response:
            text = "" if response.status == 101 else response.read().decode()
            return Answer(response.status, response.headers, text)


def upgrade(served: Served, headers: Mapping[str, str]) -> int:
    token = generate_jwt_token(generate_session_id())
    return ask(served, "/ws", {**UPGRADE, "Sec-WebSocket-Protocol": f"bokeh, {token}", **headers}).status


def test_addresses_of_this_machine() -> None:
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.3.2.1", "::1", "[::1]")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", "")))


def test_by_default_this_machine_only_and_no_token(start: Start) -> None:
    served = start()
    assert {sock.getsockname()[0] for sock in served.server._http._sockets.values()} <= {"127.0.0.1", "::1"}
    assert (served.token, urlsplit(served.url).query) == ("", "")
    port = served.server.port
    page = ask(served, "/?view=audit")
    assert page.status == 200
    content = page.text
    assert "Content-Security-Policy" in content
    assert not [part for part in ("https://cdn", "unpkg", "googleapis", "jsdelivr") if f'src="{part}' in content]
    assert ask(served, "/", {"Host": "evil.example:80"}).status == 403  # a name that was bound to this machine anew
    assert ask(served, "/", {"Host": "localhost:8888"}).status == 200  # a tunnel
    assert upgrade(served, {"Origin": f"http://127.0.0.1:{port}"}) == 101
    assert upgrade(served, {"Origin": "http://evil.example"}) == 403
    assert upgrade(served, {}) == 403


def test_others_need_the_token_for_everything(start: Start) -> None:
    served = start(address="0.0.0.0")
    [(_, token)] = parse_qsl(urlsplit(served.url).query)
    assert len(token) >= 32
    assert token not in repr(served)
    origin = {"Origin": f"http://127.0.0.1:{served.server.port}"}
    wrong = f"causalunet-explore-{served.server.port}={token[:-1]}x"
    for path in ("/", "/?token=", f"/?token={token}x", "/static/js/bokeh.min.js", "/favicon.ico", "/autoload.js"):
        assert ask(served, path).status == 403
        assert ask(served, path, {"Cookie": wrong}).status == 403
    assert upgrade(served, origin) == 403
    entered = ask(served, f"/?view=audit&token={token}&sample=1")
    assert (entered.status, entered.headers["Location"]) == (303, "/?view=audit&sample=1")
    cookie = entered.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    kept = {"Cookie": cookie.partition(";")[0]}
    assert ask(served, "/", kept).status == 200
    assert ask(served, "/static/js/bokeh.min.js", kept).status == 200
    assert upgrade(served, {**origin, **kept}) == 101
    assert upgrade(served, {"Origin": "http://evil.example", **kept}) == 403
    away = ask(served, f"//evil.example/?token={token}")
    assert away.headers["Location"] == "/"


def test_a_token_can_be_asked_for_here_too(start: Start) -> None:
    served = start(token=True)
    assert ask(served, "/").status == 403
    assert ask(served, f"/?{urlsplit(served.url).query}").status == 303


def test_what_cannot_be_listened_at_is_told(store: Path) -> None:
    with pytest.raises(SpecError, match=r"Cannot listen at 203\.0\.113\.1, port 0: .*Give an address of this machine"):
        serve(open_results(store), address="203.0.113.1")
