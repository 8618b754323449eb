"""Requests that leave the hub for bytes: to the endpoint, and to hosts it may redirect to.

A redirect is an address that a stranger chose, so each hop is checked: the host must be the
endpoint's, one of Hugging Face's own or one in HUB_UPSTREAM_HOSTS; a name that is only allowed as
Hugging Face's must not lead into a private network, and the address that was checked is the one
that is connected to. The token goes to the endpoint alone.

The client is the standard library's: at a gigabyte it takes a half to a third of the processor
time of the larger ones (docs/decisions/own-transfer.md), and hashing needs the rest.
"""

import base64
import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from hub.errors import UpstreamFailed
from hub.patience import Interrupted

HUGGING_FACE = ("hf.co", "huggingface.co")
REDIRECTS = 10
SILENCE = 60.0
"""Seconds without a byte after which a connection is given up."""
_DRAIN = 64 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")

Resolve = Callable[[str, int], list[str]]


class RedirectRefused(UpstreamFailed):
    """Upstream points to a host that the hub does not follow to."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(
            "redirect_refused",
            f"Upstream redirects to {host or 'somewhere'}, {reason}",
            "If that host belongs to your upstream, add it to HUB_UPSTREAM_HOSTS",
        )


def addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a host name. Raises Interrupted when it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Interrupted(f"The name {host} cannot be resolved") from error
    return [str(entry[4][0]) for entry in found]


def public(address: str) -> bool:
    """Whether an IP address is on the Internet, also when it is wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if not inner and ip in ipaddress.IPv6Network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True)
class Hosts:
    """Which addresses may be asked for bytes."""

    endpoint: str
    listed: tuple[str, ...] = ()

    def check(self, url: str, base: str = "") -> SplitResult:
        """The address, split, when it may be asked. Raises RedirectRefused."""
        try:
            split = urlsplit(urljoin(base, url))
            port = split.port
        except ValueError:
            raise RedirectRefused("", "which is not an address") from None
        host = (split.hostname or "").rstrip(".")
        if split.scheme not in ("http", "https") or not host:
            raise RedirectRefused(host, f"by {split.scheme or 'no scheme'}, not http or https")
        if "@" in split.netloc or not re.fullmatch(r"[a-z0-9._:-]+", host):
            raise RedirectRefused(host, "with a name or a password in the address")
        if not self.trusted(host, port) and not self._hugging_face(host):
            raise RedirectRefused(host, "which is not an allowed host")
        secure = urlsplit(self.endpoint).scheme == "https"
        if secure and split.scheme == "http" and not self._is_listed(host, port):
            raise RedirectRefused(host, "without encryption")
        return split

    def trusted(self, host: str, port: int | None) -> bool:
        """Whether the operator named this host, so that it may be in a private network."""
        return host == urlsplit(self.endpoint).hostname or self._is_listed(host, port)

    def same_origin(self, split: SplitResult) -> bool:
        """Whether an address is on the endpoint itself: only there the token is sent."""
        endpoint = urlsplit(self.endpoint)
        return origin(split) == origin(endpoint)

    def _is_listed(self, host: str, port: int | None) -> bool:
        return any(
            host == entry
            or (port is not None and f"{host}:{port}" == entry)
            or (entry.startswith("*.") and host.endswith(entry[1:]))
            for entry in (entry.lower() for entry in self.listed)
        )

    @staticmethod
    def _hugging_face(host: str) -> bool:
        return any(host == name or host.endswith(f".{name}") for name in HUGGING_FACE)


