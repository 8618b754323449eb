"""The description of the REST API: as OpenAPI for programs, as a page for people."""

from copy import deepcopy
from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, render_template
from flask_openapi3.openapi import OpenAPI
from markupsafe import Markup

from hub import formats
from hub.formats import Format
from hub.manifest import options_schema
from hub.security import reads
from hub.web import current_settings

blueprint = Blueprint("api_docs", __name__, url_prefix="/api/v1")


def document() -> dict[str, Any]:
    """The OpenAPI document of the running application, with the options of the plugins it has."""
    api = deepcopy(cast(OpenAPI, current_app).api_doc)
    schemas = api["components"]["schemas"]
    plugins = [fmt for fmt in formats.formats(current_settings()).values() if not fmt.problem]
    for fmt in plugins:
        schemas[_options_name(fmt)] = {
            "title": _options_name(fmt),
            "description": f"The options of the plugin {fmt.name}: {fmt.title}.",
            **options_schema(fmt.options),
        }
    if plugins:
        schemas["ConversionRequest"]["allOf"] = [_of_plugin(fmt) for fmt in plugins]
    return api


def _options_name(fmt: Format) -> str:
    return f"Options_{fmt.name}"


def _of_plugin(fmt: Format) -> dict[str, Any]:
    """What holds of a conversion request as soon as it names the plugin."""
    return {
        "if": {"properties": {"plugin": {"const": fmt.name}}},
        "then": {
            "properties": {
                "variants": {"items": {"enum": [variant.name for variant in fmt.variants]}},
                "options": {"$ref": f"#/components/schemas/{_options_name(fmt)}"},
            }
        },
    }


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
