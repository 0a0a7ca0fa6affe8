"""The chat page in a real Chromium: opens, asks, sees the answer stream, stops it, shows sources and tool steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from highrise.agent.app import build_app
from highrise.agent.config import AgentConfig
from tests.agent.test_agent_app import OpenIndex
from tests.agent.test_tools import HIT
from tests.serve.listening import listening
from tests.serve.scripted import scripted_backend

pytest.importorskip("playwright", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install Debian's chromium")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

ANSWER = """The function `answer()` lives in **src/app.py** and returns a constant:

```python
def answer():
    # the usual number
    return 42
```

1. It takes no arguments.
2. It *never* fails.

| call | result |
|---|---|
| `answer()` | 42 |

<img src=x onerror="document.title='broken in'"> is shown as text. See https://example.org/docs for more."""

SEARCH = '<tool_call>\n{"name": "search_sources", "arguments": {"query": "answer"}}\n</tool_call>'


def say(prompt: str) -> str:
    if "slowly" in prompt:
        return "word " * 400
    if "look it up" in prompt and "tool:" not in prompt:
        return SEARCH
    return ANSWER


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("repo")
    backend = scripted_backend(say, max_context=20_000, delay=0.002)
    with listening(build_app(AgentConfig(), backend, index=OpenIndex(HIT), root=root, name="Our team")) as address:  # type: ignore[arg-type]
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if _is_bad(message) else None)
    page.on(
        "request", lambda request: problems.append(request.url) if not request.url.startswith((url, "data:")) else None
    )
    page.goto(url)
    yield page
    context.close()
    assert problems == []


def _is_bad(message: Any) -> bool:
    return message.type == "error" and "400 (Bad Request)" not in message.text  # a refusal is no fault of the page


def ask(page: Any, text: str) -> None:
    page.get_by_role("textbox", name="Your question").fill(text)
    page.keyboard.press("Enter")


def test_asks_and_sees_the_answer_stream(page: Any, tmp_path: Path) -> None:
    page.wait_for_function("() => document.title === 'Our team'")
    assert page.locator("#model").inner_text() == "scripted"
    ask(page, "What does the answer function return?")
    page.locator(".answer.writing").wait_for()
    first = page.locator(".answer").inner_text()
    page.wait_for_function("() => document.querySelector('.answer').innerText.length > 60")
    assert len(page.locator(".answer").inner_text()) > len(first), "the text grows while it comes"
    page.locator(".facts").wait_for()
    answer = page.locator(".answer")
    assert "return 42" in answer.locator("pre").inner_text()
    assert answer.locator("strong").inner_text() == "src/app.py"
    assert answer.locator("ol li").count() == 2
    assert answer.locator("table td").count() == 2
    assert answer.locator("pre .w").first.inner_text() == "def"
    assert answer.locator("img").count() == 0, "the model's HTML is shown, not run"
    assert page.title() == "Our team"
    assert answer.locator("a").get_attribute("rel") == "noopener noreferrer"
    page.locator(".aside summary").first.click()
    assert "src/app.py" in page.locator(".source").inner_text()
    page.screenshot(path=str(tmp_path / "page.png"))


def test_copies_code(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "show me the code")
    page.locator(".facts").wait_for()
    page.locator(".block .copy").click()
    assert "def answer()" in page.evaluate("navigator.clipboard.readText()")


def test_stop_and_go_on(page: Any) -> None:
    ask(page, "count slowly please")
    page.locator(".answer.writing").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator(".facts", has_text="stopped").wait_for()
    assert page.get_by_role("button", name="Send").count() == 1
    ask(page, "count slowly again")
    page.locator(".answer.writing").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelectorAll('.facts').length === 2")


def test_tool_steps_are_shown(page: Any) -> None:
    page.locator("label.toggle", has_text="Tools").click()
    ask(page, "look it up")
    page.locator(".facts").wait_for()
    step = page.locator(".step")
    assert "search sources" in step.inner_text()
    step.locator("summary").click()
    assert "def answer" in step.locator("pre").inner_text()


def test_by_keyboard_alone(page: Any) -> None:
    page.get_by_role("textbox", name="Your question").blur()
    page.keyboard.press("/")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.locator(".facts").wait_for()
    assert page.locator(".said").inner_text() == "one\ntwo"
    page.keyboard.press("Control+Shift+O")
    page.locator("#welcome").wait_for()
    assert page.locator(".turn").count() == 0


