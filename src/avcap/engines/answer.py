"""Questions about a clip for a model behind an engine: it is decoded and encoded once, and sent with each question.

Log-probabilities of letters come from the engine's top_logprobs, where it has them; those of whole texts do not.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from avcap.data.qa_files import LETTERS, VideoQuestion, letters_prompt
from avcap.data.request import Prompts, Request
from avcap.engines.captioner import EngineCaptioner, Shown, replied
from avcap.engines.engine import asker
from avcap.errors import MediaError, UserError
from avcap.llm.answer import answer_of
from avcap.llm.types import ChatRequest, Choice, Message, Reply
from avcap.media.clip import Clip
from avcap.records import Decoding, Sample, Seen

TOP_LOGPROBS = 20
"""The most that servers give."""
SCORED_TOKENS = 1


@dataclass(frozen=True, kw_only=True)
class ShownClip:
    """A clip that is ready to be asked about."""

    clip: Clip
    shown: Shown
    seen: Seen
    """What is sent; tokens are not known before it is asked about."""


class EngineAnswerer:
    """Asks an engine's model about clips."""

    needs_lead_in = False
    knows_letters = True

    def __init__(self, captioner: EngineCaptioner) -> None:
        self.captioner = captioner
        self.at_once = captioner.engine.options.concurrency

    @property
    def checkpoint(self) -> str:
        return self.captioner.checkpoint

    @property
    def prompts(self) -> Prompts:
        return self.captioner.prompts

    @property
    def max_new_tokens(self) -> int:
        return self.captioner.max_new_tokens

    @functools.cached_property
    def has_logprobs(self) -> bool:
        """Whether the engine gives log-probabilities: asked once, without media."""
        engine = self.captioner.engine
        engine.dialect(use_video=False)  # for what every request of it has
        message = Message(role="user", content="Say OK.")
        fields = {**engine.fixed_options(), "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        answer = asker(engine.chat)(ChatRequest(messages=(message,), max_tokens=SCORED_TOKENS, options=fields))
        return isinstance(answer, Reply) and bool(answer.logprobs)

    def count_unknown_words(self, text: str) -> int:
        """Engines' models know all words."""
        return 0

    def clips(self, samples: Sequence[Sample], request: Request) -> Iterator[Clip | MediaError]:
        """Samples -> their decoded clips or errors, in order, decoded ahead in worker processes."""
        return self.captioner.clips(samples, request)

    def look(self, clip: Clip, *, sample: Sample, request: Request) -> ShownClip:
        """A decoded clip -> the same, ready to be asked about. UserError if it is not what was asked for."""
        shown = self.captioner.show(clip, sample=sample, request=request)
        return ShownClip(clip=clip, shown=shown, seen=shown.seen(Reply(text=""), is_new=False))

    def reply(self, looked: ShownClip, prompts: Sequence[str], *, max_new_tokens: int) -> list[Choice]:
        """A clip and prompts -> the model's reply to each, without thoughts. UserError where there is none."""
        decoding = Decoding(max_new_tokens=max_new_tokens)
        replies = self._ask(looked, [looked.shown.request(prompt, decoding) for prompt in prompts])
        return [Choice(text=answer_of(one.text).text.strip(), finished=one.finished) for one in replies]

    def letter_scores(self, looked: ShownClip, questions: Sequence[VideoQuestion]) -> list[list[float]]:
        """A clip and questions with options -> for each, the log-probability of each letter as the first token.

        A letter that is not among the likeliest tokens has the value of the last of them, which it cannot exceed;
        where no letter is among them, the list is empty: the model does not answer with a letter.
        """
        decoding = Decoding(max_new_tokens=SCORED_TOKENS)
        requests = [
            looked.shown.request(letters_prompt(question), decoding, logprobs=True, top_logprobs=TOP_LOGPROBS)
            for question in questions
        ]
        return [
            _letter_scores(one, num_options=len(question.options))
            for one, question in zip(self._ask(looked, requests), questions, strict=True)
        ]

    def text_scores(self, looked: ShownClip, questions: Sequence[VideoQuestion]) -> NoReturn:
        """No engine scores texts that are given to it."""
        raise UserError(f"{self.checkpoint}: how likely a given text is needs weights; expected --method generate")

    def _ask(self, looked: ShownClip, requests: Sequence[ChatRequest]) -> list[Reply]:
        answers = self.captioner.engine.chat.ask(requests)
        return [replied(one, path=looked.clip.path, engine=self.checkpoint) for one in answers]


def _letter_scores(reply: Reply, *, num_options: int) -> list[float]:
    """A reply of one token with its likeliest -> the value of each letter; [] where none is among them."""
    if not reply.logprobs:
        raise UserError("the engine gave no log-probabilities of this answer; expected --method generate")
    top = reply.logprobs[0].top or ((reply.logprobs[0].token, reply.logprobs[0].logprob),)
    best: dict[str, float] = {}
    for token, logprob in top:
        letter = token.strip(" \n▁Ġ().").upper()
        best[letter] = max(logprob, best.get(letter, logprob))
    letters = LETTERS[:num_options]
    if not any(letter in best for letter in letters):
        return []
    least = min(logprob for _, logprob in top)
    return [best.get(letter, least) for letter in letters]
