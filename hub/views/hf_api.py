"""The read side of Hugging Face's API: what huggingface_hub, transformers and llama.cpp ask for."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, g, jsonify, request
from sqlalchemy import ColumnElement, String, cast, false, func, or_
from sqlmodel import Session, col
from werkzeug.exceptions import BadRequest

from hub import hf_documents, listing, names, repos
from hub.db import reading
from hub.errors import InvalidRequest, NotFound, Unauthorized
from hub.models import Commit, Repo
from hub.security import asks, caller, reads
from hub.tokens import Scope
from hub.views import hf_wire
from hub.web import current_settings

blueprint = Blueprint("hf_api", __name__, url_prefix="/api")

blueprint.after_request(hf_wire.open_to_scripts)

PAGE = 100
"""Models of a list's page where the client does not say how many."""
WHOLE = 50
"""The most models of a page that tells their files too."""
FIELDS = 40
"""The most that a list is asked for at once: parameters of the query, and tags in it."""
LENGTH = 255
"""The longest of them, in characters."""

_ORDERS = {
    "lastModified": "updated",
    "createdAt": "created",
    # Nothing is counted here: all are equal, and the newest come first.
    "downloads": "updated",
    "likes": "updated",
    "trendingScore": "updated",
}
_BOUND = re.compile(r"(min|max):(\d{1,15}(?:\.\d{1,15})?)([KMBT]?)", re.I)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@blueprint.get("/models")
@reads
def list_models() -> Response:
    """List models, mirrored and derived; the header `Link` leads to the next page."""
    settings = current_settings()
    _check_query()
    sort = request.args.get("sort", "lastModified")
    if sort not in _ORDERS:
        raise InvalidRequest(
            "bad_sort", f"{sort[:80]!a} is no order of models.", f"Use one of {', '.join(_ORDERS)}."
        )
    limit = request.args.get("limit", PAGE, int)
    whole = _flag("full") or "siblings" in request.args.getlist("expand")
    with reading(settings.database) as session:
        rows, following = listing.page(
            session,
            q=request.args.get("search"),
            kind=None,
            sort=_ORDERS[sort],
            cursor=request.args.get("cursor"),
            limit=min(limit, WHOLE) if whole else limit,
            also=list(_conditions()),
        )
        items = [hf_documents.model(repo) for repo in rows]
        if whole:
            files = hf_documents.siblings_of(session, rows)
            items = [{**item, "siblings": files[item["id"]]} for item in items]
    response = jsonify(items)
    if following is not None:
        asked = [item for item in request.args.items(multi=True) if item[0] != "cursor"]
        query = urlencode([*asked, ("cursor", following)])
        # Absolute, since clients fetch it as it stands.
        response.headers["Link"] = f'<{settings.base_url}/api/models?{query}>; rel="next"'
    return response


@blueprint.get("/models/<org>/<name>")
@blueprint.get("/models/<org>/<name>/revision/<path:revision>")
@reads
def show_model(org: str, name: str, revision: str = "main") -> Response:
    """Describe a model at a revision, with its files."""
    with reading(current_settings().database) as session:
        repo, commit = _find(session, org, name, revision)
        files = repos.files(session, commit)
        return jsonify(
            {
                **hf_documents.model(repo, commit),
                "siblings": hf_documents.siblings(files, blobs=_flag("blobs")),
                "usedStorage": sum(file.size for file in files),
            }
        )


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/revision/<path:revision>")
@reads
def without_organisation(name: str, revision: str = "") -> Response:  # noqa: ARG001
    """Answer those who ask by Hugging Face's oldest names, which have no organisation."""
    raise NotFound(
        "repo_not_found",
        f"There is no repo {name[:96]!a}: repos here are named organisation/name.",
        "Ask for it by its full name, as in openai-community/gpt2.",
    )


@blueprint.get("/models/<org>/<name>/tree/<path:rest>")
@reads
def show_tree(org: str, name: str, rest: str) -> Response:
    """List a folder of a revision, all of it in one answer: llama.cpp reads no second page."""
    revision, folder = hf_wire.revision_and_path(rest, after="/tree/")
    folder = folder.strip("/")
    if folder:
        names.check_path(folder)
    with reading(current_settings().database) as session:
        repo, commit = _find(session, org, name, revision)
        tree = hf_documents.tree(repos.files(session, commit), commit if _flag("expand") else None)
    if folder and tree.get(folder, {}).get("type") != "directory":
        raise NotFound(
            "entry_not_found",
            f"The commit {commit.sha} of {repo.name} has no folder {folder}",
            "Look at the list of its files",
        )
    start = f"{folder}/" if folder else ""
    deep = _flag("recursive")
    return jsonify(
        [
            item
            for path, item in tree.items()
            if path.startswith(start) and (deep or "/" not in path[len(start) :])
        ]
    )


@blueprint.post("/models/<org>/<name>/paths-info/<path:revision>")
@asks
def show_paths(org: str, name: str, revision: str) -> Response:
    """Describe those of the paths in the body that a revision has."""
    paths, expand = _asked_paths()
    with reading(current_settings().database) as session:
        _, commit = _find(session, org, name, revision)
        tree = hf_documents.tree(repos.files(session, commit), commit if expand else None)
    return jsonify([tree[path] for path in dict.fromkeys(paths) if path in tree])


@blueprint.get("/models/<org>/<name>/refs")
@reads
def show_refs(org: str, name: str) -> Response:
    """List the branches and tags of a model."""
    with reading(current_settings().database) as session:
        repo = repos.find(session, f"{org}/{name}")
        return jsonify(hf_documents.refs(session, repo, pull_requests=_flag("include_prs")))


