"""The documents of the REST API: what it takes and gives, and what its OpenAPI document says.

Sizes are bytes, times seconds since 1970 (UTC).
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from hub.manifest import TEXT

Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Search = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]
Cursor = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[A-Za-z0-9_=-]*$")]
Words = Annotated[str, StringConstraints(max_length=TEXT, pattern=r"^[^\x00]*$")]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _option(value: object, parse: ValidatorFunctionWrapHandler) -> object:
    """One sentence instead of one about each type that a value might have been."""
    try:
        return parse(value)
    except ValidationError:
        raise PydanticCustomError(
            "option",
            f"Input should be true, false, a finite number or a text of up to {TEXT} characters",
        ) from None


Option = Annotated[bool | int | Number | Words, WrapValidator(_option)]
State = Literal["queued", "running", "publishing", "done", "failed", "cancelled"]
JobKind = Literal["mirror", "convert"]
RepoKind = Literal["mirrored", "derived"]


class Problem(BaseModel):
    """An error, as RFC 9457 describes it, with its kind and the next step."""

    type: str = Field(description="urn:slmhub:problem:kind")
    title: str = Field(description="The class of the error, for people")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="The cause, with names and figures")
    kind: str = Field(description="The error's name, for programs")
    hint: str = Field(description="What to do next; may be empty")


class _Body(BaseModel):
    """What a client sends: a key that is not known is an error, not a wish that is lost."""

    model_config = ConfigDict(extra="forbid")


class MirrorRequest(_Body):
    """Which repo to mirror."""

    repo: Text = Field(description="org/name, as upstream has it")
    revision: Text = Field("main", description="Branch, tag or commit")
    folder: str | None = Field(
        None,
        max_length=4096,
        pattern=r"^/[^\x00]*$",
        description="A local folder instead of upstream; only on a hub bound to loopback",
    )


class ConversionRequest(_Body):
    """What to convert a mirrored repo to."""

    repo: Text = Field(description="org/name of a repo of this hub")
    revision: Text = Field("main", description="Branch, tag or commit")
    plugin: Text = Field(description="A name from /plugins")
    variants: list[Text] = Field(min_length=1, max_length=64, description="Of that plugin")
    options: dict[Text, Option] = Field(
        {}, description="Of that plugin, as its `options_schema` says; the rest have defaults"
    )


class ConversionQuery(BaseModel):
    """Whether to convert, or only to say what it would take."""

    dry_run: bool = Field(False, description="Queue nothing: answer the prospect")


class ListedFile(BaseModel):
    """A file of an artefact, or of a model's main commit."""

    path: str
    size: int
    sha256: str
    url: str = Field(description="Where it is downloaded")


class Check(BaseModel):
    """What was seen when an artefact was loaded in its own runtime."""

    state: Literal["passed", "failed", "not_run", "none"] = Field(
        description="not_run: it cannot run on the hub's machine; none: its plugin has no check"
    )
    said: str = Field(description="The same in a few words, with the reason")


class Artefact(BaseModel):
    """The files that one variant became."""

    variant: str
    repo: str = Field(description="The derived repo it was published in")
    commit: str
    sandbox: str = Field(description="The isolation it was made in: strict or weak")
    check: Check
    files: list[ListedFile]


class ModelArtefact(Artefact):
    """An artefact as its model lists it."""

    plugin: str
    size: int
    created_at: float


class Failure(BaseModel):
    """Why a job failed."""

    kind: str = Field(description="The error's name, for programs")
    message: str = Field(description="The cause")
    hint: str = Field(description="What to do next; may be empty")


class Job(BaseModel):
    """A request to mirror or convert, and what became of it."""

    id: int
    kind: JobKind
    state: State = Field(description="The last three are final")
    progress: float = Field(ge=0, le=1)
    message: str = Field(description="What it is doing")
    position: int | None = Field(description="Place in the queue, from 1, while it waits")
    error: Failure | None
    artefacts: list[Artefact] = Field(description="What is there by now")
    repo: str
    revision: str
    commit: str | None = Field(description="Once it is known")
    plugin: str | None
    variants: list[str]
    options: dict[str, bool | int | float | str]
    created_at: float
    started_at: float | None
    finished_at: float | None
    attempt: int = Field(description="How often a worker has begun it")


class Span(BaseModel):
    """Seconds that it may take, from finished jobs of the plugin with models of like size."""

    least: float
    most: float


