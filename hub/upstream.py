"""Where models come from: what a repo holds at a revision, and its bytes.

Metadata goes through huggingface_hub, bytes through hub/outbound.py. A local folder
(hub/local.py) is an upstream too.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import islice
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile

from hub import names
from hub.errors import (
    Forbidden,
    HubError,
    InvalidRequest,
    NotFound,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
)
from hub.outbound import Answer, Hosts, RedirectRefused, Web, origin
from hub.patience import Interrupted, Throttled, patiently

MAX_FILES = 50_000
MAX_READ = 128 * 1024 * 1024
"""Bytes that are read into memory at once: above the largest safetensors header."""
BLOCK = 128 * 1024
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# draft-ietf-httpapi-ratelimit-headers: "api";r=0;t=55: nothing left, 55 s until there is.
_RATE_LIMIT = re.compile(r";\s*r=(?P<left>\d{1,9})\s*;\s*t=(?P<reset>\d{1,9})(?!\d)")

Cancel = Callable[[], bool]


def never() -> bool:
    """The `cancelled` of those who cannot be cancelled."""
    return False


@dataclass(frozen=True)
class RemoteFile:
    """A file as upstream lists it: large ones by SHA-256, small ones by the id git gives them."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A repo at one commit. `repo` is its present name, whatever it was asked for by."""

    repo: str
    sha: str
    revision: str
    files: list[RemoteFile]
    endpoint: str
    gated: bool = False

    def file(self, path: str) -> RemoteFile | None:
        """The file at a path, if there is one."""
        return next((file for file in self.files if file.path == path), None)


class Upstream(Protocol):
    """A place that models are mirrored from."""

    def snapshot(self, repo: str, revision: str, cancelled: Cancel = never) -> Snapshot:
        """What the repo holds at a branch, tag or commit id."""

    def read(
        self, snapshot: Snapshot, path: str, start: int, end: int, cancelled: Cancel = never
    ) -> bytes:
        """Bytes start..end of a file, exactly as many."""

    def close(self) -> None:
        """Let go of connections."""


