"""Who may do what: hosts, origins, tokens and sessions, and the headers of every answer.

A hub on loopback has one user, who needs no login. Any other refuses to start without an admin
token, and there every request that changes something needs a token or a session made from one.
Reading is open. Each view says with a decorator whether it `reads`, `asks`, `writes` or `signs_in`;
what says nothing is treated as a write.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, g, request, session
from werkzeug.local import LocalProxy

from hub import tokens
from hub.config import Settings
from hub.errors import Forbidden, Misdirected, Unauthorized
from hub.tokens import Scope
from hub.web import current_settings

View = TypeVar("View", bound=Callable[..., Any])

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
BODY_LIMIT = 1024 * 1024
"""Largest request body in bytes: requests name models, they never carry one."""
SESSION_DAYS = 7
MIN_ADMIN_TOKEN = 16

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBES = frozenset({"/healthz", "/readyz"})
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with that, browsers send "Origin: null" with the hub's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Caller:
    """Who sent a request; `token_id` is empty for the admin token of the settings."""

    name: str
    scope: Scope
    token_id: int | None = None


def reads(view: View) -> View:
    """Declare that a view changes nothing and takes safe methods only."""
    view.access = "reads"  # type: ignore[attr-defined]
    return view


def asks(view: View) -> View:
    """Declare that a view changes nothing, though its question comes as the body of a POST.

    It is as open as what `reads`: to anybody, and to the scripts of other sites.
    """
    view.access = "asks"  # type: ignore[attr-defined]
    return view


def writes(view: View) -> View:
    """Declare that a view changes something when it is called with an unsafe method."""
    view.access = "writes"  # type: ignore[attr-defined]
    return view


def signs_in(view: View) -> View:
    """Declare that a view changes nothing but the caller's own session: it needs no token yet."""
    view.access = "signs_in"  # type: ignore[attr-defined]
    return view