@blueprint.get("/models/<org>/<name>/commits/<path:revision>")
@reads
def show_commits(org: str, name: str, revision: str) -> Response:
    """List a commit and what came before it, all in one answer."""
    with reading(current_settings().database) as session:
        repo, commit = _find(session, org, name, revision)
        found = hf_documents.commits(session, repo, commit)
    response = jsonify(found)
    response.headers["X-Total-Count"] = str(len(found))
    return response


@blueprint.get("/models/<org>/<name>/auth-check")
@reads
def check_access(org: str, name: str) -> Response:
    """Say that a model may be read, as all may that are here."""
    with reading(current_settings().database) as session:
        repos.find(session, f"{org}/{name}")
    return jsonify({})


@blueprint.get("/whoami-v2")
@reads
def whoami() -> Response:
    """Name the bearer of a token."""
    who = caller()
    if who is None:
        sent = "Authorization" in request.headers
        raise Unauthorized(
            "invalid_credentials" if sent else "token_needed",
            # Clients know the first sentence word by word.
            "Invalid credentials in Authorization header" if sent else "No token was sent",
            "The operator makes one with `slmhub token create`.",
        )
    role = Scope.WRITE if who.scope.includes(Scope.WRITE) else Scope.READ
    return jsonify(
        {
            "type": "user",
            "id": str(who.token_id or 0),
            "name": who.name,
            "fullname": who.name,
            "email": None,
            "orgs": [],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": who.name, "role": str(role)},
            },
        }
    )


def _find(session: Session, org: str, name: str, revision: str) -> tuple[Repo, Commit]:
    repo = repos.find(session, f"{org}/{name}")
    commit = repos.resolve(session, repo, revision)
    g.commit = commit.sha  # clients remember that a folder is not there, by this header
    return repo, commit


def _true(value: object) -> bool:
    return str(value).lower() in ("true", "1")


def _flag(name: str) -> bool:
    return _true(request.args.get(name))


def _asked_paths() -> tuple[list[str], bool]:
    """The paths of the body, a form or JSON, and whether more is asked about them."""
    if not request.is_json:
        return request.form.getlist("paths"), _true(request.form.get("expand"))
    try:
        body = request.get_json()
    except (BadRequest, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            "invalid_json", "The body is not valid JSON.", "Check its commas and quotes."
        ) from error
    paths = body.get("paths", []) if isinstance(body, dict) else None
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InvalidRequest(
            "invalid_request", "The body names no paths.", 'Send {"paths": ["config.json"]}.'
        )
    return paths, _true(body.get("expand"))


def _check_query() -> None:
    """Refuse what would make the database work for long, or what PostgreSQL keeps in no text."""
    asked = [value for _, value in request.args.items(multi=True)]
    tags = ",".join(request.args.getlist("filter")).split(",")
    if len(asked) > FIELDS or len(tags) > FIELDS or any(len(text) > LENGTH for text in asked):
        raise InvalidRequest(
            "query_too_long",
            f"More is asked for than {FIELDS} things of {LENGTH} characters each.",
            "Ask for less at once.",
        )
    if any("\0" in text for text in asked):
        raise InvalidRequest("invalid_request", "The query has a NUL character.", "Leave it out.")


def _conditions() -> Iterator[ColumnElement[bool]]:
    """What the query of a list asks for, beside words of the name."""
    if author := request.args.get("author"):
        yield func.lower(col(Repo.name)).startswith(f"{author.lower()}/", autoescape=True)
    if task := request.args.get("pipeline_tag"):
        yield _fact("pipeline_tag") == task
    if _flag("gated"):
        yield false()
    for tags in request.args.getlist("filter"):
        for tag in filter(None, tags.split(",")):
            yield _tagged(tag)
    if bounds := request.args.get("num_parameters"):
        yield from _bounds(bounds)


def _bounds(text: str) -> Iterator[ColumnElement[bool]]:
    """`min:6B,max:128B`, either or both, inclusive."""
    for part in text.split(","):
        match = _BOUND.fullmatch(part.strip())
        if match is None:
            raise InvalidRequest(
                "bad_num_parameters",
                f"{text[:80]!a} is no range of parameters.",
                "Ranges look like min:1.5B,max:14B",
            )
        number = round(float(match[2]) * _UNITS[match[3].upper()])
        bound = min(number, 2**62)
        parameters = col(Repo.parameters)
        yield parameters >= bound if match[1].lower() == "min" else parameters <= bound


def _fact(name: str) -> Any:
    return col(Repo.facts)[name].as_string()


def _listed(name: str, value: str) -> ColumnElement[bool]:
    """Whether a list among the facts has a value, in any case: looked for in the text that the list
    is kept as, since the databases share no way to look inside."""
    kept = func.lower(cast(col(Repo.facts)[name], String))
    return kept.contains(json.dumps(value).lower(), autoescape=True)


def _tagged(tag: str) -> ColumnElement[bool]:
    """Whether a repo has a tag: the same that hf_documents shows."""
    kind, _, value = tag.partition(":")
    if kind == "license" and value:
        return col(Repo.license) == value
    if kind == "base_model" and value:
        name = value.removeprefix("quantized:")
        made = col(Repo.source) == name
        if name != value:
            return made
        return or_(made, _listed("base_model", name))
    if tag in ("safetensors", "transformers"):
        return col(Repo.plugin).is_(None)
    return or_(
        col(Repo.plugin) == tag,
        _fact("pipeline_tag") == tag,
        _fact("model_type") == tag,
        _listed("tags", tag),
        _listed("languages", tag),
    )
