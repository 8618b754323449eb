"""The curated selection: models worth a look, in collections, from selection.toml."""

import tomllib
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, computed_field, field_validator

from hub.names import check_name
from hub.tiers import tier

FILE = Path(__file__).with_name("selection.toml")


class Selected(BaseModel):
    """One model of the selection, as its authors describe it; a mirror counts for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str = Field(description="Where it is upstream: org/name")
    title: str
    collection: str
    parameters: int = Field(gt=0, description="Of the published weights")
    license: str
    context_length: int = Field(gt=0, description="Tokens")
    note: str = Field(max_length=200)
    gated: bool = Field(default=False, description="Upstream wants its licence accepted first")

    @field_validator("repo")
    @classmethod
    def _named(cls, value: str) -> str:
        return check_name(value)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tier(self) -> str:
        """The tier that the number of parameters says."""
        return str(tier(self.parameters))


class Collection(BaseModel):
    """Models that belong together."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    note: str
    models: list[Selected]


@lru_cache(maxsize=4)
def load(path: Path = FILE) -> list[Collection]:
    """The collections in the order of the file. Where it is wrong: pydantic.ValidationError, and
    InvalidRequest for the name of a repo."""
    document = tomllib.loads(path.read_text("utf-8"))
    collections = []
    for name, found in document.items():
        models = [{**model, "collection": name} for model in found.get("models", [])]
        collections.append({**found, "name": name, "models": models})
    return TypeAdapter(list[Collection]).validate_python(collections)
