"""The documents of the REST API: what it takes and gives, and what its OpenAPI document says.

Sizes are bytes, times seconds since 1970 (UTC).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(max_length=400, pattern=r"^[^\x00]*$")]
State = Literal["queued", "running", "publishing", "done", "failed", "cancelled"]


class Problem(BaseModel):
    """An error, as RFC 9457 describes it, with its kind and the next step."""

    type: str = Field(description="urn:slmhub:problem:kind")
    title: str = Field(description="The class of the error, for people")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="The cause, with names and figures")
    kind: str = Field(description="The error's name, for programs")
    hint: str = Field(description="What to do next; may be empty")
