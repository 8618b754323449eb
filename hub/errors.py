"""What can go wrong, in words that are safe to show.

HubError                a cause and a next step; every subclass fixes the HTTP status
├── InvalidRequest      400  the request is malformed
├── Unauthorized        401  no or a wrong token
├── Forbidden           403  known, but not allowed
├── NotFound            404  no such repo, revision, file, job, plugin
├── Conflict            409  cannot be done in the present state
├── TooLarge            413  a model or a body above a limit
├── Misdirected         421  the Host header names another machine
├── Unprocessable       422  well-formed, but names what does not exist or cannot be done
├── TooManyRequests     429  upstream or the hub asks for patience
├── UpstreamFailed      502  upstream did not answer as it should
├── Unavailable         503  a part of the hub (database, Redis) is away
└── NoSpace             507  the disk or the memory is too small

Errors are caught at three edges only: the request (hub/problems.py), the task (workers/tasks.py)
and the command line (hub/cli.py). What is not a HubError is logged there with an id, and shown as
that id.
"""

from typing import ClassVar


class HubError(Exception):
    """A failure with a machine-readable `kind`, a `message` and a `hint` for the next step.

    `message` and `hint` are shown to users: they carry no secrets, paths or tracebacks.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        """The error as a job row, a log line or a JSON document records it."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}


class InvalidRequest(HubError):
    """The request is malformed."""

    status = 400
    title = "Bad request"


class Unauthorized(HubError):
    """No token, or a wrong one."""

    status = 401
    title = "Token needed"


class Forbidden(HubError):
    """The caller is known, or the page is foreign, and this is not allowed."""

    status = 403
    title = "Not allowed"


class NotFound(HubError):
    """There is no such repo, revision, file, job or plugin."""

    status = 404
    title = "Not found"


class Conflict(HubError):
    """The present state does not permit this."""

    status = 409
    title = "Not possible now"


class TooLarge(HubError):
    """A model or a request body is above a limit."""

    status = 413
    title = "Too large"


class Misdirected(HubError):
    """The request was sent to a name that is not the hub's."""

    status = 421
    title = "Wrong address"


class Unprocessable(HubError):
    """Well-formed, but it names what does not exist or cannot be done."""

    status = 422
    title = "Cannot be done"


class TooManyRequests(HubError):
    """Upstream, or the hub, asks for patience; `retry_after` is in seconds."""

    status = 429
    title = "Too many requests"

    def __init__(self, kind: str, message: str, hint: str = "", retry_after: float = 60) -> None:
        super().__init__(kind, message, hint)
        self.retry_after = retry_after


class UpstreamFailed(HubError):
    """Upstream did not answer as it should."""

    status = 502
    title = "Upstream failed"


class Unavailable(HubError):
    """A part of the hub is away for now."""

    status = 503
    title = "Unavailable for now"


class NoSpace(HubError):
    """The disk or the memory is too small for this."""

    status = 507
    title = "Not enough space"