class HttpUpstream:
    """An endpoint that speaks the API of the Hugging Face Hub."""

    def __init__(
        self, endpoint: str, token: str | None = None, hosts: list[str] | None = None
    ) -> None:
        split = urlsplit(endpoint)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise InvalidRequest(
                "bad_upstream",
                "The upstream address is not an http or https address",
                "Set HUB_UPSTREAM to one, such as https://huggingface.co",
            )
        self.endpoint = endpoint
        self.token = token
        agent = f"slmhub/{version('slmhub')}"
        self.web = Web(Hosts(endpoint, tuple(hosts or ())), token, agent=agent)
        # token=False: without a token of the hub's, none from the account's files is taken either.
        self._api = HfApi(endpoint=endpoint, token=token or False, user_agent=agent)
        self._places: dict[str, str] = {}
        self._not_before = 0.0
        self._lock = threading.Lock()

    def snapshot(self, repo: str, revision: str, cancelled: Cancel = never) -> Snapshot:
        """See Upstream. What upstream refuses is NotFound, Forbidden or Unauthorized."""
        names.check_name(repo)
        names.check_revision(revision)
        if constants.HF_HUB_OFFLINE:
            raise Unavailable(
                "offline",
                "HF_HUB_OFFLINE is set: the hub may not reach upstream",
                "Unset it, or mirror from a local folder",
            )
        return patiently(lambda: self._snapshot(repo, revision), cancelled)

    def read(
        self, snapshot: Snapshot, path: str, start: int, end: int, cancelled: Cancel = never
    ) -> bytes:
        """See Upstream; at most 128 MiB."""
        if end - start > MAX_READ:
            raise ValueError(f"{end - start} bytes are too many to read at once")
        return patiently(lambda: self._read(snapshot, path, start, end), cancelled)

    def open(self, snapshot: Snapshot, file: RemoteFile, start: int, end: int) -> Answer:
        """An answer whose body is bytes start..end of a file, or all of it if its status is 200.

        The caller closes it. Raises Interrupted or Throttled when it is worth another try.
        """
        left = self._not_before - time.monotonic()
        if left > 0:
            raise Throttled("Upstream asked for patience", left)
        headers = {} if (start, end) == (0, file.size) else {"Range": f"bytes={start}-{end - 1}"}
        key = f"{snapshot.repo}@{snapshot.sha}/{file.path}"
        known = self._places.get(key)
        home = f"{self.endpoint}/{quote(snapshot.repo)}/resolve/{snapshot.sha}/{quote(file.path)}"
        answer = self.web.get(known or home, headers)
        try:
            self._judge(answer, snapshot, file, start)
        except BaseException:
            self._places.pop(key, None)
            answer.close()
            raise
        if not self.web.hosts.same_origin(answer.split):
            # The signed address serves the other parts too: one resolve a file, not one a part.
            self._places[key] = answer.url
        return answer

    def close(self) -> None:
        """Close idle connections."""
        self.web.close()

    def _judge(self, answer: Answer, snapshot: Snapshot, file: RemoteFile, start: int) -> None:
        status, span = answer.status, answer.span
        if status == 206 and span is None:
            raise Interrupted(f"Upstream's answer for {file.path} does not say which part it is")
        if (status in (206, 416)) and span is not None and span[1] != file.size:
            raise size_mismatch(file, span[1])
        if status == 206 and answer.encoding != "identity":
            raise Interrupted(f"Upstream compresses parts of {file.path}")
        if status == 206 and span is not None and span[0] != start:
            raise Interrupted(f"Upstream sent another part of {file.path} than was asked for")
        if status == 200 and answer.length is not None and answer.length != file.size:
            raise size_mismatch(file, answer.length)
        if status in (200, 206):
            return
        passing = self._passing(status, dict(answer.headers.items()))
        if passing is not None:
            raise passing
        host = answer.split.hostname
        if not self.web.hosts.same_origin(answer.split):
            # A signed address that ran out: the next try asks for a new one.
            raise Interrupted(f"{host} answered {status} for {file.path}")
        headers = {key.lower(): value for key, value in answer.headers.items()}
        raise self._refusal(status, headers, snapshot.repo, snapshot.revision, file.path)

    def _read(self, snapshot: Snapshot, path: str, start: int, end: int) -> bytes:
        file = snapshot.file(path)
        if file is None:
            raise NotFound("entry_not_found", f"{snapshot.repo} has no file {path}")
        found = bytearray()
        if end <= start:
            return b""
        with self.open(snapshot, file, start, end) as answer:
            skip = start if answer.status == 200 else 0
            for piece in answer.chunks(memoryview(bytearray(BLOCK))):
                taken = piece[skip:]
                skip -= min(skip, len(piece))
                found += taken[: end - start - len(found)]
                if len(found) == end - start:
                    return bytes(found)
        raise Interrupted(f"{path} ended after {len(found)} of {end - start} bytes")

    def _snapshot(self, repo: str, revision: str) -> Snapshot:
        with self._guarded(repo, revision):
            info = self._api.model_info(repo, revision=revision)
            sha = str(info.sha or "")
            if not _SHA1.fullmatch(sha):
                raise self._garbage("no commit id")
            name = names.check_name(info.id)
            tree = self._api.list_repo_tree(name, recursive=True, revision=sha)
            entries = list(islice(tree, MAX_FILES + 1))
        if len(entries) > MAX_FILES:
            raise UpstreamFailed(
                "too_many_files",
                f"{name} lists more than {MAX_FILES} files and folders",
                "The hub mirrors models, not archives: ask its owner for a smaller repo",
            )
        files = [self._file(entry) for entry in entries if isinstance(entry, RepoFile)]
        if len({file.path for file in files}) != len(files):
            raise self._garbage("a path twice")
        return Snapshot(name, sha, revision, files, self.endpoint, bool(info.gated))

    def _file(self, entry: RepoFile) -> RemoteFile:
        size = entry.lfs.size if entry.lfs else entry.size
        digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
        pattern = _SHA256 if entry.lfs else _SHA1
        if type(size) is not int or size < 0 or not pattern.fullmatch(str(digest)):
            raise self._garbage(f"no usable size and digest of {str(entry.path)[:100]!r}")
        return RemoteFile(
            entry.path, size, sha256=digest if entry.lfs else None, git_sha1=entry.blob_id or None
        )

    def _garbage(self, what: str) -> UpstreamFailed:
        return UpstreamFailed(
            "upstream_garbage",
            f"{self.endpoint} answers with {what}",
            "Check that the upstream address is a Hugging Face endpoint",
        )

    @contextlib.contextmanager
    def _guarded(self, repo: str, revision: str) -> Iterator[None]:
        """Metadata calls: they stay on the endpoint, and fail in the hub's words."""
        _install()
        mark = _watch.set(self)
        try:
            yield
        except HfHubHTTPError as error:
            headers = {key.lower(): value for key, value in error.response.headers.items()}
            status = error.response.status_code
            raise self._refusal(status, headers, repo, revision) from error
        except HFValidationError as error:
            raise InvalidRequest("bad_repo_name", f"{repo} is not a repo's name", "") from error
        except OfflineModeIsEnabled as error:
            raise Unavailable("offline", "HF_HUB_OFFLINE is set", "Unset it") from error
        except (
            ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
        ) as error:  # fmt: skip
            # What the library raises when an answer is not the JSON it expects.
            raise self._garbage("what is no answer of a model hub") from error
        finally:
            _watch.reset(mark)

    def watched(self, call: Callable[[], httpx2.Response]) -> httpx2.Response:
        """A metadata request: what passes is left to hub/patience.py, not to the library's own
        waits, which cannot be cancelled and have no bound."""
        left = self._not_before - time.monotonic()
        if left > 0:
            raise Throttled("Upstream asked for patience", left)
        host = urlsplit(self.endpoint).hostname
        try:
            response = call()
        except httpx2.TooManyRedirects as error:
            raise UpstreamFailed("too_many_redirects", f"{host} redirects in circles") from error
        except httpx2.TransportError as error:
            name = type(error).__name__
            raise Interrupted(f"{host} cannot be reached ({name})") from error
        passing = self._passing(response.status_code, dict(response.headers.items()))
        if passing is not None:
            raise passing
        return response

    def stay(self, request: httpx2.Request) -> None:
        """Refuse to take the metadata client, and the token it carries, anywhere else."""
        split = urlsplit(str(request.url))
        here = urlsplit(self.endpoint)
        if origin(split) == origin(here):
            return
        upgrade = split.scheme == "https" and here.scheme == "http"
        if not (upgrade and split.hostname == here.hostname):
            raise RedirectRefused(split.hostname or "", "which is not the endpoint")

    def _passing(self, status: int, headers: dict[str, str]) -> Interrupted | None:
        """What a status means that may be another one later."""
        host = urlsplit(self.endpoint).hostname
        if status == 429:
            after = retry_after(headers)
            with self._lock:
                self._not_before = time.monotonic() + (after or 0)
            return Throttled(f"{host} answered 429, too many requests", after)
        if status == 408 or status >= 500:
            after = retry_after(headers)
            text = f"{host} answered {status}"
            return Throttled(text, after) if status == 503 and after else Interrupted(text)
        return None

    def _refusal(
        self, status: int, headers: dict[str, str], repo: str, revision: str, path: str = ""
    ) -> HubError:
        """A final answer of the endpoint, as an error with a cause and a next step."""
        code = headers.get("x-error-code", "")
        message = headers.get("x-error-message", "")
        host = urlsplit(self.endpoint).netloc.rpartition("@")[2]
        page = f"{self.endpoint}/{repo}"
        if message == "Invalid credentials in Authorization header":
            return Unauthorized(
                "bad_upstream_token",
                f"{host} does not accept the token in HF_TOKEN",
                "Make a new token there, and give it to the hub in HF_TOKEN",
            )
        if code == "GatedRepo":
            if self.token is None:
                return Forbidden(
                    "repo_gated",
                    f"{repo} is gated: {host} gives it only to accounts that accepted its terms",
                    f"Accept them on {page}, and give the hub a token of that account in HF_TOKEN",
                )
            return Forbidden(
                "repo_gated",
                f"{repo} is gated, and the account of HF_TOKEN has no access to it",
                f"Ask for access on {page} with that account; a fine-grained token also needs "
                "the permission to read gated repos",
            )
        if message == "Access to this resource is disabled.":
            return Forbidden(
                "repo_disabled", f"{repo} is disabled on {host}", "Choose another model"
            )
        if code == "RevisionNotFound":
            return NotFound(
                "revision_not_found",
                f"{repo} has no revision {revision} on {host}",
                "Check its branches and tags there",
            )
        if code == "EntryNotFound" or (status == 404 and path):
            return UpstreamFailed(
                "entry_vanished",
                f"{host} lists {path} of {repo}, but does not have it",
                "The repo may have changed meanwhile: try again",
            )
        if status == 401 and self.token is None:
            return NotFound(
                "repo_not_found",
                f"{repo} does not exist on {host}, or it is private",
                "Check the spelling; for a private repo, give the hub a token in HF_TOKEN",
            )
        if status == 401:
            return Unauthorized(
                "bad_upstream_token",
                f"{host} asks for another token than the one in HF_TOKEN to read {repo}",
                "Check that it is still valid and may read this repo",
            )
        if status == 404:
            also = "" if self.token is None else ", or HF_TOKEN has no access to it"
            return NotFound(
                "repo_not_found",
                f"{repo} does not exist on {host}{also}",
                "Check the spelling, and HUB_UPSTREAM if the model is elsewhere",
            )
        if status == 403:
            return Forbidden(
                "repo_forbidden",
                f"{host} does not allow reading {repo}",
                "Ask its owner for access, and give the hub a token of that account in HF_TOKEN",
            )
        return UpstreamFailed(
            "upstream_failed",
            f"{host} answered {status} for {repo}",
            "Check that the upstream address is a Hugging Face endpoint",
        )


