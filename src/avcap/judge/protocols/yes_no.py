"""A question that is answered by Yes or No, and how sure the model is of it: from the log-probabilities. No torch.

    doubt = log p(No) - log p(Yes)         above 0: rather no

Read is the first word of the answer, with its likeliest alternatives; servers give up to 20 of them. Where a server
gives no log-probabilities, the word alone counts, and the doubt is that of somebody who is certain.
"""

import math
from typing import Any

from avcap.judge.protocols import prompts
from avcap.llm.answer import answer_of
from avcap.llm.json_reply import BadReply
from avcap.llm.types import ChatRequest, Reply, TokenLogprobs

TOP_LOGPROBS = 20
MAX_TOKENS = 4
"""Room for a mark or a line's end before the word."""
CERTAIN = 20.0
OPTIONS: dict[str, Any] = {
    "logprobs": True,
    "top_logprobs": TOP_LOGPROBS,
    # A model that thinks first does not begin with the answer; servers whose template knows no thoughts ignore this.
    "chat_template_kwargs": {"enable_thinking": False},
}


def yes_no_request(rules: str, *parts: str) -> ChatRequest:
    """Rules, and the parts of a question that ends in one for Yes or No -> the request.

    What several questions have in common comes first, so that a server, or the model in this process, reads it once.
    """
    return prompts.request(rules, *parts, max_tokens=MAX_TOKENS, options=OPTIONS)


def read_doubt(reply: Reply) -> float:
    """A reply -> log p(No) - log p(Yes). Raises BadReply for one that begins with neither.

    A word that is not among the likeliest has at most the probability of the last of them, and is taken to have that.
    """
    if not reply.logprobs:
        return _certain(answer_of(reply.text).text)
    token = next((one for one in reply.logprobs if _letters(one.token)), None)
    if token is None:
        raise BadReply(f"no word in the answer {reply.text!r}")
    top = dict([*token.top, (token.token, token.logprob)])
    found = {word: [p for said, p in top.items() if _letters(said) == word] for word in ("yes", "no")}
    if not found["yes"] and not found["no"]:
        raise BadReply(f"the answer begins with {token.token!r}, and Yes and No are not among the likeliest words")
    least = min(top.values())
    yes, no = (_log_sum(logprobs) if logprobs else least for logprobs in found.values())
    return no - yes


def has_logprobs(reply: Reply) -> bool:
    return any(_letters(one.token) for one in reply.logprobs)


def as_reply(text: str, *, doubt: float) -> Reply:
    """What a model with this doubt answers: for servers and models that are scripted or simulated."""
    yes = -math.log1p(math.exp(doubt))
    top = (("Yes", yes), ("No", doubt + yes))
    return Reply(text=text, logprobs=(TokenLogprobs(token=text, logprob=dict(top)[text], top=top),))


def _certain(text: str) -> float:
    words = "".join(char if char.isalpha() else " " for char in text).split()
    first = words[0].casefold() if words else ""
    if first not in ("yes", "no"):
        raise BadReply(f"the answer {text[:40]!r} begins with neither Yes nor No")
    return CERTAIN if first == "no" else -CERTAIN


def _letters(token: str) -> str:
    """ " Yes", "ĠYes", "**Yes" -> "yes"; the marks of word starts (Ġ, ▁) are no letters of a word here."""
    return "".join(char for char in token if char.isalpha() and char not in "ĠĊ").casefold()


def _log_sum(logprobs: list[float]) -> float:
    most = max(logprobs)
    return most + math.log(sum(math.exp(one - most) for one in logprobs))
