"""What may be the name of a repo, the path of a file, or a revision."""

import re
import unicodedata

from hub.errors import InvalidRequest, Unprocessable

# First segments of addresses that the hub uses itself, or may come to use.
# fmt: off
RESERVED = frozenset({
    "about", "account", "admin", "api", "artefacts", "artifacts", "assets", "audit", "blobs",
    "catalog", "catalogue", "collections", "compare", "conversions", "datasets", "devices",
    "docs", "events", "favicon.ico", "health", "healthz", "help", "hf", "jobs", "login", "logout",
    "metrics", "mirrors", "models", "new", "oauth", "openapi", "operate", "organizations",
    "plugins", "privacy", "queue", "resolve", "robots.txt", "search", "settings", "sitemap.xml",
    "spaces", "static", "status", "tiers", "tokens", "upstream", "users", "v1", "v2",
    "well-known", "workers",
})
# fmt: on

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+@=/-]*[A-Za-z0-9_+@=-])?")


def shown(text: str) -> str:
    """A text that was refused, short and harmless enough for a message."""
    return ascii(text if len(text) <= 80 else text[:80] + "...")


def check_name(name: str) -> str:
    """The name, if it is one a repo may have (org/name); else InvalidRequest says why not."""
    reason = ""
    parts = name.split("/")
    if len(name) > 96:
        reason = f"it has {len(name)} characters, 96 are allowed"
    elif len(parts) != 2:
        reason = "it is not of the form organisation/name"
    elif not all(_PART.fullmatch(part) for part in parts):
        reason = (
            "both parts consist of letters, digits, '-', '_' and '.', "
            "and neither begin nor end with '-' or '.'"
        )
    elif "--" in name or ".." in name:
        reason = "'--' and '..' are not allowed"
    elif name.endswith(".git"):
        reason = "it ends with '.git'"
    elif parts[0].lower() in RESERVED:
        reason = f"{parts[0]!r} is an address of the hub itself"
    if reason:
        raise InvalidRequest(
            "bad_repo_name",
            f"{shown(name)} cannot be the name of a repo: {reason}",
            "Names look like Qwen/Qwen3-0.6B",
        )
    return name


def check_foreign(name: str, namespace: str) -> str:
    """The name, if it is not in the organisation that the hub writes itself; else Unprocessable."""
    if name.split("/")[0].lower() == namespace.lower():
        raise Unprocessable(
            "own_namespace",
            f"{shown(name)} would be among the repos that this hub writes itself",
            "Choose another organisation, or set HUB_NAMESPACE to another name",
        )
    return name


def check_path(path: str) -> str:
    """The path, if a file of a repo may have it; else InvalidRequest says why not."""
    reason = ""
    segments = path.split("/")
    if not path or path.startswith("/") or path.endswith("/") or "" in segments:
        reason = "it is empty, absolute or has an empty segment"
    elif "." in segments or ".." in segments:
        reason = "'.' and '..' are not allowed as segments"
    elif "\\" in path or "%" in path:
        reason = "backslashes and '%' are not allowed"
    elif any(unicodedata.category(letter)[0] == "C" for letter in path) or any(
        letter in path for letter in "\u2028\u2029"
    ):
        reason = "it has control characters"
    elif len(path.encode()) > 1024 or any(len(part.encode()) > 255 for part in segments):
        reason = "it is too long: 255 bytes a segment and 1024 in all are allowed"
    if reason:
        raise InvalidRequest(
            "bad_path",
            f"{shown(path)} cannot be the path of a file: {reason}",
            "Paths look like folder/model.safetensors",
        )
    return path


def check_revision(revision: str) -> str:
    """The revision, if it can be a branch, a tag or a commit; else InvalidRequest says why not."""
    if (
        len(revision) > 255
        or not _REVISION.fullmatch(revision)
        or any(part in revision for part in ("..", "//", "/.", "./", "@{"))
    ):
        raise InvalidRequest(
            "bad_revision",
            f"{shown(revision)} cannot be a revision",
            "A revision is a branch, a tag, or a commit of 40 hexadecimal digits",
        )
    return revision
