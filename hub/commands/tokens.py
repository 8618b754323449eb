"""Commands about tokens; they work on the database itself, so on the hub's own machine."""

import time

import click

from hub import db
from hub import tokens as store
from hub.commands.output import as_json, show, table
from hub.config import Settings


@click.group()
def token() -> None:
    """Give out and revoke tokens."""


@token.command(name="create")
@click.argument("name")
@click.option("--scope", type=click.Choice(["read", "write", "admin"]), default="write")
@click.option("--days", type=click.IntRange(1, 36500), help="Days until it expires; never without.")
@as_json
@click.pass_obj
def token_create(settings: Settings, name: str, scope: str, days: int | None, json_: bool) -> None:
    """Make a token and show it, once."""
    expires = time.time() + days * 86400 if days else None
    with db.writing(settings.database) as session:
        secret, row = store.create(session, name, scope, expires_at=expires)
        session.flush()
        made = {"id": row.id, "name": name, "scope": scope, "token": secret}
    show(made, json_, lambda one: print(one["token"]))


@token.command(name="list")
@as_json
@click.pass_obj
def token_list(settings: Settings, json_: bool) -> None:
    """List the tokens, without their secrets."""
    with db.reading(settings.database) as session:
        rows = [row.model_dump(exclude={"digest"}) for row in store.listing(session)]
    columns = ["id", "name", "scope", "created_at", "expires_at", "last_used_at", "revoked_at"]
    show(rows, json_, lambda all_: table(all_, columns))


@token.command(name="revoke")
@click.argument("number", type=int)
@as_json
@click.pass_obj
def token_revoke(settings: Settings, number: int, json_: bool) -> None:
    """Revoke the token with this number."""
    with db.writing(settings.database) as session:
        store.revoke(session, number)
    show({"id": number, "revoked": True}, json_, lambda one: print(f"revoked {one['id']}"))