def check_settings(settings: Settings) -> None:
    """Refuse settings that would let strangers write."""
    if settings.loopback:
        return
    length = len(settings.admin_token.get_secret_value())
    if length == 0:
        raise Unauthorized(
            "admin_token_needed",
            "The hub would be reachable from other machines, and no admin token is set.",
            "Set HUB_ADMIN_TOKEN to a long random text, or HUB_HOST=127.0.0.1.",
        )
    if length < MIN_ADMIN_TOKEN:
        raise Unauthorized(
            "admin_token_too_short",
            f"HUB_ADMIN_TOKEN has {length} characters and needs at least {MIN_ADMIN_TOKEN}.",
            "A good one comes from: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """The names, without ports, under which the hub answers.

    Ports are left out on purpose: a forwarded or published port differs from the hub's own, and a
    page that rebinds a name of its own to this machine still cannot send one of these names.
    """
    names = {settings.host, _hostname(urlsplit(settings.public_url).netloc)}
    names |= {_hostname(host) for host in settings.allowed_hosts}
    return _LOOPBACK_NAMES | {name.lower() for name in names if name}


def install(app: Flask, settings: Settings) -> None:
    """Put the checks before, and the headers after, every request of an application."""
    check_settings(settings)
    app.secret_key = _session_key(settings)
    app.config.update(
        MAX_CONTENT_LENGTH=BODY_LIMIT,
        SESSION_COOKIE_NAME="slmhub",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=settings.base_url.startswith("https://"),
        PERMANENT_SESSION_LIFETIME=SESSION_DAYS * 24 * 3600,
    )
    hosts = allowed_hosts(settings)

    def check() -> None:
        g.request_id = secrets.token_hex(8)
        if request.path not in _PROBES:
            _check_host(hosts)
        if request.method not in SAFE_METHODS and _access() != "asks":
            _check_origin(settings)
            _check_token()

    app.before_request(check)
    app.after_request(_add_headers)
    # A proxy: a page that does not show the caller, as the error page, needs no database for it.
    app.context_processor(
        lambda: {"caller": LocalProxy(caller), "single_user": current_settings().loopback}
    )


def caller() -> Caller | None:
    """Who sent this request, by token or by session; nothing for a stranger.

    Looked up once a request, and only when somebody asks: a download needs no database for it.
    """
    if "caller" not in g:
        g.caller = _identify()
    found: Caller | None = g.caller
    return found


def identify_token(settings: Settings, text: str) -> Caller | None:
    """The caller that a token stands for: the admin token of the settings, or one that was made."""
    admin = settings.admin_token.get_secret_value()
    if admin and hmac.compare_digest(admin.encode(), text.encode("utf-8", "surrogateescape")):
        return Caller("admin", Scope.ADMIN)
    row = tokens.verify(settings, text)
    return None if row is None else Caller(row.name, Scope(row.scope), row.id)


def open_session(who: Caller) -> None:
    """Remember a caller in the signed cookie of this browser: which token, never the token."""
    session.clear()
    session["token"] = who.token_id if who.token_id is not None else "admin"
    session.permanent = True


def _identify() -> Caller | None:
    settings = current_settings()
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return identify_token(settings, text.strip())
    token = session.get("token")
    if token == "admin":  # noqa: S105 - a mark, no secret
        return Caller("admin", Scope.ADMIN)
    if isinstance(token, int):
        row = tokens.valid(settings, token)
        return None if row is None else Caller(row.name, Scope(row.scope), row.id)
    return None


def _session_key(settings: Settings) -> bytes:
    """The key that signs sessions: every web process has the same, without sharing a file.

    It comes from the admin token, so a new admin token ends all sessions. On loopback there is no
    login, hence no session, and any key will do.
    """
    admin = settings.admin_token.get_secret_value()
    if not admin:
        return secrets.token_bytes(32)
    return hashlib.scrypt(admin.encode(), salt=b"slmhub session", n=2**14, r=8, p=1, dklen=32)


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:  # an IPv6 address without its end
        return ""


def _check_host(hosts: frozenset[str]) -> None:
    if _hostname(request.headers.get("Host", "")) not in hosts:
        raise Misdirected(
            "unknown_host",
            "This hub does not answer under the name that the request was sent to.",
            "The operator adds further names to HUB_ALLOWED_HOSTS, or sets HUB_PUBLIC_URL.",
        )


def _check_origin(settings: Settings) -> None:
    """Refuse what another site's page sends. Programs send none of these headers."""
    site = request.headers.get("Sec-Fetch-Site")
    source = request.headers.get("Origin") or request.headers.get("Referer")
    foreign = site not in (None, "same-origin", "none")
    if source is not None and not foreign:
        own = {
            request.headers.get("Host", "").lower(),
            urlsplit(settings.public_url).netloc.lower(),
        }
        try:
            netloc = urlsplit(source).netloc.lower()
        except ValueError:
            netloc = ""
        foreign = not netloc or netloc not in own
    if foreign:
        raise Forbidden(
            "foreign_origin",
            "This was sent by a page of another site.",
            "Do it on the hub's own pages, or with its API or command line.",
        )


def _check_token() -> None:
    """Refuse a change by somebody without a token, whatever the view says of itself."""
    if _access() in (None, "signs_in"):
        return  # no such page, or the login itself
    if current_settings().loopback:
        return
    who = caller()
    if who is None:
        raise Unauthorized(
            "token_needed",
            "Changing something on this hub needs a token.",
            "Send `Authorization: Bearer hf_…`, or sign in at /login.",
        )
    if not who.scope.includes(Scope.WRITE):
        raise Forbidden(
            "scope_too_small",
            f"The token {who.name!r} may read only.",
            "Use a token with the scope write.",
        )


def _access() -> str | None:
    """What the view that is asked for says of itself; nothing where there is no such page."""
    view = current_app.view_functions.get(request.endpoint or "")
    return None if view is None else getattr(view, "access", "writes")


def _add_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if "request_id" in g:
        response.headers["X-Request-Id"] = g.request_id
    return response


def undeclared(app: Flask) -> list[str]:
    """The routes that do not say what they do, or take more methods than they say."""
    wrong = []
    for rule in app.url_map.iter_rules():
        access = getattr(app.view_functions[rule.endpoint], "access", None)
        unsafe = set(rule.methods or ()) - SAFE_METHODS
        if access is None or (access == "reads") == bool(unsafe):
            wrong.append(f"{sorted(rule.methods or ())} {rule.rule} ({rule.endpoint}): {access}")
    return wrong
