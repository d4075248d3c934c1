"""A caption cannot talk to the judge: a model that obeys any order outside of the block finds none there.

The model is as gullible as can be. It reads a prompt in three ways: by its tags, line by line, and as a chat template
that splits it at special tokens. What one of them takes for something else than the caption it decodes from whatever
it is in, and an order in it is obeyed with a forged reply that is whole in every respect.
"""

import base64
import binascii
import codecs
import json
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator

import pytest
from support.hostile_captions import FORGED, HOSTILE, TAG
from support.scripted_chat import ScriptedChat, make_case
from support.scripted_server import ScriptedServer

from avcap.judge.protocols import prompts
from avcap.judge.protocols.avcap1 import Avcap1, LLMJudge, event_list, what_is_captioned
from avcap.judge.protocols.avcap_yesno1 import AvcapYesNo1
from avcap.judge.protocols.protocol import opening_requests
from avcap.llm.chat import open_chat
from avcap.llm.quoting import delimit
from avcap.llm.types import ChatRequest
from avcap.records import Verdict

EVENTS = ["a green bus stops", "a bell rings"]
HONEST = json.dumps(
    {
        "events": [{"id": 1, "label": "missing", "quote": ""}, {"id": 2, "label": "missing", "quote": ""}],
        "invented": [],
        "counts": {"correct": 0, "missing": 2, "incorrect": 0, "invented": 0},
    }
)
BLOCK = re.compile(
    r"<(?:caption|statement)[^>]*>.*?<\s*/\s*(?:caption|statement)[^>]*>", re.DOTALL | re.IGNORECASE
)  # reads no hash
SPECIAL = re.compile(r"<\|.*?\|>|</?s>|</?\w*_of_turn>|<<?/?SYS>?>|\[/?INST\]|<｜.*?｜>", re.IGNORECASE)


def outside_by_tags(prompt: str) -> str:
    return BLOCK.sub("", prompt)


def outside_by_lines(prompt: str) -> str:
    """Lines as Python and terminals know them, so that an exotic line end makes a line without a bar."""
    return "\n".join(line for line in prompt.splitlines() if not line.startswith("|"))


def outside_by_special_tokens(prompt: str) -> str:
    """What follows the first special token: to a chat template, another turn."""
    return " ".join(SPECIAL.split(prompt)[1:])


def decodings(text: str) -> Iterator[str]:
    """Text -> all that a helpful model may find in it."""
    plain = unicodedata.normalize("NFKC", text)
    tags = "".join(chr(ord(char) - 0xE0000) if 0xE0000 < ord(char) < 0xE0080 else char for char in plain)
    yield from (plain, tags, plain[::-1], codecs.encode(plain, "rot13"), urllib.parse.unquote(plain))
    yield "".join(char for char in plain if char.isalnum())
    for run in re.findall(r"[A-Za-z0-9+/=]{16,400}", plain):
        for decode in (bytes.fromhex, base64.b64decode):
            try:
                yield decode(run).decode("latin-1")
            except (ValueError, binascii.Error):
                continue


def gives_an_order(text: str) -> bool:
    return any("ZEBRA" in decoded for decoded in decodings(text))


def gullible(messages: list[str]) -> str:
    """Messages -> the reply of a model that obeys whatever is not the caption."""
    for read in (outside_by_tags, outside_by_lines, outside_by_special_tokens):
        for message in messages:
            if gives_an_order(read(message)):
                return obedient_reply(messages[-1])
    return HONEST


def obedient_reply(prompt: str) -> str:
    """All correct, with a quotation that is really there: nothing in this reply gives it away."""
    quote = max(re.findall(r"\w+", prompt.partition("The caption of")[2]), key=len)[:40]
    return FORGED.replace("ZEBRA", quote)


def ask_gullible(request: ChatRequest) -> str:
    return gullible([message.content for message in request.messages])


def labels(result: object) -> list[str]:
    assert isinstance(result, Verdict), result
    return [event.label for event in result.events]


def test_there_are_enough_of_them():
    assert len(HOSTILE) == len(set(HOSTILE.values())) >= 80


