"""Questions about a clip: it is decoded, encoded and read once, however many questions are asked about it.

Clip --look--> LookedAt --reply--> texts                 (what the model writes, greedily)
                        --score--> log-probabilities     (how likely it finds answers that are given)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from avcap.data.qa_files import LETTERS, VideoQuestion, letters_prompt
from avcap.data.request import Request
from avcap.errors import MediaError
from avcap.infer.captioner import Captioner
from avcap.infer.generate import Generated, Prefix, Prompt, generate_after, next_after, read_prefix, score_after
from avcap.infer.video_encoder import seen_of
from avcap.media.clip import Clip
from avcap.model.family import family_of
from avcap.records import Sample, Seen


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """A clip that the model has read, ready to be asked about."""

    clip: Clip
    prefix: Prefix
    seen: Seen


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model wrote; `finished`: it ended itself."""

    text: str
    finished: bool


class Answerer:
    """Asks a captioner's model about clips."""

    def __init__(self, captioner: Captioner):
        self.captioner = captioner
        self.model, self.tokenizer = captioner.model, captioner.tokenizer
        self.encoder, self.prompter = captioner.encoder, captioner.prompter
        self.at_once = 1
        self.has_logprobs = True
        self.checkpoint, self.prompts = captioner.checkpoint, captioner.settings.prompts
        self.max_new_tokens = captioner.settings.max_new_tokens
        self.needs_lead_in = family_of(self.model.config).needs_lead_in(self.model.config)

    @property
    def knows_letters(self) -> bool:
        """Whether the model's vocabulary has the letters that name options; the embedded models' has not."""
        return not self.prompter.unknown_words(" ".join(LETTERS[:5]))

    def count_unknown_words(self, text: str) -> int:
        """Text -> how many of its words the model does not know."""
        return len(self.prompter.unknown_words(text))

    def clips(self, samples: Sequence[Sample], request: Request) -> Iterator[Clip | MediaError]:
        """Samples -> their decoded clips or errors, in order, decoded ahead in worker processes."""
        return self.encoder.decode(samples, request)

    def look(self, clip: Clip, *, sample: Sample, request: Request) -> LookedAt:
        """A decoded clip -> the same, read by the model. UserError if it is not what was asked for."""
        video = self.encoder.encode_clip(clip, sample=sample, request=request)
        with torch.no_grad():
            (tokens,) = self.model.align_batch([video.encoded.media], [video.outline])
        prefix = read_prefix(self.model, Prompt(self.prompter.shared_ids(video), tokens))
        return LookedAt(clip=clip, prefix=prefix, seen=seen_of(video.encoded, tokens))

    def reply(self, looked: LookedAt, prompts: Sequence[str], *, max_new_tokens: int) -> list[Reply]:
        """A clip and prompts -> the model's reply to each."""
        answers = generate_after(
            self.model,
            looked.prefix,
            [self.prompter.question_ids(prompt) for prompt in prompts],
            max_new_tokens=max_new_tokens,
            eos_ids=self.prompter.end_ids,
        )
        return [self._text(answer) for answer in answers]

    def letter_scores(self, looked: LookedAt, questions: Sequence[VideoQuestion]) -> list[list[float]]:
        """A clip and questions with options -> for each, how likely each letter is the first token of the answer."""
        if not questions:
            return []
        endings = [self.prompter.question_ids(letters_prompt(question)) for question in questions]
        logprobs_BV = next_after(self.model, looked.prefix, endings)
        letter_ids = [self._letter_id(letter) for letter in LETTERS[: max(len(q.options) for q in questions)]]
        rows = logprobs_BV[:, letter_ids].tolist()
        return [row[: len(question.options)] for row, question in zip(rows, questions, strict=True)]

    def text_scores(self, looked: LookedAt, questions: Sequence[VideoQuestion]) -> list[list[float]]:
        """A clip and questions with options -> for each, the log-probability of each option's text as the answer.

        Summed over its tokens, the end included: the probability that the model writes just this.
        """
        endings = [self.prompter.question_ids(question.text) for question in questions for _ in question.options]
        answers = [self.prompter.answer_ids(option) for question in questions for option in question.options]
        scores = iter(score_after(self.model, looked.prefix, endings, answers))
        return [[next(scores) for _ in question.options] for question in questions]

    def lead(self, looked: LookedAt, prompt: str, text: str, *, over: str) -> float:
        """A clip, a prompt and two answers -> by how much likelier the first is where they part, in nats.

        That is the log-probability of the first token in which `text` differs, less that of the other's token there; 0
        where they have the same tokens. Of a greedy answer it is never negative.
        """
        ids, other_ids = self.prompter.answer_ids(text), self.prompter.answer_ids(over)
        number = next((k for k, (one, other) in enumerate(zip(ids, other_ids, strict=False)) if one != other), None)
        if number is None:
            return 0.0
        ending = self.prompter.question_ids(prompt)
        answers = [ids[: number + 1], other_ids[: number + 1]]
        first, second = score_after(self.model, looked.prefix, [ending, ending], answers)
        return first - second

    def _letter_id(self, letter: str) -> int:
        return int(self.tokenizer(letter, add_special_tokens=False)["input_ids"][0])

    def _text(self, answer: Generated) -> Reply:
        return Reply(text=self.prompter.text_of(answer.ids), finished=answer.finished)