class VariantProspect(BaseModel):
    """One variant of a request: there already, on its way, or what it will cost."""

    variant: str
    state: Literal["ready", "active", "missing"] = Field(
        description="ready: there already; active: a job is making it"
    )
    repo: str = Field(description="The derived repo it is, or will be, published in")
    size: int | None = Field(description="Of its files; null where nothing is known of it")
    memory: int | None = Field(description="The most that converting and checking it takes")
    scratch: int | None = Field(description="The most disk that it takes for the time being")
    rough: bool = Field(
        description="The hub's own estimate, from bits alone: its memory is a lower bound"
    )
    seconds: Span | None = Field(description="null where no finished job tells")


class DiskProspect(BaseModel):
    """Bytes of disk."""

    needed: int = Field(description="For the download, all files, and what lies beside them")
    free: int
    reserved: int = Field(description="What of it the conversions on their way will take")


class MemoryProspect(BaseModel):
    """Bytes of memory."""

    needed: int
    allowed: int = Field(description="What a conversion may use here")


class Prospect(BaseModel):
    """What a conversion will come to. Nothing was queued."""

    repo: str
    revision: str
    commit: str
    mirrored: bool = Field(description="false: it has to be mirrored before it can be converted")
    download: int = Field(description="Bytes that are to be mirrored first")
    plugin: str
    options: dict[str, bool | int | float | str] = Field(description="All, with the defaults")
    variants: list[VariantProspect]
    disk: DiskProspect
    memory: MemoryProspect
    seconds: Span | None = Field(description="Of all variants; null where nothing tells")
    job: int | None = Field(description="The active job that does the same already")
    refusal: Problem | None = Field(description="Why it cannot be had; null if it can")


class ConversionAnswer(RootModel[Job | Prospect]):
    """The job, or with `dry_run` the prospect."""


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[Job]
    next: str | None = Field(description="The cursor of the next page")


class ModelSummary(BaseModel):
    """A model as the list has it: the facts of its main commit."""

    id: str = Field(description="org/name")
    kind: RepoKind
    source: str | None = Field(description="Of a derived one: the repo it was made from")
    plugin: str | None = Field(description="Of a derived one: the plugin that made it")
    tier: str | None
    parameters: int | None
    active_parameters: int | None = Field(description="Of a mixture of experts: used for a token")
    architecture: str | None
    context_length: int | None
    license: str | None
    languages: list[str]
    pipeline_tag: str | None
    has_chat_template: bool
    commit: str
    size: int = Field(description="Of all files of the commit")
    artefacts: list[ModelArtefact]
    updated_at: float


class Model(ModelSummary):
    """A model with its files."""

    files: list[ListedFile]


class ModelPage(BaseModel):
    """Models in the order that was asked for."""

    items: list[ModelSummary]
    next: str | None = Field(description="The cursor of the next page")


class PluginVariant(BaseModel):
    """One precision of a format."""

    name: str
    bits: float = Field(description="Bits for each weight")
    precision: str = Field(description="Its class: ultra-low, low, medium, half or full")
    note: str


class PluginOption(BaseModel):
    """An option of a plugin."""

    type: Literal["integer", "number", "boolean", "string"]
    choices: list[bool | int | float | str] | None
    minimum: float | None
    maximum: float | None
    default: bool | int | float | str
    help: str


class Plugin(BaseModel):
    """A format that models can be converted to."""

    name: str
    title: str
    version: str
    runtime: str
    summary: str
    state: str = Field(description="ready, not installed, installing, broken or unsupported here")
    reason: str = Field(description="Why it is not ready")
    needs: list[str] = Field(description="Patterns of files that a repo must have")
    variants: list[PluginVariant]
    options: dict[str, PluginOption]
    options_schema: dict[str, Any] = Field(
        description="The JSON Schema of a conversion's `options`; values may be texts that read so"
    )


class PluginPage(BaseModel):
    """All plugins."""

    items: list[Plugin]
    next: None = Field(None, description="There is one page only")


class JobPath(BaseModel):
    """The job of an address."""

    job_id: int = Field(description="The id of a job")


class ModelPath(BaseModel):
    """The model of an address."""

    org: str
    name: str


class JobQuery(BaseModel):
    """Which jobs to list."""

    state: State | Literal["active"] | None = Field(
        None, description="active: all that are not final"
    )
    kind: JobKind | None = None
    repo: Search | None = None
    cursor: Cursor | None = Field(None, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=200)


class ModelQuery(BaseModel):
    """Which models to list."""

    q: Search | None = Field(None, description="Words that all occur in the name")
    tier: Search | None = Field(None, description="tiny, micro, small, medium or large")
    kind: RepoKind = "mirrored"
    license: Search | None = None
    architecture: Search | None = None
    sort: Literal["updated", "name", "parameters"] = "updated"
    cursor: Cursor | None = Field(None, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=200)
