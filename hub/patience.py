"""How long to try again: upstream may be busy or away for a while, but nobody waits without end."""

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from hub.errors import HubError, TooManyRequests, UpstreamFailed

ATTEMPTS = 6
"""Tries in a row that bring nothing before it is given up."""
FIRST_WAIT = 0.5
"""Seconds before the second try; doubled each time, up to 15."""
LONGEST_WAIT = 600.0
"""Seconds of patience that upstream may ask for (its windows are 300 s)."""
TICK = 0.1

T = TypeVar("T")


class Cancelled(Exception):
    """The caller asked for the end."""


class Interrupted(Exception):
    """Upstream did not finish an answer: worth another try. The text is safe to show."""


class Throttled(Interrupted):
    """Upstream asks to come back after `retry_after` seconds, if it says so."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def patiently(call: Callable[[], T], cancelled: Callable[[], bool]) -> T:
    """The result of `call`, tried again as long as it raises Interrupted and it makes sense.

    Raises Cancelled soon after `cancelled()` becomes true, TooManyRequests or UpstreamFailed when
    upstream stays busy or broken.
    """
    tries = Retrying(
        retry=retry_if_exception_type(Interrupted),
        stop=_enough,
        wait=_wait,
        sleep=lambda seconds: sleep(seconds, cancelled),
        reraise=True,
    )

    def once() -> T:
        if cancelled():
            raise Cancelled
        return call()

    try:
        return tries(once)
    except Interrupted as error:
        raise _failure(error) from error


def sleep(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Wait, but notice a cancellation at once; then raise Cancelled."""
    until = time.monotonic() + seconds
    while not cancelled():
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, TICK))
    raise Cancelled


def _asked_for(state: RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, Throttled) else None


def _enough(state: RetryCallState) -> bool:
    asked = _asked_for(state)
    return state.attempt_number >= ATTEMPTS or (asked is not None and asked > LONGEST_WAIT)


def _wait(state: RetryCallState) -> float:
    asked = _asked_for(state)
    if asked is not None:
        return asked
    return wait_exponential_jitter(multiplier=FIRST_WAIT, max=15, jitter=FIRST_WAIT)(state)


def _failure(error: Interrupted) -> HubError:
    if isinstance(error, Throttled):
        after = error.retry_after or 60.0
        return TooManyRequests(
            "upstream_busy",
            f"{error}, and asks to wait {after:.0f} s",
            "Try again later; a token in HF_TOKEN raises the limits of Hugging Face",
            retry_after=after,
        )
    return UpstreamFailed(
        "upstream_failed",
        f"{error}; tried {ATTEMPTS} times",
        "Try again later: what has arrived is kept, the transfer goes on from there",
    )
