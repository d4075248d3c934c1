"""URLs that requests name: what is fetched, from where, and what never is. Names are resolved by the test."""

import contextlib
import gzip
import io
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from avcap.web.server.fetch import Fetcher, is_public
from avcap.web.server.refusals import Refused
from avcap.web.server.settings import Access

PUBLIC = "93.184.216.34"


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Host"]))
        status, headers, body = self.server.pages.get(self.path, (404, {}, b"no"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in headers and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for piece in body if isinstance(body, list) else [body]:
            self.wfile.write(piece)
            if isinstance(body, list):
                time.sleep(0.05)

    def handle(self):
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    """A server on loopback: `pages` is what it has, `asked` what it was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.daemon_threads = True
    server.pages, server.asked = {"/a.mp4": (200, {}, b"film"), "/": (200, {}, b"root")}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class Names:
    """A resolver that gives, for each name, one list of addresses after the other, the last again and again."""

    def __init__(self, **addresses):
        self.addresses = {name.replace("_", "."): list(lists) for name, lists in addresses.items()}
        self.connected = []

    def resolve(self, host, port):
        if host not in self.addresses:
            return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        lists = self.addresses[host]
        return lists.pop(0) if len(lists) > 1 else lists[0]

    def connect_to(self, web):
        """Every address leads to the test's server; which one was asked for is noted."""

        def connect(address, port, timeout_s):
            self.connected.append((address, port))
            return socket.create_connection(web.server_address, timeout=timeout_s)

        return connect


def fetch(url, web, names=None, *, hosts=("media.example",), private=False, most_bytes=1000, timeout_s=5.0):
    names = names or Names(media_example=[[PUBLIC]])
    access = Access(fetch_hosts=frozenset(hosts), fetch_private=private)
    to = io.BytesIO()
    fetcher = Fetcher(access=access, resolve=names.resolve, connect=names.connect_to(web))
    fetcher.fetch(url, to, param="p", most_bytes=most_bytes, timeout_s=timeout_s)
    return to.getvalue()


def refused(*words, **options) -> Refused:
    with pytest.raises(Refused) as caught:
        fetch(*words, **options)
    return caught.value


def test_an_allowed_host_is_fetched_at_the_address_that_was_checked(web):
    names = Names(media_example=[[PUBLIC], ["127.0.0.1"]])
    assert fetch("http://media.example/a.mp4", web, names) == b"film"
    # the second answer of the resolver, loopback, was never asked for
    assert names.connected == [(PUBLIC, 80)] and web.asked == [("/a.mp4", "media.example")]
    assert fetch("http://MEDIA.example", web) == b"root"
    assert fetch("http://media.example:81/a.mp4", web, hosts=["media.example:81"]) == b"film"
    assert fetch("http://media.example/a.mp4", web, hosts=["*"]) == b"film"


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.mp4",
        "http://media.example.evil.example/a.mp4",
        "http://media.example:81/a.mp4",
        "https://media.example:80/a.mp4",
        "http://media.example@127.0.0.1/a.mp4",
        "http://user:word@media.example/a.mp4",
        "http://127.0.0.1/a.mp4",
        "http://media.example\\@127.0.0.1/",
        "http://media.example /a.mp4",
        "http://media.example/a\r\nHost: x",
        "http://mediа.example/a.mp4",
        "http:///a.mp4",
        "http://media.example:99999/",
        "http://[::1/a.mp4",
        "ftp://media.example/a.mp4",
    ],
)
def test_what_is_not_allowed_is_not_connected_to(url, web):
    names = Names(media_example=[[PUBLIC]])
    with pytest.raises(Refused):
        fetch(url, web, names)
    assert not names.connected and not web.asked


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_no_spelling_of_a_private_address_is_connected_to_though_any_host_is_allowed(host, web):
    names = Names()
    error = refused(f"http://{host}/a.mp4", web, names, hosts=["*"])
    assert error.code in ("address_not_allowed", "fetch_failed")
    assert not names.connected
    assert refused(f"http://{host}/a.mp4", web, names, hosts=["*"], private=True).code == error.code


def test_a_name_with_one_private_address_among_public_ones_is_refused(web):
    names = Names(media_example=[[PUBLIC, "10.0.0.1"]])
    assert refused("http://media.example/a.mp4", web, names).code == "address_not_allowed"
    assert not names.connected


def test_private_addresses_need_the_host_by_name_and_the_word(web):
    names = Names(nas_example=[["192.168.1.9"]])
    assert refused("http://nas.example/a.mp4", web, names, hosts=["nas.example"]).code == "address_not_allowed"
    assert fetch("http://nas.example/a.mp4", web, names, hosts=["nas.example"], private=True) == b"film"


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1/secret", "host_not_allowed"),
        ("//other.example/a.mp4", "host_not_allowed"),
        ("http://inside.example/a.mp4", "address_not_allowed"),
        ("file:///etc/passwd", "invalid_value"),
        ("/again", "fetch_failed"),
        ("", "fetch_failed"),
    ],
)
def test_redirects_are_checked_like_first_urls(location, code, web):
    web.pages["/again"] = (302, {"Location": location}, b"")
    names = Names(media_example=[[PUBLIC]], inside_example=[["10.1.1.1"]])
    hosts = ["media.example", "inside.example"]
    assert refused("http://media.example/again", web, names, hosts=hosts).code == code
    assert {address for address, _ in names.connected} == {PUBLIC}


def test_a_redirect_to_an_allowed_place_is_followed_and_its_address_asked_for_anew(web):
    web.pages["/there"] = (301, {"Location": "/a.mp4"}, b"")
    names = Names(media_example=[[PUBLIC], ["127.0.0.1"]])
    assert fetch("http://media.example/there", web, Names(media_example=[[PUBLIC]])) == b"film"
    assert refused("http://media.example/there", web, names).code == "address_not_allowed"
    assert names.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ((200, {}, b"x" * 1001), "too_large"),
        ((200, {"Transfer-Encoding": "chunked"}, b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"), "too_large"),
        ((200, {"Content-Encoding": "gzip"}, gzip.compress(b"x" * 10**6)), "fetch_failed"),
        ((404, {}, b"no"), "fetch_failed"),
        ((206, {}, b"part"), "fetch_failed"),
        ((200, {"Content-Length": "900"}, b"cut off"), "fetch_failed"),
    ],
)
def test_too_much_compressed_or_broken_off_is_refused(page, code, web):
    web.pages["/x"] = page
    error = refused("http://media.example/x", web, timeout_s=1.0)
    assert error.code == code and "127.0.0.1" not in error.message and PUBLIC not in error.message


def test_a_server_that_sends_byte_by_byte_is_left_at_the_deadline(web):
    web.pages["/slow"] = (200, {"Content-Length": "900"}, [b"x"] * 900)  # 900 x 0.05 s = 45 s
    started_s = time.monotonic()
    error = refused("http://media.example/slow", web, timeout_s=0.5)
    assert error.code == "fetch_failed" and "in time" in error.message
    assert time.monotonic() - started_s < 20


def test_public_is_what_anybody_may_see():
    assert is_public("8.8.8.8") and is_public("2606:4700::1111") and is_public("::ffff:8.8.8.8")
    assert not is_public("fe80::1%eth0")
