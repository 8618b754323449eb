"""`slmhub token`: the secret is shown once, and never again."""

import pytest
from commanding import Slmhub

from hub import tokens
from hub.config import Settings


def test_a_token_is_shown_when_it_is_made_and_never_again(
    slmhub: Slmhub, settings: Settings
) -> None:
    text = slmhub("token", "create", "laptop").out.strip()
    made = slmhub("token", "create", "ci", "--scope", "read", "--days", "3", "--json").json
    assert tokens.verify(settings, text)
    assert (made["name"], made["scope"]) == ("ci", "read")
    for secret in (text, made["token"]):
        for command in (["list"], ["list", "--json"], ["revoke", "1"], ["revoke", "1", "--json"]):
            done = slmhub("token", *command)
            assert done.code == 0
            assert secret not in done.out + done.err
    assert tokens.verify(settings, text) is None


def test_the_list_tells_all_but_the_digest(slmhub: Slmhub) -> None:
    slmhub("token", "create", "laptop")
    (row,) = slmhub("token", "list", "--json").json
    assert set(row) == {
        "id", "name", "scope", "created_at", "expires_at", "last_used_at", "revoked_at",
    }  # fmt: skip
    assert "laptop" in slmhub("token", "list").out


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["create", "a/b"], "invalid_token_name"),
        (["revoke", "9"], "token_not_found"),
        (["create", "a", "--scope", "root"], "usage"),
        (["create", "a", "--days", "0"], "usage"),
        (["create"], "usage"),
    ],
)
def test_what_cannot_be_done_says_why(slmhub: Slmhub, arguments: list[str], kind: str) -> None:
    done = slmhub("token", *arguments, "--json")
    assert (done.code, done.out) == (2 if kind == "usage" else 1, "")
    assert done.failure["kind"] == kind
    assert done.failure["hint"]
    if "root" in arguments:
        assert all(name in done.failure["message"] for name in ("read", "write", "admin"))
