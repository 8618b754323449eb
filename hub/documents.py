"""Models, plugins and prospects as the REST API shows them; jobs and artefacts: hub/jobs.py."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from sqlalchemy import and_, func
from sqlmodel import Session, col, select

from hub import catalogue, formats, repos
from hub.config import Settings
from hub.formats import Format
from hub.jobs import describe_artefact
from hub.manifest import options_schema
from hub.models import Artefact, Commit, File, Repo
from hub.problems import problem
from hub.prospects import Forecast, Order, Prospect


def models(session: Session, settings: Settings, rows: Sequence[Repo]) -> list[dict[str, Any]]:
    """The summaries of repos (schemas.ModelSummary): the queries do not grow with their number."""
    sizes = _sizes(session, rows)
    artefacts = _artefacts(session, rows)
    return [
        {
            "id": repo.name,
            "kind": repo.kind,
            "source": repo.source,
            "plugin": repo.plugin,
            "tier": repo.tier,
            "parameters": repo.parameters,
            "active_parameters": repo.active_parameters,
            "architecture": repo.architecture,
            "context_length": repo.context_length,
            "license": repo.license,
            "languages": repo.facts.get("languages") or [],
            "pipeline_tag": repo.facts.get("pipeline_tag"),
            "has_chat_template": bool(repo.facts.get("has_chat_template")),
            "commit": repo.main,
            "size": sizes.get(repo.name, 0),
            "artefacts": [_artefact(settings, row) for row in artefacts.get(repo.name, [])],
            "updated_at": repo.updated_at,
        }
        for repo in rows
    ]


def model(session: Session, settings: Settings, repo: Repo) -> dict[str, Any]:
    """A repo with the files of its main commit (schemas.Model)."""
    base = f"{settings.base_url}/{quote(repo.name)}/resolve/{repo.main}"
    commit = repos.resolve(session, repo, "main")
    files = [
        {
            "path": file.path,
            "size": file.size,
            "sha256": file.sha256,
            "url": f"{base}/{quote(file.path)}",
        }
        for file in repos.files(session, commit)
    ]
    return {**models(session, settings, [repo])[0], "files": files}


def plugin(settings: Settings, fmt: Format) -> dict[str, Any]:
    """A plugin with its state here (schemas.Plugin)."""
    state = formats.state(settings, fmt)
    return {
        "name": fmt.name,
        "title": fmt.title,
        "version": fmt.version,
        "runtime": fmt.runtime,
        "summary": fmt.summary,
        "state": state.name,
        "reason": state.reason,
        "needs": fmt.needs,
        "variants": [
            {
                "name": variant.name,
                "bits": variant.bits,
                "precision": variant.class_,
                "note": variant.note,
            }
            for variant in fmt.variants
        ],
        "options": {name: option.model_dump() for name, option in fmt.options.items()},
        "options_schema": options_schema(fmt.options),
    }


def prospect(found: Prospect) -> dict[str, Any]:
    """What a conversion will come to (schemas.Prospect)."""
    order = found.order
    refusal = found.refusal
    return {
        "repo": order.job.repo,
        "revision": order.job.revision,
        "commit": order.job.commit,
        "mirrored": order.mirrored,
        "download": order.download,
        "plugin": order.fmt.name,
        "options": order.job.request["options"],
        "variants": [_variant(order, one) for one in found.variants],
        "disk": {
            "needed": found.disk,
            "free": found.space.free,
            "reserved": found.space.reserved,
        },
        "memory": {"needed": found.memory, "allowed": found.allowed},
        "seconds": _span(found.seconds),
        "job": order.twin.id if order.twin else None,
        "refusal": problem(
            refusal.status, refusal.title, refusal.kind, refusal.message, refusal.hint
        )
        if refusal
        else None,
    }


def _variant(order: Order, one: Forecast) -> dict[str, Any]:
    state = "active" if one.name in order.making else "missing"
    estimate = one.estimate
    return {
        "variant": one.name,
        "state": "ready" if one.artefact else state,
        "repo": one.repo,
        "size": one.size if one.artefact or estimate else None,
        "memory": estimate.memory if estimate else None,
        "scratch": estimate.scratch if estimate else None,
        "rough": estimate.rough if estimate else False,
        "seconds": _span(one.seconds),
    }


def _span(seconds: tuple[float, float] | None) -> dict[str, float] | None:
    return {"least": seconds[0], "most": seconds[1]} if seconds else None


def _sizes(session: Session, rows: Sequence[Repo]) -> dict[str, int]:
    found = session.exec(
        select(col(Repo.name), func.sum(col(File.size)))
        .join(Commit, and_(col(Commit.repo_id) == Repo.id, col(Commit.sha) == Repo.main))
        .join(File, col(File.commit_id) == Commit.id)
        .where(col(Repo.name).in_([repo.name for repo in rows]))
        .group_by(col(Repo.name))
    )
    # PostgreSQL sums big integers to a decimal number.
    return {name: int(size) for name, size in found}


def _artefacts(session: Session, rows: Sequence[Repo]) -> dict[str, list[Artefact]]:
    """Made from a repo's main commit, or published in a derived one."""
    sources = {repo.name: repo.main for repo in rows if repo.kind == "mirrored"}
    derived = [repo.name for repo in rows if repo.kind == "derived"]
    found: dict[str, list[Artefact]] = {}
    if sources:
        found |= catalogue.made_from(session, sources)
    if derived:
        found |= catalogue.published_in(session, derived)
    return found


def _artefact(settings: Settings, row: Artefact) -> dict[str, Any]:
    return {
        **describe_artefact(settings, row),
        "plugin": row.plugin,
        "size": row.size,
        "created_at": row.created_at,
    }
