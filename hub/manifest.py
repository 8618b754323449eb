"""The manifest of a plugin, `plugin.toml`: what it may hold, and what its options accept."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

API = 1
TEXT = 1000
"""Characters of the longest text that an option may have."""
_types = {"integer": int, "number": float, "boolean": bool, "string": str}
Value = bool | int | float | str
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\r\n\x00]+$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Variant(_Table):
    """One precision of a format."""

    name: Label
    bits: float = Field(gt=0, le=64, description="Bits per weight, on average")
    class_: Literal["ultra-low", "low", "medium", "half", "full"] = Field(alias="class")
    note: Line = Field(description="One line of advice")
    pick: bool = Field(False, description="The one to begin with in its class")


class Option(_Table):
    """A setting of a conversion: enough to draw a form, a flag and a schema from."""

    type: Literal["integer", "number", "boolean", "string"]
    choices: list[Value] | None = Field(None, min_length=1)
    minimum: float | None = None
    maximum: float | None = None
    default: Value
    help: Line

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        if self.type in ("boolean", "string") and (self.minimum, self.maximum) != (None, None):
            raise ValueError(f"a {self.type} has no minimum or maximum")
        for value in [*(self.choices or []), self.default]:
            if not _is(value, self.type):
                raise ValueError(f"{value!r} is not of type {self.type}")
        if not self.allows(self.default):
            raise ValueError(f"the default {self.default!r} is not allowed: {self.allowed}")
        return self

    def allows(self, value: Value) -> bool:
        """Whether a value of the right type is among the choices and in the range."""
        if self.choices is not None and value not in self.choices:
            return False
        if isinstance(value, str):
            return True
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices is not None:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.type == "boolean":
            return "true or false"
        words = {"integer": "a whole number", "number": "a number", "string": "a text"}[self.type]
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"{words}, at least {self.minimum:g}"
        if self.maximum is not None:
            return f"{words}, at most {self.maximum:g}"
        return words

    @property
    def values_schema(self) -> dict[str, Any]:
        """The JSON Schema of its values. `parse` takes them, and texts that read as one of them."""
        limits = {"enum": self.choices, "minimum": self.minimum, "maximum": self.maximum}
        found = {name: limit for name, limit in limits.items() if limit is not None}
        if self.type == "string":
            found["maxLength"] = TEXT
        return {"type": self.type, **found, "default": self.default, "description": self.help}

    def parse(self, given: object) -> Value:
        """The typed value of what a form, a flag or a JSON document gave; ValueError if not one."""
        value = _typed(given, self.type)
        if not self.allows(value):
            raise ValueError
        return value


def options_schema(options: Mapping[str, Option]) -> dict[str, Any]:
    """The JSON Schema of a conversion's options: what is left out has its default."""
    return {
        "type": "object",
        "properties": {name: option.values_schema for name, option in options.items()},
        "additionalProperties": False,
    }


class Run(_Table):
    """How to use an artefact: a title and a command with {repo} {variant} {file} {hub} {url}."""

    title: Line
    command: Annotated[str, StringConstraints(min_length=1, max_length=2000)]

    def fill(self, **values: str) -> str:
        """The command with its placeholders replaced; other braces stay as they are."""
        # In one pass: what is filled in may look like a placeholder itself.
        return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), self.command)


class Manifest(_Table):
    """What `plugin.toml` may hold; every key is documented in docs/plugins.md."""

    api: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    title: Line
    version: str = Field("0", pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,39}$")
    runtime: Line
    summary: Line
    needs: list[Line] = Field(default_factory=list, description="Name patterns, each must match")
    repo: str = Field(description="Name of the derived repo, from {source} and {variant}")
    variants: list[Variant] = Field(min_length=1)
    options: dict[OptionName, Option] = Field(default_factory=dict)
    tools: list[Line] = Field(default_factory=list, description="Packages to record versions of")
    smoke: list[Line] = Field(default_factory=list, description="Modules that must import")
    licenses: list[Line] = Field(default_factory=list, description="Licences of the tools")
    platforms: list[Line] = Field(
        default_factory=list, description="As linux-x86_64; empty: everywhere"
    )
    command: list[Line] | None = Field(None, min_length=1, description="Instead of convert.py")
    appraises: bool = Field(False, description="The command answers the action appraise too")
    run: list[Run] = Field(default_factory=list)
    hidden: bool = Field(False, description="Not offered on pages: for tests and trials")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for variant in self.variants:
            # Folders of variants lie beside each other, on file systems that may ignore case.
            if variant.name.lower() in seen:
                raise ValueError(f"variants: {variant.name!r} is there twice")
            seen.add(variant.name.lower())
        try:
            made = self.repo.format_map({"source": "org_name", "variant": "v"})
        except (KeyError, ValueError, IndexError, AttributeError):
            raise ValueError("repo: only {source} and {variant} can be placed in it") from None
        if "{source}" not in self.repo or not re.fullmatch(r"[A-Za-z0-9._-]+", made):
            raise ValueError("repo: must hold {source}, and else letters, digits, '.', '_', '-'")
        return self


def _is(value: Value, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "number":
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, _types[kind])


def _typed(given: object, kind: str) -> Value:
    if isinstance(given, str) and kind != "string":
        text = given.strip()
        if kind == "boolean":
            words = {"true": True, "on": True, "yes": True, "1": True}
            words |= {"false": False, "off": False, "no": False, "0": False}
            if text.lower() in words:
                return words[text.lower()]
            raise ValueError
        given = int(text) if kind == "integer" else float(text)
    if not isinstance(given, bool | int | float | str) or not _is(given, kind):
        raise ValueError
    if isinstance(given, str) and (len(given) > TEXT or "\0" in given):
        raise ValueError
    return float(given) if kind == "number" else given
