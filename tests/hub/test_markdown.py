import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hostile import PAYLOADS
from hypothesis import given
from hypothesis import strategies as st

from hub.markdown import LIMIT, render, strip_header

ALLOWED = {"href", "src", "alt", "title", "rel", "class", "id", "width", "height", "colspan"}
ALLOWED |= {"rowspan", "start", "open"}


def html(text: str) -> str:
    return str(render(text, repo="org/name", revision="main"))


class Inspector(HTMLParser):
    """Complains about anything in HTML that could run, load from elsewhere or restyle the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("script", "style", "iframe", "object", "embed", "svg", "math", "form", "base"):
            self.bad.append(tag)
        for name, value in attrs:
            scheme = urlsplit(value or "").scheme if name in ("href", "src") else ""
            if name not in ALLOWED or scheme not in ("", "http", "https", "mailto"):
                self.bad.append(f"{tag} {name}={value}")
            if name == "src" and not (value or "").startswith("/org/name/resolve/main/"):
                self.bad.append(f"{tag} loads {value}")
            if name == "id" and not (value or "").startswith("card-"):
                self.bad.append(f"{tag} claims the id {value}")
        if tag == "a" and dict(attrs).get("rel") != "nofollow noopener noreferrer":
            self.bad.append("a without rel")


def findings(text: str) -> list[str]:
    inspector = Inspector()
    inspector.feed(html(text))
    inspector.close()
    return inspector.bad


def test_there_are_enough_payloads() -> None:
    assert len(PAYLOADS) >= 150


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_becomes_anything_that_runs(payload: str) -> None:
    assert findings(payload) == []
    assert findings(f"# A card\n\n- {payload}\n\n> {payload}\n\n{payload}") == []


@given(st.lists(st.sampled_from(PAYLOADS) | st.text(max_size=30), max_size=8).map("".join))
def test_no_mixture_of_payloads_runs_either(text: str) -> None:
    assert findings(text) == []


@pytest.mark.parametrize(
    ("card", "rest"),
    [
        ("---\nlicense: mit\n---\n# Hi", "# Hi"),
        ("---\r\na: 1\r\n---\r\nHi", "Hi"),
        ("---\n---\nHi", "Hi"),
        ("---\nnever closed\n# Hi", "---\nnever closed\n# Hi"),
        ("Hi\n\n---\nno header\n---\n", "Hi\n\n---\nno header\n---\n"),
        ("---\na: 1\n---", ""),
    ],
)
def test_the_yaml_header_is_left_out(card: str, rest: str) -> None:
    assert strip_header(card) == rest


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("LICENSE", "/org/name/blob/main/LICENSE"),
        ("./docs/use.md", "/org/name/blob/main/docs/use.md"),
        ("/docs/use.md", "/org/name/blob/main/docs/use.md"),
        ("../../../jobs", "/org/name/blob/main/jobs"),
        ("a%20b.md", "/org/name/blob/main/a%20b.md"),
        ("..", "/org/name"),
        ("#quick-start", "#card-quick-start"),
        ("https://example.org/x?y=1", "https://example.org/x?y=1"),
        ("mailto:someone@example.org", "mailto:someone@example.org"),
    ],
)
def test_links_lead_into_the_repo_or_openly_out_of_it(target: str, address: str) -> None:
    assert f'href="{address}"' in html(f"[x]({target})")


@pytest.mark.parametrize("target", ["//elsewhere.example/x", "\\\\elsewhere.example\\x", "http:x"])
def test_links_that_only_look_relative_lead_nowhere(target: str) -> None:
    assert "href" not in html(f'<a href="{target}">x</a>')


def test_own_images_are_shown_and_foreign_ones_become_links() -> None:
    assert 'src="/org/name/resolve/main/img/a.png"' in html("![own](img/a.png)")
    foreign = html('![chart](https://elsewhere.example/a.png) <img src="//elsewhere.example/b">')
    assert "<img" not in foreign
    assert '<a href="https://elsewhere.example/a.png"' in foreign
    assert ">chart</a>" in foreign


def test_a_foreign_image_inside_a_link_leaves_its_text() -> None:
    linked = html("[![badge](https://elsewhere.example/b.svg)](https://example.org)")
    assert re.search(r'<a href="https://example.org"[^>]*>badge</a>', linked)


def test_tables_keep_their_alignment_without_styles() -> None:
    table = html("| a | b |\n|--:|:-:|\n| 1 | 2 |")
    assert '<td class="right">1</td>' in table
    assert '<td class="center">2</td>' in table
    assert "style" not in table


def test_headings_fit_below_those_of_the_page_and_can_be_linked_to() -> None:
    assert html("# Quick `start` now").startswith('<h3 id="card-quick-start-now">')
    assert html("###### Deep").startswith('<h6 id="card-deep">')
    assert "id=" not in html('<h2 id="main">x</h2>')


def test_code_keeps_its_language_and_no_other_class() -> None:
    assert '<code class="language-python">' in html("```python\nx\n```")
    assert "class" not in html('<code class="panel top">x</code><td class="unseen">x</td>')


def test_an_endless_card_is_cut() -> None:
    shown = html("word " * (LIMIT // 4))
    assert len(shown) < LIMIT + 200
    assert "longer than 1 MB" in shown


@pytest.mark.parametrize(
    "text",
    [
        "[" * LIMIT,
        "![" * (LIMIT // 2),
        "> " * 100_000 + "x",
        "*a " * (LIMIT // 3),
        "<div>" * 50_000,
        "<b title=x>" * 20_000,
        "\n\n".join(["<i>"] * 20_000),
        "```\n" * 50_000,
        "|a" * 9_000 + "\n" + "|-" * 9_000 + "\n" + "|b" * 9_000,
    ],
    ids=lambda text: str(text[:8]),
)
def test_texts_made_to_keep_the_hub_busy_are_shown_as_they_are(text: str) -> None:
    shown = html(text)
    assert shown
    assert findings(text) == []


def test_a_long_code_block_is_no_reason_to_leave_the_card_unrendered() -> None:
    assert "<h3" in html("# Title\n\n```\n" + "x\n" * 30_000 + "```\n")
