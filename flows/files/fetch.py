"""Fetches a file from the web without letting an address in a list reach into the network that this machine is in.

A name is looked up once; every address found must be public; the connection goes to the address that was checked, so
that a second answer of the name server changes nothing. A redirect is a new address and checked as one. Proxies of the
environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

REDIRECTS, TIMEOUT = 3, 20.0
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"  # what an address may hold; the rest, such as umlauts and blanks, is escaped
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Site-local, protocol assignments, 6to4 relays, documentation: what some versions of `ipaddress` call global.
_LOCAL = tuple(map(ipaddress.ip_network, ("fec0::/10", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
Resolver = Callable[[str, int], str]


class NotFetched(ValueError):
    """A URL that was not fetched; the message says why."""


def is_url(text: str) -> bool:
    """
    >>> is_url("https://example.org/a.png"), is_url("HTTP://example.org"), is_url("a/b.png"), is_url("ftp://a/b")
    (True, True, False, False)
    """
    return text.lower().startswith(("http://", "https://"))


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also behind the forms in which IPv6 wraps IPv4.

    >>> [is_public(a) for a in ("93.184.215.14", "127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1")]
    [True, False, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        wrapped = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if any(one is not None and not is_public(str(one)) for one in wrapped):
            return False
    if any(ip in network for network in _LOCAL):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


def public_address(host: str, port: int) -> str:
    """The first address of a host, if all are public.

    Raises:
        NotFetched: unknown, or one of its addresses is private, loopback, link-local or reserved.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotFetched(f"no address is known for {host}") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_public(address):
            raise NotFetched(f"{host} is {address}, which is not an address of the open internet")
    return addresses[0]


def fetch(url: str, max_bytes: int, timeout: float = TIMEOUT, resolve: Resolver = public_address) -> bytes:
    """The content behind a URL.

    Args:
        timeout: seconds for the whole of it, redirects included.
        resolve: host and port -> the address to connect to; it decides which are allowed.

    Raises:
        NotFetched: not http or https, an address that is not allowed, too large, too slow, or no answer with 200.
    """
    until = time.monotonic() + timeout
    here = url
    for _ in range(REDIRECTS + 1):
        try:
            answer = _ask(here, max_bytes, until, resolve)
        except (OSError, NotFetched, http.client.HTTPException) as error:
            via = f", to which {url} redirects," if here != url else ""
            if time.monotonic() >= until:
                raise NotFetched(f"{here}{via} was not fetched within {timeout:g} s") from error
            why = str(error) if isinstance(error, NotFetched) else type(error).__name__
            raise NotFetched(f"{here}{via} could not be fetched: {why}") from error
        if isinstance(answer, bytes):
            return answer
        here = urljoin(here, answer)
    raise NotFetched(f"{url} redirects more than {REDIRECTS} times")


def _ask(url: str, max_bytes: int, until: float, resolve: Resolver) -> bytes | str:
    """The content, or where it has moved to."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise NotFetched("only http and https with a host are fetched")
    if parts.username or parts.password:
        raise NotFetched("an address with a user name or password is not fetched")
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise NotFetched("the port is no number up to 65535") from error
    address = resolve(parts.hostname, port)
    left = max(0.001, until - time.monotonic())
    link = _Pinned(parts.hostname, port, parts.scheme == "https", address, left)
    watch = threading.Timer(left, link.cut)  # a server that sends a byte now and then never runs into a time limit
    watch.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = quote(target, _AS_IT_IS, errors="surrogateescape")
        link.request("GET", target, headers={"User-Agent": "veridical", "Accept-Encoding": "identity"})
        answer = link.getresponse()
        if answer.status in _MOVED and answer.getheader("Location"):
            return str(answer.getheader("Location")).encode("latin-1").decode("utf-8", "surrogateescape")
        if answer.status != 200:
            raise NotFetched(f"the server answered {answer.status}")
        content = _body(answer, max_bytes)
        if link.late:  # for a reader the end that we made looks like the server's
            raise TimeoutError
        return content
    finally:
        watch.cancel()
        link.close()


def _body(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if (answer.length or 0) > max_bytes:
        raise NotFetched(f"it has {answer.length:,} bytes; at most {max_bytes:,} are read")
    content = bytearray()
    while part := answer.read1(65536):
        content += part
        if len(content) > max_bytes:
            raise NotFetched(f"it has more than {max_bytes:,} bytes")
    if answer.length:
        raise NotFetched(f"the connection ended {answer.length:,} bytes too early")
    return bytes(content)


class _Pinned(http.client.HTTPConnection):
    """A connection to one checked address, under the name of its host."""

    def __init__(self, host: str, port: int, secure: bool, address: str, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self.address, self.secure = address, secure
        self.line: Any = None
        self.late = False
        self.default_port = _PORTS["https" if secure else "http"]

    def connect(self) -> None:
        self.line = plain = socket.create_connection((self.address, self.port), self.timeout)
        self.sock = plain
        if self.secure:
            self.line = self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)

    def cut(self) -> None:
        """End it from another thread: whoever reads finds the end."""
        self.late = True
        with suppress(OSError):
            if self.line is not None:
                socket.socket.shutdown(self.line, socket.SHUT_RDWR)
