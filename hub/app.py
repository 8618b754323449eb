"""The web application: settings, safety, the error edge, and the explicit list of its views."""

from flask_openapi3.models.info import Info
from flask_openapi3.models.security_scheme import SecurityScheme
from flask_openapi3.openapi import OpenAPI

from hub import __version__, problems, security
from hub.config import ROOT, Settings
from hub.schemas import Problem
from hub.views import (
    api_docs,
    api_v1,
    auth,
    catalogue,
    events,
    figures,
    health,
    hf_api,
    jobs,
    model,
    plugins,
    resolve,
)
from hub.web import current_settings

__all__ = ["create_app", "current_settings"]

PAGES = (figures, catalogue, jobs, plugins, model)
"""The page families: modules with a `blueprint`."""


def create_app(settings: Settings | None = None) -> OpenAPI:
    """Make the application of a hub; HubError when its settings would let strangers write.

    Without settings they are read from the environment, as a web server's process does.
    """
    settings = settings or Settings()
    app = OpenAPI(
        "hub",
        info=Info(title="SLM Hub", version=__version__, summary="Mirror, convert, serve"),
        security_schemes={"token": SecurityScheme(type="http", scheme="bearer")},
        doc_ui=False,
        validation_error_model=Problem,
        validation_error_callback=api_v1.refuse,
        template_folder=str(ROOT / "templates"),
        static_folder=str(ROOT / "hub" / "static"),
        static_url_path="/static",
    )
    app.config["SETTINGS"] = settings
    # "//" is not another way to write "/": a path trick gets 404, not a redirect.
    app.url_map.merge_slashes = False
    security.reads(app.view_functions["static"])
    security.install(app, settings)
    problems.install(app)
    for api in (api_v1, events):
        app.register_api(api.blueprint)
    for module in (health, auth, resolve, hf_api, api_docs, *PAGES):
        app.register_blueprint(module.blueprint)
    return app
