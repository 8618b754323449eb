"""A hub that a browser visits."""

from typing import Any

from hub import db
from hub.config import Settings
from hub.models import Job


class Shown:
    """A hub being served: its settings, its address and its jobs."""

    def __init__(self, settings: Settings, url: str, running: Job, failed: Job) -> None:
        self.settings = settings
        self.url = url
        self.running = running
        self.failed = failed

    def change(self, job: Job, **values: Any) -> None:
        """Change a job, as its worker would."""
        with db.writing(self.settings.database) as session:
            row = session.get(Job, job.id)
            for name, value in values.items():
                setattr(row, name, value)

    @property
    def addresses(self) -> list[str]:
        """The address of every kind of page."""
        jobs = [f"/jobs/{self.running.id}", f"/jobs/{self.failed.id}"]
        pages = ["/", "/?kind=derived", "/?q=none", "/org/model", "/hub/org_model-TOY", "/jobs"]
        return [*pages, *jobs, "/plugins", "/org/model/blob/main/config.json"]
