"""Signing in with a token, and out again. A hub on loopback has no login."""

from urllib.parse import urlsplit

from flask import Blueprint, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from hub.errors import Unauthorized
from hub.security import identify_token, open_session, reads, signs_in
from hub.web import current_settings

blueprint = Blueprint("auth", __name__)


@blueprint.get("/login")
@reads
def login() -> str | Response:
    """Ask for a token."""
    if current_settings().loopback:
        return redirect("/", 303)
    return render_template("login.html", next=_inside(request.args.get("next", "/")))


@blueprint.post("/login")
@signs_in
def sign_in() -> Response:
    """Turn a token into a session of this browser."""
    who = identify_token(current_settings(), request.form.get("token", "").strip())
    if who is None:
        raise Unauthorized(
            "invalid_token",
            "This token is unknown, revoked or over.",
            "Ask the operator for one: `slmhub token create NAME` prints it once.",
        )
    open_session(who)
    return redirect(_inside(request.form.get("next", "/")), 303)


@blueprint.post("/logout")
@signs_in
def logout() -> Response:
    """Forget the session of this browser."""
    session.clear()
    return redirect(url_for("auth.login"), 303)


def _inside(target: str) -> str:
    """The target if it is a path of this hub, else the front page: never another site."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    plain = target.isascii() and target.isprintable() and "\\" not in target
    inside = not parts.scheme and not parts.netloc and target.startswith("/")
    return target if plain and inside and not target.startswith("//") else "/"
