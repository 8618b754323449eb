"""The pages in a real browser."""

from pathlib import Path

import pytest
from furnished import add_job, add_log, add_model
from hostile import PAYLOADS
from playwright.sync_api import Page, expect
from shown import Shown

from hub import db, jobs
from hub.markdown import render
from hub.models import JobState

CONTRAST = Path(__file__).with_name("contrast.js").read_text()
HACKED = "() => window.wasHacked === true"
# What a button says for 1.5 s stays: a busy machine would miss it.
STAYING = """{
    const later = window.setTimeout;
    window.setTimeout = (...all) => all[1] === 1500 ? 0 : later(...all);
}"""


def test_every_page_works_and_fits(shown: Shown, page: Page) -> None:
    for width in (375, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for address in shown.addresses:
            page.goto(shown.url + address)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{address} is {wide} pixels wide"


def test_a_job_is_followed_to_its_end(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}/jobs/{shown.running.id}")
    expect(page.locator("#log")).to_contain_text("first line")
    shown.change(shown.running, progress=0.75, message="Quantizing")
    add_log(shown.settings, shown.running, "first line\nsecond <b>line</b>\n")
    expect(page.locator("[data-message]")).to_have_text("Quantizing")
    expect(page.locator("[data-percent]")).to_have_text("75 %")
    expect(page.locator("#log")).to_contain_text("second <b>line</b>")
    assert page.locator("#log b").count() == 0
    shown.change(
        shown.running,
        state=JobState.FAILED,
        error_kind="timeout",
        error_message="It took too long.",
    )
    expect(page.get_by_role("alert")).to_contain_text("It took too long.")
    expect(page.get_by_role("button", name="Request again")).to_be_visible()


def test_lists_and_cells_keep_fresh(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}/org/model")
    page.get_by_role("checkbox", name="full").check()
    expect(page.locator("#chosen")).to_contain_text("1 variant in 1 job, 2.38\u00a0GB")
    expect(page.locator("#grid-toy")).to_contain_text("25 %")
    shown.change(shown.running, progress=0.5)
    expect(page.locator("#grid-toy")).to_contain_text("50 %")
    expect(page.get_by_role("checkbox", name="full")).to_be_checked()
    page.goto(f"{shown.url}/jobs")
    shown.change(shown.running, state=JobState.CANCELLED)
    expect(page.locator("#jobs")).not_to_contain_text("50 %")


def test_what_it_will_take_follows_the_form(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}/org/model")
    line, plan = page.locator("#chosen"), page.locator("#plan")
    expect(line).to_have_text("Nothing is ticked")
    page.get_by_role("checkbox", name="full").check()
    expect(plan).to_contain_text("full in hub/org_model-TOY")
    expect(plan).to_contain_text("about\u00a03\u00a0s")
    page.get_by_text("Options of Toy").click()
    page.get_by_label("ratio").fill("7")
    expect(line).to_have_text("1 of 1 job cannot be made")
    expect(plan).to_contain_text("'7' is not a value of the option 'ratio'.")
    page.get_by_label("ratio").fill("0.25")
    expect(line).to_contain_text("1 variant in 1 job")
    expect(plan).not_to_contain_text("is not a value")
    page.get_by_label("ratio").press("Enter")
    expect(page.locator("#plan-title")).to_be_focused()
    expect(page.get_by_label("ratio")).to_have_value("0.25")
    page.get_by_role("checkbox", name="full").uncheck()
    expect(line).to_have_text("Nothing is ticked")
    expect(plan).to_be_hidden()
    assert _jobs(shown) == 2, "nothing was asked for"


def test_what_was_typed_stays_while_the_page_keeps_fresh(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}/org/model")
    page.get_by_text("Options of Toy").click()
    ratio = page.get_by_label("ratio")
    ratio.fill("0.7")
    shown.change(shown.running, progress=0.75)
    expect(page.locator("#grid-toy")).to_contain_text("75 %")
    expect(ratio).to_have_value("0.7")
    expect(ratio).to_be_focused()


def test_what_is_refused_is_said_on_the_form_and_keeps_fresh(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}/org/model")
    page.get_by_text("Options of Toy").click()
    page.evaluate("document.querySelector('#formats').noValidate = true")
    page.get_by_label("ratio").fill("7")
    with page.expect_navigation() as answer:
        page.get_by_role("button", name="Request full").click()
    assert answer.value.status == 422
    expect(page.get_by_role("alert")).to_contain_text("Nothing was asked for.")
    expect(page.get_by_label("ratio")).to_have_value("7")
    expect(page.get_by_role("checkbox", name="full")).to_be_checked()
    shown.change(shown.running, progress=0.5)
    expect(page.locator("#grid-toy")).to_contain_text("50 %")
    page.get_by_label("ratio").fill("1")
    expect(page.locator("#chosen")).to_contain_text("1 variant in 1 job")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_without_scripts_a_button_shows_what_it_will_take(shown: Shown, bare_page: Page) -> None:
    page = bare_page
    page.goto(f"{shown.url}/org/model")
    page.get_by_role("checkbox", name="full").check()
    page.get_by_role("button", name="Show what it will take").click()
    expect(page.locator("#plan")).to_contain_text("full in hub/org_model-TOY")
    expect(page.get_by_role("checkbox", name="full")).to_be_checked()
    assert _jobs(shown) == 2
    page.get_by_role("button", name="Request the ticked variants").click()
    expect(page).to_have_url(f"{shown.url}/jobs/3")


def _jobs(shown: Shown) -> int:
    with db.reading(shown.settings.database) as session:
        return len(jobs.listing(session)[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plan_fits_and_stands_out(shown: Shown, page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for width in (375, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{shown.url}/org/model")
        page.get_by_role("checkbox", name="full").check()
        page.get_by_text("Options of Toy").click()
        page.get_by_label("ratio").fill("7")
        expect(page.locator("#plan")).to_contain_text("is not a value")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        bar = page.locator(".ask").bounding_box()
        assert bar is not None
        assert bar["height"] < 110, "what sticks to the screen leaves room for the rest"


def test_commands_can_be_copied(shown: Shown, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.add_init_script(STAYING)
    page.goto(f"{shown.url}/hub/org_model-TOY")
    page.get_by_text("How to run it").click()
    button = page.get_by_role("button", name="Copy").first
    button.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl -LO http")


def test_without_scripts_everything_can_still_be_done(shown: Shown, bare_page: Page) -> None:
    page = bare_page
    page.goto(shown.url)
    page.get_by_label("Search").fill("model")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="org/model", exact=True).click()
    assert page.get_by_role("button", name="Copy").count() == 0
    page.get_by_role("checkbox", name="full").check()
    page.get_by_role("link", name="Jobs").click()
    page.locator(f"a[href='/jobs/{shown.running.id}']").first.click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Cancelling")).to_be_disabled()


def test_the_keyboard_reaches_everything(shown: Shown, page: Page) -> None:
    page.goto(f"{shown.url}/org/model")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    box = page.get_by_role("checkbox", name="full")
    for _ in range(40):
        page.keyboard.press("Tab")
        if box.evaluate("box => box === document.activeElement"):
            break
    page.keyboard.press("Space")
    expect(box).to_be_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(shown: Shown, page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for address in shown.addresses:
        page.goto(shown.url + address)
        assert page.evaluate(CONTRAST) == [], address


def test_no_payload_runs_in_a_card(open_page: Page) -> None:
    for payload in PAYLOADS:
        card = render(payload, repo="org/name", revision="main")
        open_page.set_content(
            f"<script>window.hacked = () => {{ window.wasHacked = true }}</script>{card}"
        )
        schemes = open_page.eval_on_selector_all("a[href]", "found => found.map(a => a.protocol)")
        assert set(schemes) <= {"http:", "https:", "mailto:", ":"}, payload
        assert not open_page.evaluate(HACKED), payload


def test_no_payload_runs_in_a_page(shown: Shown, open_page: Page) -> None:
    for number in range(0, len(PAYLOADS), 20):
        some = [payload.replace("\0", "") for payload in PAYLOADS[number : number + 20]]
        text, name = "\n\n".join(some), f"org/hostile-{number}"
        sha = add_model(
            shown.settings, name, text, license=text, architecture=text, languages=some, dtype=text
        )
        job = add_job(
            shown.settings,
            repo=name,
            commit=sha,
            state=JobState.RUNNING,
            message=text,
            request={"variants": some, "options": {text: text}},
        )
        add_log(shown.settings, job, text)
        for address in (f"/{name}", f"/jobs/{job.id}"):
            open_page.goto(shown.url + address)
            assert not open_page.evaluate(HACKED), (number, address)
        shown.change(job, state=JobState.FAILED, error_kind=text, error_message=text)
        expect(open_page.get_by_role("alert")).to_be_visible()
        assert not open_page.evaluate(HACKED), number
    for address in ("/?sort=name", "/jobs"):
        open_page.goto(shown.url + address)
        assert not open_page.evaluate(HACKED), address
