"""What every view needs of the running application, without importing it."""

from typing import cast

from flask import current_app

from hub.config import Settings


def current_settings() -> Settings:
    """The settings of the application that answers this request."""
    return cast(Settings, current_app.config["SETTINGS"])
