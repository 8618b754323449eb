"""Repos, commits and files as Hugging Face's API describes them, for its clients.

No field ever names Xet: a client that sees one asks for a storage the hub does not have.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlmodel import Session, and_, col, select

from hub.blobs import lfs_pointer
from hub.models import Commit, File, Ref, Repo

HISTORY = 1000
"""Commits that are shown at most."""


def model(repo: Repo, commit: Commit | None = None) -> dict[str, Any]:
    """A repo at a commit, without one at its `main`; its files are `siblings`."""
    facts = repo.facts if commit is None else commit.facts
    sha = repo.main if commit is None else commit.sha
    changed = repo.updated_at if commit is None or sha == repo.main else commit.created_at
    return {
        "_id": f"{repo.id or 0:024x}",
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.name.partition("/")[0],
        "sha": sha,
        "createdAt": _date(repo.created_at),
        "lastModified": _date(changed),
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "library_name": _library(repo),
        "pipeline_tag": facts.get("pipeline_tag"),
        "tags": _tags(repo, facts),
        "cardData": _card(repo, facts),
        "config": _config(facts),
        **_weights(repo, facts),
    }


def siblings(files: Iterable[File], *, blobs: bool = False) -> list[dict[str, Any]]:
    """The files of a model; with `blobs` their sizes and digests. Not the tree's names for them."""
    if not blobs:
        return [{"rfilename": file.path} for file in files]
    return [
        {
            "rfilename": file.path,
            "size": file.size,
            "blobId": file.git_sha1,
            **({"lfs": _lfs(file, "sha256")} if file.lfs else {}),
        }
        for file in files
    ]


def siblings_of(session: Session, rows: Sequence[Repo]) -> dict[str, list[dict[str, Any]]]:
    """The files of the `main` of each repo, by its name, with one query however many there are."""
    found: dict[str, list[dict[str, Any]]] = {repo.name: [] for repo in rows}
    query = (
        select(Repo.name, File.path)
        .join(Commit, and_(col(Commit.repo_id) == Repo.id, col(Commit.sha) == Repo.main))
        .join(File, col(File.commit_id) == Commit.id)
        .where(col(Repo.name).in_(list(found)))
        .order_by(col(File.path))
    )
    for name, path in session.exec(query):
        found[name].append({"rfilename": path})
    return found


def tree(files: Iterable[File], last: Commit | None = None) -> dict[str, dict[str, Any]]:
    """All files and folders of a commit by path, in the order of their paths.

    With `last`, each names it as the commit that it was last changed in.
    """
    items: dict[str, dict[str, Any]] = {}
    beneath: dict[str, list[str]] = {}
    for file in files:
        items[file.path] = {
            "type": "file",
            "path": file.path,
            "size": file.size,
            "oid": file.git_sha1,
            **({"lfs": _lfs(file, "oid")} if file.lfs else {}),
        }
        folder = file.path
        while folder := folder.rpartition("/")[0]:
            beneath.setdefault(folder, []).append(f"{file.path}\0{file.git_sha1}")
    for folder, inside in beneath.items():
        # Not git's own id, which depends on files that were left out; it changes when they do.
        oid = hashlib.sha1("\n".join(sorted(inside)).encode(), usedforsecurity=False).hexdigest()
        items[folder] = {"type": "directory", "path": folder, "size": 0, "oid": oid}
    if last is not None:
        about = {"id": last.sha, "title": _title(last), "date": _date(last.created_at)}
        for item in items.values():
            item["lastCommit"] = about
    return dict(sorted(items.items()))


def refs(session: Session, repo: Repo, *, pull_requests: bool = False) -> dict[str, Any]:
    """The names of a repo's commits. A name that was mirrored without its kind is a branch."""
    found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "pullRequests": []}
    found["branches"].append(_ref("main", "refs/heads/main", repo.main))
    for row in session.exec(select(Ref).where(Ref.repo_id == repo.id).order_by(Ref.name)):
        if row.name.startswith("refs/pr/"):
            found["pullRequests"].append(_ref(row.name.removeprefix("refs/"), row.name, row.sha))
        elif row.name.startswith("refs/tags/"):
            found["tags"].append(_ref(row.name.removeprefix("refs/tags/"), row.name, row.sha))
        else:
            name = row.name.removeprefix("refs/heads/")
            found["branches"].append(_ref(name, f"refs/heads/{name}", row.sha))
    if not pull_requests:
        del found["pullRequests"]
    return {**found, "converts": []}


def commits(session: Session, repo: Repo, newest: Commit) -> list[dict[str, Any]]:
    """A commit and those it was made after, as far as the hub has them."""
    rows = session.exec(
        select(Commit)
        .where(Commit.repo_id == repo.id, col(Commit.id) <= newest.id)
        .order_by(col(Commit.id).desc())
        .limit(HISTORY)
    )
    known = {row.sha: row for row in rows}
    found: list[dict[str, Any]] = []
    row: Commit | None = newest
    while row is not None:
        known.pop(row.sha, None)  # once each, whatever the rows say
        found.append(
            {
                "id": row.sha,
                "title": _title(row),
                "message": row.message,
                "authors": [],
                "date": _date(row.created_at),
            }
        )
        row = known.get(row.parent or "")
    return found


def _date(moment: float) -> str:
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _title(commit: Commit) -> str:
    return commit.message.partition("\n")[0] or f"Mirrored {commit.sha[:12]}"


def _ref(name: str, ref: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": ref, "targetCommit": sha}


def _lfs(file: File, digest: str) -> dict[str, Any]:
    """What is known of a large file. The tree calls its digest `oid`, a sibling `sha256`."""
    pointer = len(lfs_pointer(file.sha256, file.size))
    return {digest: file.sha256, "size": file.size, "pointerSize": pointer}


def _library(repo: Repo) -> str:
    return repo.plugin or "transformers"


def _base_models(repo: Repo, facts: dict[str, Any]) -> list[str]:
    return [repo.source] if repo.source else facts.get("base_model") or []


def _tags(repo: Repo, facts: dict[str, Any]) -> list[str]:
    """What `filter` finds a model by: hub/views/hf_api.py knows the same."""
    tags = [
        _library(repo),
        *([] if repo.plugin else ["safetensors"]),
        *filter(None, (facts.get("model_type"), facts.get("pipeline_tag"))),
        *(facts.get("languages") or []),
        *(facts.get("tags") or []),
        *(f"base_model:{name}" for name in _base_models(repo, facts)),
        *([f"base_model:quantized:{repo.source}"] if repo.source else []),
        *([f"license:{facts['license']}"] if facts.get("license") else []),
    ]
    return list(dict.fromkeys(tags))


def _card(repo: Repo, facts: dict[str, Any]) -> dict[str, Any]:
    said = {
        "license": facts.get("license"),
        "language": facts.get("languages"),
        "pipeline_tag": facts.get("pipeline_tag"),
        "library_name": _library(repo),
        "base_model": _base_models(repo, facts),
        "tags": facts.get("tags"),
    }
    return {name: value for name, value in said.items() if value}


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    architecture, kind = facts.get("architecture"), facts.get("model_type")
    return {
        **({"architectures": [architecture]} if architecture else {}),
        **({"model_type": kind} if kind else {}),
    }


def _weights(repo: Repo, facts: dict[str, Any]) -> dict[str, Any]:
    total = facts.get("parameters")
    if not total:
        return {}
    if repo.plugin is None:
        return {"safetensors": {"parameters": facts.get("dtypes") or {}, "total": total}}
    if repo.plugin == "gguf":
        return {"gguf": {"total": total, "context_length": facts.get("context_length")}}
    return {}