def origin(split: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port of an address."""
    port = split.port or (443 if split.scheme == "https" else 80)
    return split.scheme, (split.hostname or "").rstrip("."), port


@cache
def _trust() -> ssl.SSLContext:
    # The same authorities as the client of the metadata.
    return httpx2.create_ssl_context()


class Answer:
    """An answer whose body is still to be read."""

    def __init__(
        self, web: "Web", split: SplitResult, connection: http.client.HTTPConnection
    ) -> None:
        self._web = web
        self._connection = connection
        self._raw = connection.getresponse()
        self.url = split.geturl()
        self.split = split
        self.status = self._raw.status
        self.headers = self._raw.headers
        self.encoding = (self.headers.get("Content-Encoding") or "identity").strip().lower()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def length(self) -> int | None:
        """Bytes of the body, when upstream says so and means the file itself."""
        value = self.headers.get("Content-Length", "")
        return int(value) if value.isdigit() and self.encoding == "identity" else None

    @property
    def span(self) -> tuple[int | None, int] | None:
        """Of a partial answer: where it begins, and the size of the whole file."""
        match = _CONTENT_RANGE.fullmatch(self.headers.get("Content-Range", "").strip())
        if not match:
            return None
        return (int(match[1]) if match[1] else None), int(match[3])

    def chunks(self, buffer: memoryview) -> Iterator[memoryview]:
        """The body, a piece at a time, in `buffer` where possible: use it before the next.

        Raises Interrupted when the connection breaks or is silent; a body that ends early ends.
        """
        with self._cut():
            if self.encoding == "identity":
                while count := self._raw.readinto(buffer):
                    yield buffer[:count]
                return
        if self.encoding not in ("gzip", "deflate"):
            raise UpstreamFailed(
                "bad_encoding",
                f"Upstream compresses with {self.encoding[:20]}, which was not asked for",
                "Switch compression off in the proxy before it",
            )
        inflate = zlib.decompressobj(wbits=47 if self.encoding == "gzip" else 15)
        while not inflate.eof:
            with self._cut():
                raw = self._raw.read(_DRAIN)
            if not raw:
                return
            while raw and not inflate.eof:
                try:
                    piece = inflate.decompress(raw, len(buffer))
                except zlib.error as error:
                    raise Interrupted("Upstream's compressed answer is damaged") from error
                raw = inflate.unconsumed_tail
                if piece:
                    yield memoryview(piece)

    def text(self, limit: int = _DRAIN) -> bytes:
        """At most `limit` bytes of the body."""
        with self._cut():
            return self._raw.read(limit)

    def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        reusable = self._raw.isclosed() and not self._raw.will_close
        self._raw.close()
        self._web.release(self.split, self._connection, reusable)

    @contextlib.contextmanager
    def _cut(self) -> Iterator[None]:
        with broken(self.split):
            yield


@contextlib.contextmanager
def broken(split: SplitResult) -> Iterator[None]:
    """Tell failures of the connection as Interrupted, by the host's name alone."""
    try:
        yield
    except TimeoutError as error:
        raise Interrupted(f"{split.hostname} sent nothing for {SILENCE:.0f} s") from error
    except ssl.SSLCertVerificationError as error:
        raise UpstreamFailed(
            "bad_certificate",
            f"The certificate of {split.hostname} is not trusted: {error.verify_message}",
            "Give the authority's certificates in SSL_CERT_FILE",
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: what http.client makes of a file that another thread closed.
        name = type(error).__name__
        raise Interrupted(f"The connection to {split.hostname} broke ({name})") from error


@dataclass
class Web:
    """Connections to upstream, kept open between requests; for any number of threads."""

    hosts: Hosts
    token: str | None = None
    resolve: Resolve = addresses
    silence: float = SILENCE
    agent: str = "slmhub"
    _idle: dict[tuple[str, str, int], list[http.client.HTTPConnection]] = field(
        default_factory=dict
    )
    _busy: set[http.client.HTTPConnection] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _aborted: bool = False

    def get(self, url: str, headers: dict[str, str]) -> Answer:
        """The answer to a GET after following redirects; the caller closes it.

        Raises RedirectRefused, and Interrupted when a connection breaks.
        """
        base = ""
        for _ in range(REDIRECTS):
            split = self.hosts.check(url, base)
            answer = self._ask(split, headers)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            location = answer.headers.get("Location")
            answer.text()
            answer.close()
            if not location:
                raise Interrupted(f"{split.hostname} redirects to nowhere")
            url, base = location, split.geturl()
        raise UpstreamFailed(
            "too_many_redirects",
            f"Upstream redirected {REDIRECTS} times in a row",
            "Check the upstream address",
        )

    def abort(self) -> None:
        """End what is under way in other threads: reads and new requests fail at once."""
        with self._lock:
            self._aborted = True
            for connection in self._busy:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections that wait for more requests."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def release(
        self, split: SplitResult, connection: http.client.HTTPConnection, reusable: bool
    ) -> None:
        """Take a connection back."""
        with self._lock:
            self._busy.discard(connection)
            if reusable:
                self._idle.setdefault(origin(split), []).append(connection)
                return
        connection.close()

    def _ask(self, split: SplitResult, headers: dict[str, str]) -> Answer:
        sent = {"User-Agent": self.agent, "Accept-Encoding": "identity", "Accept": "*/*", **headers}
        if self.token and self.hosts.same_origin(split):
            sent["Authorization"] = f"Bearer {self.token}"
        for fresh in (False, True):
            with broken(split):
                connection, used = self._connection(split, fresh)
                try:
                    connection.request("GET", self._target(split), headers=sent)
                    return Answer(self, split, connection)
                except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                    self.release(split, connection, False)
                    # It was kept open, and the server closed it meanwhile: no fault of anybody.
                    if not used:
                        raise
                except BaseException:
                    self.release(split, connection, False)
                    raise
        raise Interrupted(f"The connection to {split.hostname} broke")

    def _connection(
        self, split: SplitResult, fresh: bool
    ) -> tuple[http.client.HTTPConnection, bool]:
        key = origin(split)
        with self._lock:
            kept = self._idle.get(key)
            if kept and not fresh:
                connection = kept.pop()
                self._busy.add(connection)
                return connection, True
        connection = self._connect(*key)
        with self._lock:
            self._busy.add(connection)
            aborted = self._aborted
        if aborted:
            self.release(split, connection, False)
            raise Interrupted("The transfer was ended")
        return connection, False

    def _connect(self, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        proxy = None if proxy_bypass(f"{host}:{port}") else getproxies().get(scheme)
        if proxy:
            return self._through(proxy, scheme, host, port)
        found = self.resolve(host, port)
        if not self.hosts.trusted(host, port) and not all(public(each) for each in found):
            raise RedirectRefused(host, "which leads into a private network")
        secure = scheme == "https"
        connection = (
            http.client.HTTPSConnection(host, port, context=_trust())
            if secure
            else http.client.HTTPConnection(host, port)
        )
        connection.sock = self._open(found, port, host if secure else None)
        # It must not resolve the name again by itself: that answer would not be checked.
        connection.auto_open = 0
        return connection

    def _open(self, found: list[str], port: int, name: str | None) -> socket.socket:
        error: OSError | None = None
        for address in found[:4]:
            try:
                plain = socket.create_connection((address, port), timeout=min(self.silence, 20))
            except OSError as failed:
                error = failed
                continue
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(self.silence)
            if name is None:
                return plain
            try:
                return _trust().wrap_socket(plain, server_hostname=name)
            except OSError:
                plain.close()
                raise
        raise error or OSError("no address")

    def _through(self, proxy: str, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        # The proxy resolves the name, so there is no address to check here: that is its task.
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        login = f"{unquote(via.username or '')}:{unquote(via.password or '')}".encode()
        secret = {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}
        made: http.client.HTTPConnection
        made = (
            http.client.HTTPSConnection(via.hostname or "", via.port or 80, context=_trust())
            if scheme == "https"
            else http.client.HTTPConnection(via.hostname or "", via.port or 80)
        )
        made.timeout = self.silence
        made.set_tunnel(host, port, secret if via.username else {})
        return made

    @staticmethod
    def _target(split: SplitResult) -> str:
        return (split.path or "/") + (f"?{split.query}" if split.query else "")
