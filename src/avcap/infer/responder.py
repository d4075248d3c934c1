"""Conversations in, answers out: several at a time, each about a clip of its own or about nothing but text.

    [Dialogue, ...] --prompts--> generate --texts--> [Response | UserError, ...]

What a Captioner does for files whose prompts are alike, this does for requests that come from anywhere: any turns,
clips that are encoded already, log-probabilities, tokens told as they are written.
"""

# L tokens of a prompt and its answer  K tokens of the answer  V vocabulary

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from avcap.data.feature_cache import EncodedMedia
from avcap.data.prompt import encode_chat
from avcap.data.request import Interval
from avcap.errors import ModelError, UserError
from avcap.infer.captioner import Captioner, sample_seed
from avcap.infer.clip_check import span_asked
from avcap.infer.generate import Generated, Prompt, generate
from avcap.llm.types import TokenLogprobs
from avcap.model.features import MediaTokens
from avcap.model.interleave import AUDIO_ID, VISUAL_ID
from avcap.records import Decoding, Seen

Turn = tuple[str, str | None]
TokenListener = Callable[[int, int, int], bool]
"""(Which dialogue, which answer to it, next token) -> whether that answer is still expected."""


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A conversation that is to be gone on with.

    Attributes:
        turns: (question, answer) pairs; the last answer is None. An empty first question about a clip stands for the
            prompt of the checkpoint.
        key: Names the clip; together with a seed it decides what is drawn.
        clip: What the first question is about; None: text alone.
        interval_s: Which part of the video was asked for, in seconds.
    """

    turns: tuple[Turn, ...]
    key: str = ""
    clip: EncodedMedia | None = None
    interval_s: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer. `num_tokens` counts the end of a finished one, too."""

    text: str
    finished: bool
    num_tokens: int
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Response:
    """The answers to a dialogue, what was asked, and what the model was given."""

    answers: tuple[Answered, ...]
    prompt: str
    num_prompt_tokens: int
    seen: Seen


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A dialogue whose prompt is written."""

    dialogue: Dialogue
    question: str
    ids: list[int]


class Responder:
    """Goes on with conversations by a captioner's model."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner
        self.model, self.tokenizer = captioner.model, captioner.tokenizer

    def respond(
        self,
        dialogues: Sequence[Dialogue],
        *,
        decoding: Decoding,
        num_answers: int = 1,
        top_logprobs: int | None = None,
        listener: TokenListener | None = None,
    ) -> list[Response | UserError]:
        """Dialogues -> their responses, or why there is none, in order; those of one call share their batches.

        Args:
            dialogues: What is to be answered.
            decoding: How; the same for all.
            num_answers: To each; answer k is what the seed + k alone would give.
            top_logprobs: How many of the likeliest tokens to tell in the place of each token; None: no
                log-probabilities, which cost another reading of the prompt.
            listener: Hears each token as it is written, and may end an answer.

        Raises:
            ModelError: The model cannot be run, whatever it is asked.
        """
        ready = [self._ready(dialogue, decoding=decoding) for dialogue in dialogues]
        written = [index for index, one in enumerate(ready) if isinstance(one, _Ready)]
        asked = [one for one in ready if isinstance(one, _Ready)]
        found: list[Response | UserError] = [one if isinstance(one, UserError) else UserError() for one in ready]
        if not asked:
            return found
        with torch.no_grad():
            media = self._media_tokens(asked)
            prompts: list[Prompt] = [
                Prompt(ids=one.ids, media=tokens) for one, tokens in zip(asked, media, strict=True)
            ]
            answers = self._generate(
                asked,
                prompts,
                decoding=decoding,
                num_answers=num_answers,
                told=_told_by(listener, written, num_answers),
            )
        for row, (index, one) in enumerate(zip(written, asked, strict=True)):
            own = answers[row * num_answers : (row + 1) * num_answers]
            found[index] = Response(
                answers=tuple(self._answered(each, prompts[row], top_logprobs=top_logprobs) for each in own),
                prompt=one.question,
                num_prompt_tokens=len(one.ids),
                seen=_seen(one.dialogue.clip, media[row]),
            )
        return found

    def _ready(self, dialogue: Dialogue, *, decoding: Decoding) -> _Ready | UserError:
        """A dialogue -> its prompt, or why it cannot be asked."""
        media_ids = [] if dialogue.clip is None else self.model.placeholders(dialogue.clip.media)
        question = dialogue.turns[0][0]
        if dialogue.clip is not None and not question.strip():
            asked_s = dialogue.interval_s
            question = self.captioner.settings.prompts.choose(
                interval_s=None if asked_s is None else span_asked(asked_s, duration_s=dialogue.clip.duration_s),
                has_video=VISUAL_ID in media_ids,
                has_audio=AUDIO_ID in media_ids,
            )
        turns = [(question, dialogue.turns[0][1]), *dialogue.turns[1:]]
        ids = encode_chat(self.tokenizer, turns, media_ids, self.captioner.prompter.chat).ids
        longest = self.model.config.text_config.max_position_embeddings
        if len(ids) + decoding.max_new_tokens > longest:
            return UserError(
                f"got {len(ids)} tokens of media and text and {decoding.max_new_tokens} to write, expected at most "
                f"{longest} together, the maximum context length; ask about a part of the video, or lower max_tokens"
            )
        return _Ready(dialogue=dialogue, question=turns[-1][0], ids=ids)

    def _media_tokens(self, asked: Sequence[_Ready]) -> list[MediaTokens | None]:
        """Dialogues -> the media tokens of each, None for text alone."""
        clips = [one.dialogue.clip.media for one in asked if one.dialogue.clip is not None]
        aligned = iter(self.model.align_batch(clips) if clips else [])
        return [None if one.dialogue.clip is None else next(aligned) for one in asked]

    def _generate(
        self,
        asked: Sequence[_Ready],
        prompts: Sequence[Prompt],
        *,
        decoding: Decoding,
        num_answers: int,
        told: Callable[[int, int], bool] | None,
    ) -> list[Generated]:
        seeds = [
            sample_seed(decoding.seed + k, one.dialogue.key or repr(one.dialogue.turns))
            for one in asked
            for k in range(num_answers)
        ]
        return generate(
            self.model,
            prompts,
            max_new_tokens=decoding.max_new_tokens,
            eos_ids=self.captioner.prompter.end_ids,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            seeds=seeds,
            repetition_penalty=decoding.repetition_penalty,
            answers_per_prompt=num_answers,
            listener=told,
        )

    def text(self, ids: Sequence[int]) -> str:
        """Ids of an answer -> its text."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def _answered(self, answer: Generated, prompt: Prompt, *, top_logprobs: int | None) -> Answered:
        told = Answered(
            text=self.text(answer.ids), finished=answer.finished, num_tokens=len(answer.ids) + answer.finished
        )
        if top_logprobs is None or not answer.ids:
            return told
        return replace(told, logprobs=self._logprobs(answer.ids, prompt, top=top_logprobs))

    @torch.no_grad()
    def _logprobs(self, answer_ids: list[int], prompt: Prompt, *, top: int) -> tuple[TokenLogprobs, ...]:
        """An answer to a prompt -> each token's log-probability at temperature 1, read again in one pass."""
        ids_L, media = [*prompt.ids, *answer_ids], prompt.media
        output = self.model.language_model(
            inputs_embeds=self.model.embed(torch.tensor([ids_L], device=self.model.device), [media]),
            position_ids=self.model.positions(ids_L, media).of_ids.unsqueeze(-2).to(self.model.device),
            use_cache=False,
            logits_to_keep=len(answer_ids) + 1,
        )
        logprobs_KV = output.logits[0, :-1].float().log_softmax(dim=-1)
        if not logprobs_KV.isfinite().any():
            raise ModelError("the model computes numbers that are not finite; load it as float32 (--dtype float32)")
        best_KN, tokens_KN = logprobs_KV.topk(min(top, logprobs_KV.shape[-1]), dim=-1)
        rows = zip(answer_ids, logprobs_KV, best_KN.tolist(), tokens_KN.tolist(), strict=True)
        return tuple(
            TokenLogprobs(
                token=self._token_text(token),
                logprob=float(logprobs_V[token]),
                top=tuple((self._token_text(each), value) for each, value in zip(tokens, values, strict=True)),
            )
            for token, logprobs_V, values, tokens in rows
        )

    def _token_text(self, token_id: int) -> str:
        return str(self.tokenizer.decode([token_id]))


def _told_by(
    listener: TokenListener | None, written: Sequence[int], num_answers: int
) -> Callable[[int, int], bool] | None:
    """What hears of dialogues -> what hears of the rows that `generate` counts."""
    if listener is None:
        return None
    return lambda row, token: listener(written[row // num_answers], row % num_answers, token)


def _seen(clip: EncodedMedia | None, tokens: MediaTokens | None) -> Seen:
    """What the language model read -> its record."""
    if clip is None or tokens is None:
        return Seen(frames=0, audio_seconds=0.0, visual_tokens=0, audio_tokens=0)
    return Seen(
        frames=tokens.num_frames,
        audio_seconds=round(clip.media.audio_seconds, 3) if tokens.num_audio else 0.0,
        visual_tokens=tokens.num_visual,
        audio_tokens=tokens.num_audio,
        bad_packets=clip.num_bad_packets,
        notes=clip.notes,
    )
