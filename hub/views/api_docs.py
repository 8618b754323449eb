"""The description of the REST API: as OpenAPI for programs, as a page for people."""

from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, render_template
from flask_openapi3.openapi import OpenAPI
from markupsafe import Markup

from hub.security import reads

blueprint = Blueprint("api_docs", __name__, url_prefix="/api/v1")


def document() -> dict[str, Any]:
    """The OpenAPI document of the running application."""
    return cast(OpenAPI, current_app).api_doc


@blueprint.get("/openapi.json")
@reads
def openapi() -> Response:
    """The OpenAPI document."""
    return jsonify(document())


@blueprint.get("/docs")
@reads
def docs() -> str:
    """The same for people, without anything from another site."""
    return render_template("api_docs.html", api=document(), reference=_reference)


def _reference(schema: dict[str, Any]) -> Markup:
    """A type in words, with links to the documents it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "anyOf" in schema:
        return Markup(" or ").join(_reference(one) for one in schema["anyOf"])
    if "enum" in schema:
        return Markup(", ").join(Markup("<code>{}</code>").format(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return Markup("list of {}").format(_reference(schema.get("items", {})))
    if isinstance(schema.get("additionalProperties"), dict):
        return Markup("object of {}").format(_reference(schema["additionalProperties"]))
    return Markup("{}").format(schema.get("const") or schema.get("type", "anything"))
