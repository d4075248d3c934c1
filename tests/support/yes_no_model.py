"""A model that answers Yes or No with log-probabilities: its doubts are a function of what it is asked.

    KnownDoubts(labelled, spread=2.0)      knows the truth of these captions, and is more or less sure of it

As a chat (`reply_to`), and as the play of a scripted server (`play`).
"""

import json
import random
from collections.abc import Callable, Sequence

from avcap.judge.calibration.cases import Labelled
from avcap.judge.protocols.avcap_yesno1 import at_all_request, right_request, support_request
from avcap.judge.protocols.claims import Claim, split_claims
from avcap.judge.protocols.yes_no import as_reply
from avcap.llm.quoting import delimit
from avcap.llm.types import ChatRequest, Reply
from avcap.records import Verdict
from avcap.world import grammar
from support.scripted_server import Body, Stage

Doubt = Callable[[str], float]


def reply_to(doubt: Doubt) -> Callable[[ChatRequest], Reply]:
    """A doubt for each question -> the script of a chat."""

    def reply(request: ChatRequest) -> Reply:
        value = doubt("\n".join(message.content for message in request.messages))
        return as_reply("No" if value > 0 else "Yes", doubt=value)

    return reply


def play(doubt: Doubt, *, logprobs: bool = True) -> Callable[[Stage], None]:
    """The same as the play of a scripted server; `logprobs` False: it says the word alone."""

    def answer(stage: Stage) -> None:
        value = doubt("\n".join(message["content"] for message in stage.body["messages"]))
        reply = as_reply("No" if value > 0 else "Yes", doubt=value)
        stage.paid = True
        stage.send(json.dumps(_completion(stage.body, reply, logprobs=logprobs)).encode())

    return answer


def _completion(body: Body, reply: Reply, *, logprobs: bool) -> Body:
    choice: Body = {"finish_reason": "stop", "message": {"role": "assistant", "content": reply.text}}
    if logprobs and body.get("logprobs"):
        (token,) = reply.logprobs
        top = [{"token": said, "logprob": logprob} for said, logprob in token.top[: body["top_logprobs"]]]
        choice["logprobs"] = {"content": [{"token": token.token, "logprob": token.logprob, "top_logprobs": top}]}
    num_chars = sum(len(message["content"]) for message in body["messages"])
    return {"choices": [choice], "usage": {"prompt_tokens": num_chars // 4, "completion_tokens": 1}}


class KnownDoubts:
    """Doubts about captions whose truth is known: -sure for what is right, +sure for what is wrong, spread out.

    What is not known is answered with No: captions of other videos tell none of the events.
    """

    def __init__(
        self,
        labelled: Sequence[Labelled],
        *,
        sure: float = 3.0,
        spread: float = 0.0,
        offset: float = 0.0,
        seed: int = 0,
    ):
        self._wrong: dict[str, bool] = {}
        self._sure, self._spread, self._offset, self._seed = sure, spread, offset, seed
        for one in labelled:
            self._learn(one)

    def _learn(self, one: Labelled) -> None:
        sample, block = one.case.sample, delimit(one.case.text, name="caption")
        label_of = {event.event_id: event.label for event in one.truth.events}
        for event in sample.events:
            label = label_of[event.event_id]
            self._know(right_request(event, sample=sample, block=block), label != "correct")
            self._know(at_all_request(event, sample=sample, block=block), label == "missing")
        for claim in split_claims(block.body):
            self._know(support_request(claim, sample=sample), is_invented(claim, truth=one.truth))

    def _know(self, request: ChatRequest, is_wrong: bool) -> None:
        self._wrong["\n".join(message.content for message in request.messages)] = is_wrong

    def __call__(self, question: str) -> float:
        rng = random.Random(f"{self._seed}/{question}")
        mean = self._sure if self._wrong.get(question, True) else -self._sure
        return self._offset + mean + self._spread * rng.gauss(0, 1)


def is_invented(claim: Claim, *, truth: Verdict) -> bool:
    """A statement in the world's own words -> whether the oracle calls all of it invented."""
    told = [
        statement.text if statement.claim.second is None else f"At {statement.claim.second}s {statement.text}"
        for statement in grammar.read_caption(claim.text).statements
    ]
    return bool(told) and {one.text for one in truth.invented} >= set(told)