def test_names_and_roles(page: Any) -> None:
    """What a screen reader needs: every control has a name, the log is live, contrast of text is enough."""
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, a')].filter((one) =>
        !(one.getAttribute('aria-label') || one.innerText || one.labels?.length ||
          one.closest('label')?.innerText)).length"""
    )
    assert unnamed == 0
    assert page.locator("[role=log][aria-live=polite]").count() == 1
    assert page.locator("html[lang=en]").count() == 1
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ratio = page.evaluate(
            """() => {
              const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
              const light = (color) => { const [r, g, b] = rgb(color).map((v) => { v /= 255;
                return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
                return 0.2126*r + 0.7152*g + 0.0722*b; };
              const ground = light(getComputedStyle(document.body).backgroundColor);
              return [document.body, document.querySelector('#about'), document.querySelector('.chip')].map((node) => {
                const ink = light(getComputedStyle(node).color);
                return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05); });
            }"""
        )
        assert min(ratio) >= 4.5, ratio


def test_a_refusal_is_shown(page: Any) -> None:
    ask(page, "my key is AKIA" + "QW3RT7ZXCV5BNM2K")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "guardrail" in alert.inner_text()


def sent_by(page: Any) -> list[list[dict[str, str]]]:
    """The conversations that the page sends from here on."""
    sent: list[list[dict[str, str]]] = []
    page.on("request", lambda one: sent.append(one.post_data_json["messages"]) if one.url.endswith("/agent") else None)
    return sent


def test_a_new_chat_forgets_the_answer_that_was_under_way(page: Any) -> None:
    sent = sent_by(page)
    ask(page, "count slowly please")
    page.locator(".answer.writing").wait_for()
    page.get_by_role("button", name="New chat").click()
    ask(page, "hello")
    page.locator(".facts").wait_for()
    assert [one["content"] for one in sent[-1]] == ["hello"]
    ask(page, "again")
    page.wait_for_function("() => document.querySelectorAll('.facts').length === 2")
    assert [one["role"] for one in sent[-1]] == ["user", "assistant", "user"]


def test_a_refused_question_comes_back_to_be_mended(page: Any) -> None:
    text = "my key is AKIA" + "QW3RT7ZXCV5BNM2K"
    ask(page, text)
    page.get_by_role("alert").wait_for()
    page.wait_for_function("() => !document.body.classList.contains('busy')")
    assert page.get_by_role("textbox", name="Your question").input_value() == text


def test_an_answer_that_breaks_off_says_so(page: Any) -> None:
    def breaks(route: Any) -> None:
        body = 'event: text\ndata: {"type":"text","text":"Half an"}\n\n'
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/v1/agent", breaks)
    ask(page, "hello")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "broke off" in alert.inner_text()
    assert page.locator(".waiting").count() == 0
    assert "Half an" in page.locator(".answer").inner_text()


def test_a_reload_keeps_the_conversation_and_a_new_chat_drops_it(page: Any) -> None:
    sent = sent_by(page)
    ask(page, "What does the answer function return?")
    page.locator(".facts").wait_for()
    page.reload()
    page.locator(".answer pre").wait_for()
    assert page.locator(".said").inner_text() == "What does the answer function return?"
    ask(page, "and then?")
    page.wait_for_function("() => document.querySelectorAll('.turn.assistant').length === 2")
    assert [one["role"] for one in sent[-1]] == ["user", "assistant", "user"]
    page.get_by_role("button", name="New chat").click()
    page.reload()
    page.locator("#welcome").wait_for()
    assert page.locator(".turn").count() == 0


def test_the_end_of_a_sentence_is_no_part_of_an_address(page: Any) -> None:
    def answers(route: Any) -> None:
        said = '{"type":"text","text":"Look at https://example.org/docs. Or (https://example.org/a_b)!"}'
        body = f'data: {said}\n\ndata: {{"type":"done","reason":"stop"}}\n\n'
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/v1/agent", answers)
    ask(page, "where?")
    page.locator(".facts").wait_for()
    links = page.locator(".answer a").evaluate_all("all => all.map((one) => one.href)")
    assert links == ["https://example.org/docs", "https://example.org/a_b"]
    assert page.locator(".answer").inner_text() == "Look at https://example.org/docs. Or (https://example.org/a_b)!"


def test_over_the_real_engine(browser: Any, tmp_path: Path) -> None:
    from highrise.core.catalogue import locate
    from highrise.core.errors import HighriseError

    try:
        locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(str(error))
    from highrise.serve.cli import open_engine_backend
    from highrise.serve.config import ServeConfig

    backend = open_engine_backend("smollm2-135m", ServeConfig(weights="int4", threads=2, max_context=1024))
    with listening(build_app(AgentConfig(tools=()), backend, index=None, root=tmp_path)) as address:
        page = browser.new_page()
        page.goto(address)
        ask(page, "Say hello and name one colour.")
        page.wait_for_function("() => document.querySelector('.answer')?.innerText.length > 5")
        page.keyboard.press("Escape")
        page.locator(".facts").wait_for()
        page.close()


def test_asks_for_a_key(browser: Any, tmp_path: Path) -> None:
    from highrise.agent.keys import KeyFile

    secret = KeyFile(tmp_path / ".highrise" / "keys.json").create("ada")
    with listening(build_app(AgentConfig(keys="always"), scripted_backend(say), index=None, root=tmp_path)) as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("dialog[open]").wait_for()
        page.keyboard.press("Escape")
        page.locator("#status", has_text="Without a key").wait_for()
        assert page.locator("dialog[open]").count() == 0, (
            "a dialog that was closed stays closed until there is a question"
        )
        ask(page, "hello")
        page.locator("dialog[open]").wait_for()
        page.get_by_label("Key", exact=True).fill(secret)
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#model').innerText === 'scripted'")
        page.close()
