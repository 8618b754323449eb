"""Tokens: 256 random bits that are shown once, kept as a SHA-256, with a scope and an end.

The shape is Hugging Face's, `hf_` and letters and digits, because llama.cpp sends no other. The
last six characters are a checksum: a mistyped token is known as such without a look into the
database.
"""

import hashlib
import re
import secrets
import string
import time
import zlib
from enum import StrEnum

from sqlmodel import Session, col, select

from hub.config import Settings
from hub.db import reading, writing
from hub.errors import InvalidRequest, NotFound
from hub.models import Token

_ALPHABET = string.digits + string.ascii_letters
_SHAPE = re.compile(r"hf_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_USE_NOTED = 60.0
"""Seconds within which a further use of a token is not written down again."""


class Scope(StrEnum):
    """What a token permits; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: "Scope") -> bool:
        """Whether a caller with this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), 6)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def well_formed(text: str) -> bool:
    """Whether a text has the shape and the checksum of a token."""
    match = _SHAPE.fullmatch(text)
    return match is not None and secrets.compare_digest(_checksum(match[1]), match[2])


def create(
    session: Session, name: str, scope: str = Scope.WRITE, expires_at: float | None = None
) -> tuple[str, Token]:
    """Make a token: its text, which is known at this moment only, and its row.

    Without `expires_at`, in seconds since 1970, it is valid until it is revoked.
    """
    if not re.fullmatch(r"[\w.@ -]{1,64}", name):
        raise InvalidRequest(
            "invalid_token_name",
            f"{name[:64]!r} cannot name a token.",
            "Use 1 to 64 letters, digits, spaces, dots, dashes, underscores or @.",
        )
    if scope not in list(Scope):
        raise InvalidRequest(
            "unknown_scope", f"{scope[:64]!r} is no scope.", f"Use one of {', '.join(Scope)}."
        )
    body = _base62(secrets.randbits(256), 43)
    text = f"hf_{body}{_checksum(body)}"
    row = Token(name=name, digest=_digest(text), scope=str(scope), expires_at=expires_at)
    session.add(row)
    return text, row


def listing(session: Session) -> list[Token]:
    """All tokens that were ever made, oldest first, revoked ones too."""
    return list(session.exec(select(Token).order_by(col(Token.id))))


def revoke(session: Session, token_id: int) -> Token:
    """End a token now; NotFound `token_not_found`. Revoking it again changes nothing."""
    row = session.get(Token, token_id) if 0 < token_id < 2**31 else None
    if row is None:
        raise NotFound(
            "token_not_found",
            f"There is no token {token_id}.",
            "`slmhub token list` shows the tokens.",
        )
    if row.revoked_at is None:
        row.revoked_at = time.time()
    return row


def _valid(row: Token | None) -> Token | None:
    if row is None or row.revoked_at is not None:
        return None
    if row.expires_at is not None and row.expires_at <= time.time():
        return None
    return row


def verify(settings: Settings, text: str) -> Token | None:
    """The token of a text, or nothing when it is unknown, revoked or over. Notes the use."""
    if not well_formed(text):
        return None
    # Looked up by the digest of 256 random bits: how long the lookup takes tells nothing of use.
    with reading(settings.database) as session:
        row = _valid(session.exec(select(Token).where(col(Token.digest) == _digest(text))).first())
    if row is not None and time.time() - (row.last_used_at or 0) > _USE_NOTED:
        with writing(settings.database) as session:
            used = session.get(Token, row.id)
            if used is not None:
                used.last_used_at = time.time()
    return row


def valid(settings: Settings, token_id: int) -> Token | None:
    """The token with an id while it is neither revoked nor over: what a session stands on."""
    with reading(settings.database) as session:
        return _valid(session.get(Token, token_id))
