"""Debian's Chromium, and a hub that it can visit."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from furnished import add_artefact, add_job, add_log, add_model, add_plugin
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from shown import Shown
from werkzeug.serving import make_server
from workbench import PATIENCE

from hub.app import create_app
from hub.config import Settings
from hub.models import JobState

CHROMIUM = Path("/usr/bin/chromium")
MILLISECONDS = PATIENCE * 1000
expect.set_options(timeout=MILLISECONDS)
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    if not CHROMIUM.exists():
        pytest.skip("Debian's Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=MILLISECONDS
        )
        yield browser
        browser.close()


@pytest.fixture
def shown(settings: Settings, tmp_path: Path) -> Iterator[Shown]:
    """A furnished hub on a free port of this machine."""
    add_plugin(tmp_path / "plugins", settings)
    sha = add_model(settings)
    add_artefact(settings, sha)
    running = add_job(
        settings, commit=sha, state=JobState.RUNNING, progress=0.25, message="Loading"
    )
    failed = add_job(
        settings,
        commit=sha,
        state=JobState.FAILED,
        request={"variants": ["full"], "options": {}},
        error_kind="timeout",
        error_message="It took too long.",
    )
    add_log(settings, running, "first line\n")
    server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Shown(settings, f"http://127.0.0.1:{server.server_port}", running, failed)
    server.shutdown()
    thread.join()
    server.server_close()


def _patient(context: BrowserContext) -> BrowserContext:
    context.set_default_timeout(MILLISECONDS)
    context.set_default_navigation_timeout(MILLISECONDS)
    return context


def _watched(context: BrowserContext, faults: list[str]) -> Page:
    page = _patient(context).new_page()
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.on("console", lambda said: said.type == "error" and faults.append(f"console: {said.text}"))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("http://127.0.0.1:", "data:", "about:"))
            or faults.append(f"asked for {request.url}")
        ),
    )
    return page


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page; the test fails if a script of it fails, or if it asks for anything elsewhere.

    That a form was refused (422) is no fault: the browser notes it all the same.
    """
    faults: list[str] = []
    context = chromium.new_context()
    yield _watched(context, faults)
    context.close()
    assert [fault for fault in faults if "status of 422" not in fault] == []


@pytest.fixture
def bare_page(chromium: Browser) -> Iterator[Page]:
    """A page without JavaScript."""
    context = chromium.new_context(java_script_enabled=False)
    yield _patient(context).new_page()
    context.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Page]:
    """A page whose Content-Security-Policy is ignored: what the hub writes must be safe alone."""
    faults: list[str] = []
    context = chromium.new_context(bypass_csp=True)
    context.add_init_script("window.hacked = () => { window.wasHacked = true; }")
    yield _watched(context, faults)
    context.close()
    assert not [fault for fault in faults if fault.startswith(("dialog", "asked"))]
