"""What is known of a model before any weight is read: configuration, files, shapes of tensors."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hub import safetensors
from hub.blobs import BlobStore
from hub.config import Settings
from hub.errors import NotFound
from hub.models import Commit, File
from hub.safetensors import BadSafetensors, Header, Tensor

log = logging.getLogger(__name__)

CONFIG = "config.json"
CONFIG_LIMIT = 4 * 1024**2
KEPT_HEADER = 4 * 1024**2
"""Bytes of the largest header that is remembered once it was parsed."""
MAX_TENSORS = 20_000
"""Tensors that plugins are told of: as many as a mixture of experts has, far fewer than a hoax."""


@dataclass(frozen=True)
class Outline:
    """A model without its weights. `files` are sizes in bytes by path, `parameters` a count."""

    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    parameters: int = 0

    @property
    def weights(self) -> int:
        """Bytes of its weight files."""
        return sum(size for path, size in self.files.items() if path.endswith(".safetensors"))

    @property
    def largest(self) -> int:
        """Elements of its largest tensor."""
        return max((tensor.numel for tensor in self.tensors.values()), default=0)

    def described(self) -> dict[str, dict[str, Any]]:
        """The tensors as plugins are told of them; none of them if they are too many."""
        if len(self.tensors) > MAX_TENSORS:
            return {}
        return {
            name: {"dtype": tensor.dtype, "shape": list(tensor.shape)}
            for name, tensor in self.tensors.items()
        }


def outline(
    config: Mapping[str, Any],
    files: Mapping[str, int],
    headers: Iterable[Header],
    parameters: int | None = None,
) -> Outline:
    """The outline of a model from the headers of its safetensors files."""
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    return Outline(config, files, tensors, parameters or 0)


def of_commit(settings: Settings, commit: Commit, files: Sequence[File]) -> Outline:
    """The outline of a mirrored commit, from the store.

    Files that are damaged or were taken away there are left out: a conversion says what to do.
    """
    store = BlobStore(settings.blobs)
    headers = []
    for file in files:
        if file.path.endswith(".safetensors"):
            try:
                headers.append(_header(store, file))
            except (NotFound, BadSafetensors) as error:
                log.warning("%s has no header to estimate from: %s", file.path, error)
    sizes = {file.path: file.size for file in files}
    return outline(config(settings, files), sizes, headers, commit.facts.get("parameters"))


def of_folder(folder: Path) -> Outline:
    """The outline of a model in a folder of the operator's; raises where it is not whole."""
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    headers = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            start = safetensors.read_header(file, sizes[path.name], path.name)
        headers.append(safetensors.parse_header(start, size=sizes[path.name], name=path.name))
    return outline(json.loads((folder / CONFIG).read_bytes()), sizes, headers)


def config(settings: Settings, files: Iterable[File]) -> dict[str, Any]:
    """The model's config.json, as data; empty where there is none that can be read."""
    for file in files:
        if file.path == CONFIG and file.size <= CONFIG_LIMIT:
            try:
                with BlobStore(settings.blobs).open(file.sha256) as blob:
                    found = json.load(blob)
            except (ValueError, RecursionError, NotFound):
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _header(store: BlobStore, file: File) -> Header:
    with store.open(file.sha256) as blob:
        start = safetensors.read_header(blob, file.size, file.path)
    parse = _parse if len(start) <= KEPT_HEADER else safetensors.parse_header
    return parse(start, size=file.size, name=file.path)


# A form asks about the same model again and again, and each format does: parsing the header of a
# mixture of experts takes most of a second.
_parse = lru_cache(maxsize=32)(safetensors.parse_header)
