"""Model cards: Markdown from strangers becomes HTML that cannot do anything.

CommonMark with tables is rendered with raw HTML left in, because half of all cards use some; what
comes out goes through an allow-list (nh3) that knows neither scripts, styles, forms nor frames, and
only http, https and mailto. The pages' Content-Security-Policy is the second wall, not the first.
"""

import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from html.parser import HTMLParser
from urllib.parse import quote, urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

LIMIT = 1_000_000
"""Characters of a card that are shown; no card of a known model comes near."""
RICH = 256_000
"""Characters up to which a card is rendered; a longer one is shown as plain text."""
BLOCK = 20_000
"""Characters of the largest paragraph that is rendered: inside one, the time is not linear."""
DEPTH = 200
"""Elements inside each other that are rendered: sanitizing deeper nests takes quadratic time."""

_TAGS = set(
    # Text, lists, tables and pictures: nothing that loads, runs, submits or styles.
    """a abbr b blockquote br caption center code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i
    img ins kbd li mark ol p pre q s small span strike strong sub summary sup table tbody td tfoot
    th thead tr tt u ul var""".split()  # noqa: SIM905  (fifty lines otherwise)
)
_ATTRIBUTES = {
    "a": {"href", "title"},
    "abbr": {"title"},
    "code": {"class"},
    "details": {"open"},
    "img": {"src", "alt", "title", "width", "height"},
    "ol": {"start"},
    "td": {"colspan", "rowspan", "class"},
    "th": {"colspan", "rowspan", "class"},
} | {f"h{level}": {"id"} for level in range(1, 7)}
# Tags whose text is no text: dropped with what is inside.
_CONTENT = {"script", "style", "template", "noscript", "iframe", "svg", "math", "textarea", "title"}
_HEADER = re.compile(r"\A\ufeff?---[ \t]*\r?\n.*?^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.S | re.M)
_LANGUAGE = re.compile(r"language-[A-Za-z0-9_+#.-]{1,30}\Z")
_ANCHOR = re.compile(r"card-[\w-]{1,80}\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BLANK = re.compile(r"\n[ \t]*\r?\n")
_FENCED = re.compile(r"^(```+|~~~+)[^\n`]*\n.*?^\1[ \t]*$", re.S | re.M)
# Tags that need an end tag: those that are void or close themselves do not nest.
_NESTING = re.compile(
    r"<(/?)(?!(?:p|li|dt|dd|tr|td|th|tbody|thead|tfoot|br|hr|img|input|meta|link|source|wbr)\b)[a-z]",
    re.I,
)
_DIGITS = re.compile(r"\d{1,4}%?\Z")


def strip_header(text: str) -> str:
    """A card without its YAML header."""
    return _HEADER.sub("", text, count=1)


def render(text: str, *, repo: str, revision: str) -> Markup:
    """The HTML of a card of `repo` at `revision`; relative links lead to files of that commit.

    Images of the repo are shown. Images from elsewhere would tell their server who reads the card,
    and do not load on a closed network: they become links.
    """
    return _render(text, repo, revision)


@lru_cache(maxsize=64)
def _render(text: str, repo: str, revision: str) -> Markup:
    cut = len(text) > LIMIT
    body = strip_header(_CONTROL.sub("", text[:LIMIT]))
    html = None if _costly(body) else str(_PARSER.render(body))
    if html is None or _deep(html):
        html = f"<pre><code>{escape(body)}</code></pre>"

    def allow(tag: str, name: str, value: str) -> str | None:
        return _attribute(tag, name, value, repo, revision)

    clean = nh3.clean(
        html,
        tags=_TAGS,
        clean_content_tags=_CONTENT,
        attributes=_ATTRIBUTES,
        attribute_filter=allow,
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener noreferrer",
        strip_comments=True,
    )
    if "<img" in clean:
        clean = _remote_images_to_links(clean)
    if cut:
        clean += "<p><em>This card is longer than 1 MB; the rest is left out.</em></p>"
    return Markup(clean)  # noqa: S704  (nh3's output is what may be shown)


def _costly(body: str) -> bool:
    """Whether rendering would keep a thread busy for seconds, as cards made for that do."""
    if len(body) > RICH:
        return True
    return max(map(len, _BLANK.split(_FENCED.sub("", body)))) > BLOCK


def _deep(html: str) -> bool:
    """Whether elements are nested so deeply that only a trap would do so."""
    depth = 0
    for match in _NESTING.finditer(html):
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > DEPTH:
            return True
    return False


def _attribute(tag: str, name: str, value: str, repo: str, revision: str) -> str | None:
    """What an attribute becomes; None drops it."""
    if name == "href":
        return _link(value, repo, revision, "blob")
    if name == "src":
        return _link(value, repo, revision, "resolve")
    if name == "class":
        allowed = _LANGUAGE.match(value) if tag == "code" else value in ("right", "center")
        return value if allowed else None
    if name == "id":
        return value if _ANCHOR.match(value) else None
    if name in ("width", "height", "colspan", "rowspan", "start"):
        return value if _DIGITS.match(value) else None
    return value


def _link(value: str, repo: str, revision: str, how: str) -> str | None:
    """The address that a link of a card leads to, or None where it must not lead anywhere."""
    value = value.strip()
    if value.startswith("#"):
        return "#card-" + _slug(value[1:])
    try:
        parts = urlsplit(value)
    except ValueError:  # a broken IPv6 address
        return None
    if parts.scheme in ("http", "https"):
        return value if parts.netloc else None
    if parts.scheme:
        return value if parts.scheme == "mailto" and how == "blob" else None
    if parts.netloc or "\\" in value or not parts.path:  # //host and \\host leave this hub
        return None
    # normpath keeps the path inside the repo: a leading / and any .. end at its root.
    path = posixpath.normpath("/" + parts.path).lstrip("/")
    if path in ("", "."):
        return f"/{repo}"
    return f"/{repo}/{how}/{quote(revision, safe='')}/{quote(path, safe='/%')}"


class _Images(HTMLParser):
    """Copies HTML as it is, but for <img> of other hosts, which become links.

    Reads what nh3 wrote, so the tags are whole and balanced.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.out: list[str] = []
        self.links = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += 1
        values = dict(attrs)
        source = values.get("src") or ""
        if tag != "img" or source.startswith("/"):
            self.out.append(self.get_starttag_text() or "")
            return
        label = escape(values.get("alt") or "image")
        if not source or self.links:  # a link cannot hold a link: the alternative text stands in
            self.out.append(label)
            return
        self.out.append(
            f'<a href="{escape(source)}" rel="nofollow noopener noreferrer">{label}</a>'
        )

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self.links = max(0, self.links - 1)
        self.out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.out.append(data)

    def handle_entityref(self, name: str) -> None:
        self.out.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.out.append(f"&#{name};")


def _remote_images_to_links(html: str) -> str:
    parser = _Images()
    parser.feed(html)
    parser.close()
    return "".join(parser.out)


def _slug(text: str) -> str:
    """The anchor of a heading, as cards' own tables of contents expect it."""
    return re.sub(r"[^\w-]+", "", text.strip().lower().replace(" ", "-"))[:80]


def _heading(
    _self: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: EnvType
) -> str:
    """A heading two levels down, because the page has its own, with an anchor."""
    token = tokens[index]
    level = min(6, int(token.tag[1]) + 2)
    if token.nesting < 0:
        return f"</h{level}>\n"
    inline = tokens[index + 1].children or ()
    anchor = _slug("".join(child.content for child in inline))
    return f'<h{level} id="card-{escape(anchor)}">' if anchor else f"<h{level}>"


def _cell(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """A table cell whose alignment is a class: style attributes are not allowed."""
    token = tokens[index]
    style = str(token.attrs.pop("style", ""))
    for side in ("right", "center"):
        if style == f"text-align:{side}":
            token.attrSet("class", side)
    return self.renderToken(tokens, index, options, env)


def _parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for kind in ("heading_open", "heading_close"):
        made.add_render_rule(kind, _heading)
    for kind in ("th_open", "td_open"):
        made.add_render_rule(kind, _cell)
    return made


_PARSER = _parser()