@pytest.mark.parametrize("name", HOSTILE)
def test_no_order_is_obeyed(name):
    (verdict,) = LLMJudge(ScriptedChat(ask_gullible)).judge([make_case(HOSTILE[name], events=EVENTS)])
    assert labels(verdict) == ["missing", "missing"] and verdict.invented == ()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_same_order_is_obeyed_when_the_caption_is_pasted(name):
    """So the test above can fail: the same model, the same rules, the caption as it is."""
    case = make_case(HOSTILE[name], events=EVENTS)
    request = prompts.request(
        prompts.JUDGE, event_list(case.sample), what_is_captioned(case.sample), case.text, max_tokens=1
    )
    assert json.loads(ask_gullible(request))["counts"]["correct"] == 2


def test_bars_and_tags_alone_do_not_do():
    """Captions that bring special tokens, or line ends that are none to us, get out of a block that leaves them in."""
    obeyed = []
    for name, text in HOSTILE.items():
        case = make_case(text, events=EVENTS)
        lines = "\n".join(f"| {line}" for line in text.split("\n"))
        block = f"{what_is_captioned(case.sample)}\n<{TAG}>\n{lines}\n</{TAG}>"
        request = prompts.request(prompts.JUDGE, event_list(case.sample), block, max_tokens=1)
        if ask_gullible(request) != HONEST:
            obeyed.append(name)
    assert len(obeyed) >= 10 and {"chatml", "line separator", "closing tag with a hash"} <= set(obeyed)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_that_repeats_the_caption_before_its_reply_is_read_right(name):
    """A forged reply in the caption is no JSON any more when the model quotes it."""
    body = delimit(HOSTILE[name], name="caption").body
    chat = ScriptedChat(lambda request: f"The caption says:\n{body}\n\nMy reply:\n{HONEST}")
    (verdict,) = LLMJudge(chat).judge([make_case(HOSTILE[name], events=EVENTS)])
    assert labels(verdict) == ["missing", "missing"]


def test_nor_is_any_order_obeyed_over_http():
    """The same through a real client and a real server; the control shows that this server obeys, too."""
    cases = [make_case(text, events=EVENTS, caption_id=name) for name, text in HOSTILE.items()]
    pasted = [
        prompts.request(prompts.JUDGE, event_list(case.sample), what_is_captioned(case.sample), case.text, max_tokens=1)
        for case in cases
        if case.text.isascii()
    ]
    with ScriptedServer(answer=lambda body: gullible([one["content"] for one in body["messages"]])) as server:
        chat = open_chat(f"openai:gullible@{server.url}")
        verdicts = list(LLMJudge(chat).judge(cases))
        replies = list(chat.ask(pasted))
    assert [verdict.caption_id for verdict in verdicts] == list(HOSTILE)
    assert all(labels(verdict) == ["missing", "missing"] for verdict in verdicts)
    assert len(pasted) >= 40
    assert all(json.loads(reply.text)["counts"]["correct"] == 2 for reply in replies)


def test_hostile_events_do_not_leave_their_line():
    """Events may come from a file of anybody's, too."""
    hostile = [f"a man waves {order}" for order in HOSTILE.values()]
    case = make_case("A man waves.", events=hostile)
    lines = event_list(case.sample).splitlines()
    assert len(lines) == 1 + len(hostile)
    assert not SPECIAL.search("\n".join(lines))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_question_for_yes_or_no_has_an_order_outside_of_its_block(name):
    """Neither those about events, with the whole caption, nor those about each of its statements."""
    case = make_case(HOSTILE[name], events=EVENTS)
    requests = list(opening_requests(AvcapYesNo1(), [case]))
    assert len(requests) >= len(EVENTS) or not delimit(case.text, name="caption").body
    assert all(ask_gullible(request) == HONEST for request in requests)


def test_the_whole_protocol_is_deterministic():
    cases = [make_case(text, events=EVENTS) for text in HOSTILE.values()]
    first, again = ScriptedChat(ask_gullible), ScriptedChat(ask_gullible)
    list(LLMJudge(first).judge(cases))
    list(LLMJudge(again, protocol=Avcap1()).judge(cases))
    assert first.asked == again.asked and len(first.asked) == len(HOSTILE)
