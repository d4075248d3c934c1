"""Which proxy a URL is reached through: the environment's, as curl reads it, and never one for this computer itself."""

import importlib.util
import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from avcap.errors import UserError

SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy_of(url: str, *, environ: Mapping[str, str] = os.environ) -> str | None:
    """URL -> URL of the proxy to use, or None. UserError that names the variable if that proxy cannot be used."""
    asked = urlsplit(url)
    if _is_loopback(asked.hostname or "") or _is_excepted(asked, environ):
        return None
    for name in (f"{asked.scheme}_proxy", f"{asked.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        if value := environ.get(name, "").strip():
            return _checked(value if "://" in value else f"http://{value}", variable=name)
    return None


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_excepted(url: SplitResult, environ: Mapping[str, str]) -> bool:
    """NO_PROXY: names with all that ends in them, addresses, networks, "*"; each with a port or without."""
    listed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return any(_excepts(entry.strip().lower(), url) for entry in listed.replace(" ", ",").split(",") if entry.strip())


def _excepts(entry: str, url: SplitResult) -> bool:
    host = (url.hostname or "").lower().rstrip(".")
    if entry == "*":
        return True
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        try:
            return ipaddress.ip_address(host) in network
        except ValueError:
            return False
    name, colon, port = entry.partition("://")[2].partition(":") if "://" in entry else entry.partition(":")
    if colon and port.isdigit() and int(port) != (url.port or {"http": 80, "https": 443}.get(url.scheme)):
        return False
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith("." + name))


def _checked(value: str, *, variable: str) -> str:
    """The value of a variable -> itself; what is said of it shows no password."""
    todo = f"unset {variable}, or name this server in NO_PROXY"
    try:
        url = urlsplit(value)
        is_whole = url.scheme in SCHEMES and bool(url.hostname) and url.port != 0  # raises for what is no port
    except ValueError:
        is_whole = False
    if not is_whole:
        raise UserError(f"{variable}: got what is no URL of a proxy, expected {', '.join(SCHEMES)} with a host; {todo}")
    if url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise UserError(f"{variable}: got a {url.scheme} proxy, which needs the package socksio; install it, or {todo}")
    return value
