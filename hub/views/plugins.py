"""The plugins as a page: what they make, whether they can, and what to do where not."""

from flask import Blueprint, render_template

from hub import formats
from hub.security import reads
from hub.web import current_settings

blueprint = Blueprint("plugins", __name__)


@blueprint.get("/plugins")
@reads
def index() -> str:
    """All plugins, broken ones too."""
    settings = current_settings()
    found = [(fmt, formats.state(settings, fmt)) for fmt in formats.shown(settings)]
    return render_template("plugins.html", plugins=found)
