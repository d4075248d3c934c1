"""http(s): URLs that a request names: fetched from hosts that are allowed, at addresses that are public.

The address that was checked is the one that is connected to: a name that leads elsewhere a moment later leads nowhere.
Every redirect is checked like a first URL. Standard library only.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

from avcap.web.server.refusals import Refused, too_large
from avcap.web.server.settings import Access

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]
Connect = Callable[[str, int, float], socket.socket]

ANY_HOST = "*"
PORTS = {"http": 80, "https": 443}
MOST_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
BLOCK_BYTES = 2**16
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """A host's name, or an address in any spelling -> its addresses."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def connect(address: str, port: int, timeout_s: float) -> socket.socket:
    """An address -> an open connection to it."""
    return socket.create_connection((address, port), timeout=timeout_s)


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, and no other stands in it (IPv4 in IPv6).

    >>> is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("8.8.8.8")
    (False, False, True)
    """
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inside: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(one is not None and not is_public(str(one)) for one in inside):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast and not address.is_reserved


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches what may be fetched. `resolve` and `connect` are the system's."""

    access: Access
    resolve: Resolve = resolve
    connect: Connect = connect

    def fetch(self, url: str, to: BinaryIO, *, param: str, most_bytes: int, timeout_s: float) -> None:
        """A URL -> its content, written to `to`.

        Raises:
            Refused: It may not be fetched, did not come whole in time, or is too large.
        """
        end = time.monotonic() + timeout_s
        for _ in range(MOST_REDIRECTS + 1):
            parts, addresses = self._checked(url, param=param)
            try:
                location = self._get(parts, addresses[0], to, param=param, most_bytes=most_bytes, end=end)
            except (OSError, http.client.HTTPException, ValueError):
                late = " in time" if time.monotonic() > end else ""
                raise Refused(
                    f"this URL could not be fetched{late}; is it there?", param=param, code="fetch_failed"
                ) from None
            if location is None:
                return
            url = urljoin(url, location)
        raise Refused(
            f"this URL could not be fetched: more than {MOST_REDIRECTS} redirects", param=param, code="fetch_failed"
        )

    def _checked(self, url: str, *, param: str) -> tuple[SplitResult, list[str]]:
        """A URL -> its parts and the addresses that it may be fetched from. Refused if there are none."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            host, port = "", 0
        unsafe = any(ord(char) <= 0x20 or ord(char) >= 0x7F or char == "\\" for char in url)
        if not host or unsafe or parts.scheme not in PORTS or "@" in parts.netloc:
            raise Refused("got a URL that is not fetched, expected http(s)://host/path in ASCII", param=param)
        hosts, is_usual = self.access.fetch_hosts, port == PORTS[parts.scheme]
        is_named = f"{host}:{port}" in hosts or (host in hosts and is_usual)
        if not is_named and not (ANY_HOST in hosts and is_usual):
            raise Refused(
                "this host is not fetched from here; send the file as a data: URL, or start the server with "
                "--allow-host",
                param=param,
                status=403,
                code="host_not_allowed",
            )
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError):
            raise Refused("this host has no address", param=param, code="fetch_failed") from None
        if not addresses or not all(is_public(one) or (is_named and self.access.fetch_private) for one in addresses):
            raise Refused(
                "this host has an address that is not public, and nothing is fetched from there",
                param=param,
                status=403,
                code="address_not_allowed",
            )
        return parts, addresses

    def _get(
        self, parts: SplitResult, address: str, to: BinaryIO, *, param: str, most_bytes: int, end: float
    ) -> str | None:
        """Fetches one URL from one address -> where it redirects to, None once it was written."""
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        plain = self.connect(address, port, max(0.1, end - time.monotonic()))
        # each read has the socket's timeout, but a server that sends byte by byte is stopped by this alone
        watchdog = threading.Timer(max(0.1, end - time.monotonic()), _shut, [plain])
        watchdog.daemon = True
        watchdog.start()
        connection = http.client.HTTPConnection(host, port)
        try:
            is_tls = parts.scheme == "https"
            wrapped = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if is_tls else plain
            connection.sock = wrapped
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"User-Agent": "avcap", "Accept": "*/*"})
            response = connection.getresponse()
            if response.status in REDIRECTS:
                return response.getheader("Location") or ""
            _check(response, param=param, most_bytes=most_bytes)
            _copy(response, to, param=param, most_bytes=most_bytes)
            return None
        finally:
            watchdog.cancel()
            connection.close()
            plain.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _check(response: http.client.HTTPResponse, *, param: str, most_bytes: int) -> None:
    if response.status != 200:
        raise Refused(f"this URL gave status {response.status}, expected 200", param=param, code="fetch_failed")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise Refused("this URL gave compressed data, expected it plain", param=param, code="fetch_failed")
    if (response.length or 0) > most_bytes:
        raise too_large("this URL", most_bytes=most_bytes, param=param)


def _copy(response: Any, to: BinaryIO, *, param: str, most_bytes: int) -> None:
    num_bytes = 0
    while block := response.read1(BLOCK_BYTES):
        num_bytes += len(block)
        if num_bytes > most_bytes:
            raise too_large("this URL", most_bytes=most_bytes, param=param)
        to.write(block)
    if response.length:
        raise http.client.IncompleteRead(b"")
