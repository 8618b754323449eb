"""Model cards: what they say, what their reader is, and what they do with hostile values."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from hypothesis import HealthCheck, example, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hub import cards
from hub.config import Settings
from hub.formats import Format
from hub.manifest import Run, Variant
from hub.models import Artefact

FORMAT = Format(
    folder=Path("/nowhere"),
    name="gguf",
    title="GGUF",
    version="1.2.0",
    runtime="llama.cpp",
    summary="any CPU",
    repo="{source}-GGUF",
    variants=[
        Variant(name="Q8_0", bits=8.5, class_="medium", note="Nearly | lossless"),
        Variant(name="Q4_K_M", bits=4.85, class_="low", note="Default: start here"),
        Variant(name="Q4_0", bits=4.5, class_="low", note="Fast on ARM"),
    ],
    run=[Run(title="llama.cpp", command="llama-cli -m {file} # {url}")],
)
FACTS: dict[str, Any] = {
    "license": "apache-2.0",
    "languages": ["en", "no"],
    "pipeline_tag": "text-generation",
    "has_chat_template": True,
}
COMMIT = "c" * 40


def artefact(variant: str, **more: Any) -> Artefact:
    values: dict[str, Any] = {
        "key": variant,
        "source": "Qwen/Qwen3-0.6B",
        "source_commit": COMMIT,
        "plugin": "gguf",
        "plugin_version": "1.2.0",
        "lock_digest": "ab" * 32,
        "variant": variant,
        "repo": "hub/Qwen_Qwen3-0.6B-GGUF",
        "commit": "d" * 40,
        "files": [
            {"path": f"Qwen_Qwen3-0.6B-{variant}.gguf", "size": 5_000_000, "sha256": "e" * 64}
        ],
        "size": 5_000_000,
        "check_result": {"tokens": 32, "runtime": "llama.cpp", "prompt": "Once", "text": " upon"},
        "tools": {"cyllama": "0.2.18"},
        "options": {"x": 3},
        "sandbox": "strict",
    }
    return Artefact(**(values | more))


def read(settings: Settings, facts: dict[str, Any], *rows: Artefact) -> tuple[str, ModelCard]:
    text = cards.card(settings, FORMAT, facts, rows)
    return text, ModelCard(text)


def test_a_card_says_all_there_is(settings: Settings) -> None:
    text, card = read(settings, FACTS, artefact("Q8_0"), artefact("Q4_K_M"), artefact("Q4_0"))
    assert card.data.to_dict() == {
        "base_model": "Qwen/Qwen3-0.6B",
        "base_model_relation": "quantized",
        "license": "apache-2.0",
        "language": ["en", "no"],
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "quantized_by": "hub",
        "tags": ["gguf", "quantized", "slm-hub", "conversational"],
    }
    # YAML 1.1 readers take a bare `no` for false.
    assert "'no'" in text or '"no"' in text
    html = MarkdownIt().enable("table").render(card.text)
    assert html.count("<tr>") == 4
    assert html.count("<td") == 3 * 7
    for said in (
        "Qwen_Qwen3-0.6B-Q4_0.gguf",
        "Nearly | lossless",
        "4.85",
        "5.0 MB",
        "passed (generated 32 tokens in llama.cpp)",
        "<strong>Q4_K_M</strong> (5.0 MB)",
        "llama-cli -m Qwen_Qwen3-0.6B-Q4_K_M.gguf",
        f"curl -LO {settings.base_url}/hub/Qwen_Qwen3-0.6B-GGUF/resolve/main/Qwen_Qwen3-0.6B-Q",
        COMMIT,
        "cyllama 0.2.18",
        "x = <code>3</code>",
        "sandbox: strict",
        f"{'e' * 64}  Qwen_Qwen3-0.6B-Q8_0.gguf",
    ):
        assert said in html, said
    # The three were made the same way: it is told once.
    assert html.count("sandbox: strict") == 1


def test_the_pick_of_a_class_is_the_manifests(settings: Settings) -> None:
    rows = [artefact("Q8_0"), artefact("Q4_K_M"), artefact("Q4_0")]
    for pick, best in (("Q4_0", "Q4_0"), ("Q4_K_M", "Q4_K_M"), (None, "Q4_K_M")):
        variants = [one.model_copy(update={"pick": one.name == pick}) for one in FORMAT.variants]
        fmt = FORMAT.model_copy(update={"variants": variants})
        text = cards.card(settings, fmt, FACTS, rows)
        assert f"most laptops: **{cards.markdown(best)}**" in text, pick
        assert f"quality counts: **{cards.markdown('Q8_0')}**" in text


def test_different_recipes_are_told_apart(settings: Settings) -> None:
    old = artefact("Q4_0", plugin_version="1.0.0", sandbox="weak", options={}, tools={})
    text, _ = read(settings, FACTS, artefact("Q8_0"), old)
    assert "sandbox: weak" in text
    assert "sandbox: strict" in text
    assert "tools: none recorded" in text


def test_a_card_without_facts(settings: Settings) -> None:
    bare = artefact("Q9_9", check_result={}, files=[])
    text, card = read(settings, {}, bare)
    assert card.data.to_dict()["base_model"] == "Qwen/Qwen3-0.6B"
    assert "license" not in card.data.to_dict()
    assert "not checked" in text


def test_what_could_not_be_run_here_says_so(settings: Settings) -> None:
    note = "It needs a | GPU\nwith *Vulkan*."
    seen = {"runtime": "rt 1", "ran": False, "note": note, "text": "not generated"}
    text, _ = read(settings, FACTS, artefact("Q8_0", check_result=seen))
    assert r"not run here: It needs a \| GPU with \*Vulkan\*." in text
    assert "passed" not in text
    assert "What the check saw" not in text


HOSTILE = [
    "</code><script>alert(1)</script>",
    "x\n---\nlicense: mit\n---\n# Owned",
    "`` ` ``` x",
    "[a](javascript:alert(1)) ![b](http://evil/x.png) <http://evil>",
    "a | b || c",
    "!!python/object/apply:os.system ['id']",
    "{{ 7*7 }}{% raw %}",
    "- [ ] *bold* _it_ ~~no~~ &lt; &#60;",
]


@limits(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.text(max_size=60))
@example(HOSTILE[0])
@example(HOSTILE[1])
@example(HOSTILE[2])
@example(HOSTILE[3])
@example(HOSTILE[4])
@example(HOSTILE[5])
@example(HOSTILE[6])
def test_hostile_values_stay_values(settings: Settings, value: str) -> None:
    facts = FACTS | {"license": value, "languages": [value], "pipeline_tag": value}
    row = artefact(
        "Q8_0",
        check_result={"tokens": 1, "runtime": value, "prompt": value, "text": value},
        options={"x": value},
        tools={"t": value},
    )
    _text, card = read(settings, facts, row)
    data = card.data.to_dict()
    assert data["base_model"] == "Qwen/Qwen3-0.6B"
    assert set(data) <= {
        "base_model", "base_model_relation", "license", "language", "library_name",
        "pipeline_tag", "quantized_by", "tags",
    }  # fmt: skip
    assert isinstance(data.get("license", ""), str)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)
    plain, _ = read(
        settings, FACTS, artefact("Q8_0", check_result={"tokens": 1, "prompt": "p", "text": "t"})
    )
    wanted = MarkdownIt().enable("table").render(ModelCard(plain).text)
    for tag in ("<script", "<img", "<h1", "<em>", "<a "):
        assert html.count(tag) == wanted.count(tag), tag
    assert html.count("<td") == wanted.count("<td")
