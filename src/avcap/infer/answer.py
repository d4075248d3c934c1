"""Questions about a clip: it is decoded, encoded and read once, however many questions are asked about it.

Clip --look--> LookedAt --reply--> texts                 (what the model writes, greedily)
                        --score--> log-probabilities     (how likely it finds answers that are given)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from avcap.data.encode import encode_clip
from avcap.data.prompt import encode_chat
from avcap.data.qa_files import LETTERS, VideoQuestion, letters_prompt
from avcap.data.request import Request
from avcap.data.tokenizer import unknown_words
from avcap.errors import MediaError, UserError
from avcap.infer.captioner import NUM_DECODERS, Captioner
from avcap.infer.clip_check import check_clip
from avcap.infer.generate import Generated, Prefix, generate_after, next_after, read_prefix, score_after
from avcap.media.clip import Clip
from avcap.media.deadline import deadline_check
from avcap.media.pool import DecodePool
from avcap.model.family import family_of
from avcap.model.interleave import AUDIO_ID, VISUAL_ID
from avcap.records import Sample, Seen

ROOM_TOKENS = 512  # for a question with its options and the answer


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
        self.at_once = 1
        self.has_logprobs = True
        self.checkpoint, self.prompts = captioner.checkpoint, captioner.settings.prompts
        self.max_new_tokens = captioner.settings.max_new_tokens
        self.needs_lead_in = family_of(self.model.config).needs_lead_in(self.model.config)

    @property
    def knows_letters(self) -> bool:
        """Whether the model's vocabulary has the letters that name options; the embedded models' has not."""
        return not unknown_words(self.tokenizer, " ".join(LETTERS[:5]))

    def count_unknown_words(self, text: str) -> int:
        """Text -> how many of its words the model does not know."""
        return len(unknown_words(self.tokenizer, text))

    def clips(self, samples: Sequence[Sample], request: Request) -> Iterator[Clip | MediaError]:
        """Samples -> their decoded clips or errors, in order, decoded ahead in worker processes."""
        with DecodePool(num_workers=NUM_DECODERS, deadline_s=self.captioner.deadline_s) as pool:
            yield from pool.map(self.captioner.clip_request(sample, request) for sample in samples)

    def look(self, clip: Clip, *, sample: Sample, request: Request) -> LookedAt:
        """A decoded clip -> the same, read by the model. UserError if it is not what was asked for."""
        check_clip(clip, interval_s=sample.interval_s)
        check = deadline_check(clip.path, seconds=self.captioner.deadline_s, spent_s=clip.decoding_s)
        media = encode_clip(self.model, clip, tokenizer=self.tokenizer, check=check)
        with torch.no_grad():
            (tokens,) = self.model.align_batch([media])
        if request.use_audio and clip.has_audio and AUDIO_ID not in tokens.ids:
            raise UserError(f"{clip.path}: got a sound track but no sound where it was asked for; leave the sound out")
        opening, _ = encode_chat(self.tokenizer, [("", None)], tokens.ids, self.captioner.chat)
        placeholders = (VISUAL_ID, AUDIO_ID)
        first, enclosing = (
            next(index for index, token in enumerate(ids) if token in placeholders) for ids in (opening, tokens.ids)
        )
        # up to the end of the media all questions are one prompt
        shared_ids = opening[: first - enclosing + len(tokens.ids)]
        self._check_length(clip.path, num_tokens=len(shared_ids))
        prefix = read_prefix(self.model, (shared_ids, tokens))
        seen = Seen(
            frames=tokens.num_frames,
            audio_seconds=round(media.audio_seconds, 3) if tokens.num_audio else 0.0,
            visual_tokens=tokens.num_visual,
            audio_tokens=tokens.num_audio,
            bad_packets=clip.num_bad_packets,
            notes=clip.notes,
        )
        return LookedAt(clip=clip, prefix=prefix, seen=seen)

    def _check_length(self, path: str, *, num_tokens: int) -> None:
        """Raises UserError where a question would stand past the positions that the model knows."""
        longest = self.model.config.text_config.max_position_embeddings
        if num_tokens + ROOM_TOKENS > longest:
            raise UserError(
                f"{path}: got {num_tokens} tokens of video, expected at most {longest - ROOM_TOKENS}, so that there is "
                "room for a question and its answer; use a shorter part of it"
            )

    def reply(self, looked: LookedAt, prompts: Sequence[str], *, max_new_tokens: int) -> list[Reply]:
        """A clip and prompts -> the model's reply to each."""
        answers = generate_after(
            self.model,
            looked.prefix,
            [self._ending(prompt) for prompt in prompts],
            max_new_tokens=max_new_tokens,
            eos_ids=self.captioner.end_ids,
        )
        return [self._text(answer) for answer in answers]

    def letter_scores(self, looked: LookedAt, questions: Sequence[VideoQuestion]) -> list[list[float]]:
        """A clip and questions with options -> for each, how likely each letter is the first token of the answer."""
        if not questions:
            return []
        logprobs_BV = next_after(self.model, looked.prefix, [self._ending(letters_prompt(q)) for q in questions])
        letter_ids = [self._letter_id(letter) for letter in LETTERS[: max(len(q.options) for q in questions)]]
        rows = logprobs_BV[:, letter_ids].tolist()
        return [row[: len(question.options)] for row, question in zip(rows, questions, strict=True)]

    def text_scores(self, looked: LookedAt, questions: Sequence[VideoQuestion]) -> list[list[float]]:
        """A clip and questions with options -> for each, the log-probability of each option's text as the answer.

        Summed over its tokens, the end included: the probability that the model writes just this.
        """
        asked = [(self._ending(question.text), option) for question in questions for option in question.options]
        scores = iter(
            score_after(
                self.model,
                looked.prefix,
                [ending for ending, _ in asked],
                [self._answer_ids(option) for _, option in asked],
            )
        )
        return [[next(scores) for _ in question.options] for question in questions]

    def lead(self, looked: LookedAt, prompt: str, text: str, *, over: str) -> float:
        """A clip, a prompt and two answers -> by how much likelier the first is where they part, in nats.

        That is the log-probability of the first token in which `text` differs, less that of the other's token there; 0
        where they have the same tokens. Of a greedy answer it is never negative.
        """
        ids, other_ids = self._answer_ids(text), self._answer_ids(over)
        number = next((k for k, (one, other) in enumerate(zip(ids, other_ids, strict=False)) if one != other), None)
        if number is None:
            return 0.0
        ending = self._ending(prompt)
        answers = [ids[: number + 1], other_ids[: number + 1]]
        first, second = score_after(self.model, looked.prefix, [ending, ending], answers)
        return first - second

    def _letter_id(self, letter: str) -> int:
        return self.tokenizer(letter, add_special_tokens=False)["input_ids"][0]

    def _ending(self, prompt: str) -> list[int]:
        """Prompt -> all ids behind the media."""
        ids, _ = encode_chat(self.tokenizer, [(prompt, None)], [VISUAL_ID], self.captioner.chat)
        return ids[ids.index(VISUAL_ID) + 1 :]

    def _answer_ids(self, answer: str) -> list[int]:
        ids = self.tokenizer(answer + self.captioner.chat.answer_suffix, add_special_tokens=False)["input_ids"]
        end = next(index for index, token in enumerate(ids) if token in self.captioner.end_ids)
        return ids[: end + 1]

    def _text(self, answer: Generated) -> Reply:
        text = self.tokenizer.decode(answer.ids, skip_special_tokens=True).strip()
        return Reply(text=text, finished=answer.finished)