def size_mismatch(file: RemoteFile, sent: int) -> UpstreamFailed:
    """The error for a file that is not as large as upstream lists it; sizes in bytes."""
    return UpstreamFailed(
        "size_mismatch",
        f"{file.path}: upstream lists {file.size} bytes, but has {sent}",
        "The file is damaged there, or the repo is changing: try again, else tell its owner",
    )


def retry_after(headers: dict[str, str]) -> float | None:
    """Seconds that an answer asks to wait, from RateLimit or Retry-After. None when it does not."""
    lower = {key.lower(): value for key, value in headers.items()}
    limit = _RATE_LIMIT.search(lower.get("ratelimit", ""))
    if limit and int(limit["left"]) == 0:
        return int(limit["reset"]) + 1.0
    value = lower.get("retry-after", "").strip()
    # The form with a date is as good as no answer: clocks differ.
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


_watch: ContextVar[HttpUpstream | None] = ContextVar("upstream", default=None)


class _Client(httpx2.Client):
    """The client that huggingface_hub works with, watched while an upstream is asked."""

    def request(self, *arguments: Any, **named: Any) -> httpx2.Response:
        watcher = _watch.get()
        if watcher is None:
            return super().request(*arguments, **named)
        return watcher.watched(lambda: super(_Client, self).request(*arguments, **named))


def _stay(request: httpx2.Request) -> None:
    watcher = _watch.get()
    if watcher is not None:
        watcher.stay(request)


@cache
def _install() -> None:
    set_client_factory(
        lambda: _Client(
            event_hooks={"request": [_stay]},
            follow_redirects=True,
            timeout=httpx2.Timeout(60, connect=20),
        )
    )
