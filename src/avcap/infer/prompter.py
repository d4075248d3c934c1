"""Encoded videos and what is asked about them become token ids that the model can go on from.

EncodedVideo --ask--> AskedVideo                      (one prompt: a caption)
             --shared_ids--> ids, --question_ids-->   (many questions, behind what they share)
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import ChatStyle, encode_chat
from avcap.data.request import Interval, Request
from avcap.data.tokenizer import unknown_words
from avcap.errors import UserError
from avcap.infer.clip_check import span_asked
from avcap.infer.official.rules import Behaviour
from avcap.infer.settings import CaptionerSettings
from avcap.infer.video_encoder import EncodedVideo
from avcap.model.captioning import CaptioningModel
from avcap.model.checkpoint.refusals import told_of
from avcap.model.interleave import AUDIO_ID, VISUAL_ID

logger = logging.getLogger("avcap")

QUESTION_TOKENS = 512  # room for a question with its options and the answer


@dataclass(frozen=True, kw_only=True)
class AskedVideo:
    """An encoded video and what the model is asked about it."""

    video: EncodedVideo
    prompt: str
    span_s: Interval | None
    """The interval that prompt and record tell of; None: the whole video."""
    ids: list[int]


class Prompter:
    """How one model is asked."""

    def __init__(
        self,
        model: CaptioningModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        folder: Path,
        settings: CaptionerSettings,
        behaviour: Behaviour,
        checkpoint: str,
    ):
        """`folder`: of the checkpoint; `checkpoint`: its name in captions and warnings."""
        self.tokenizer, self.settings, self.behaviour, self.checkpoint = tokenizer, settings, behaviour, checkpoint
        self._model = model
        self._config_file = folder / "config.json"
        self._warned: set[str] = set()
        with told_of(self._config_file, what="its chat cannot be written"):
            self.chat = ChatStyle(**model.config.chat)
            if wrong := [name for name, text in vars(self.chat).items() if not isinstance(text, str)]:
                raise TypeError(f"chat.{wrong[0]}: got {getattr(self.chat, wrong[0])!r}, expected text")
            # What closes an answer in the chat, which is not always what the tokenizer calls its end.
            closing = tokenizer(self.chat.answer_suffix, add_special_tokens=False)["input_ids"]
            self.end_ids: set[int] = {closing[0], tokenizer.eos_token_id}

    @property
    def _longest(self) -> int:
        """Positions that the language model knows."""
        return int(self._model.config.text_config.max_position_embeddings)

    def ask(self, video: EncodedVideo, request: Request) -> AskedVideo:
        """An encoded video -> the prompt for its caption.

        Raises:
            UserError: prompt and answer would lead the model past the positions that it knows.
        """
        sample, encoded, media_ids = video.sample, video.encoded, video.outline.ids
        span_s = None if sample.interval_s is None else span_asked(sample.interval_s, duration_s=encoded.duration_s)
        prompt = sample.prompt or self.settings.prompts.choose(
            interval_s=span_s, has_video=VISUAL_ID in media_ids, has_audio=AUDIO_ID in media_ids
        )
        with told_of(self._config_file, what="its tokenizer cannot write the prompt"):
            self._warn_of_unknown_words(prompt)
            self._warn_of_another_world(sample.video, score=encoded.world_score)
            ids = self.behaviour.prompt(
                encode_chat(self.tokenizer, [(prompt, None)], media_ids, self.chat).ids,
                media=encoded.media,
                num_audio=media_ids.count(AUDIO_ID),
                tokenizer=self.tokenizer,
                path=sample.video,
            )
        num_new = request.decoding.max_new_tokens
        if len(ids) + num_new > self._longest:
            raise UserError(
                f"{sample.video}: got {len(ids)} tokens of video and prompt and {num_new} to be written, expected at "
                f"most {self._longest} together; caption it in parts (--start, --end) or lower --max-new-tokens"
            )
        return AskedVideo(video=video, prompt=prompt, span_s=span_s, ids=ids)

    def shared_ids(self, video: EncodedVideo) -> list[int]:
        """An encoded video -> the ids that stand before every question about it.

        Raises:
            UserError: a question and its answer would stand past the positions that the model knows.
        """
        ids = encode_chat(self.tokenizer, [("", None)], video.outline.ids, self.chat).opening_ids
        if len(ids) + QUESTION_TOKENS > self._longest:
            raise UserError(
                f"{video.sample.video}: got {len(ids)} tokens of video, expected at most "
                f"{self._longest - QUESTION_TOKENS}, so that there is room for a question and its answer; use a "
                "shorter part of it"
            )
        return ids

    def question_ids(self, prompt: str) -> list[int]:
        """A question -> all ids behind `shared_ids`, up to where the answer begins."""
        return encode_chat(self.tokenizer, [(prompt, None)], [VISUAL_ID], self.chat).question_ids

    def answer_ids(self, answer: str) -> list[int]:
        """An answer -> its ids, with the one that ends it."""
        ids: list[int] = self.tokenizer(answer + self.chat.answer_suffix, add_special_tokens=False)["input_ids"]
        end = next(index for index, token in enumerate(ids) if token in self.end_ids)
        return ids[: end + 1]

    def unknown_words(self, text: str) -> list[str]:
        """Text -> those of its words that the model does not know."""
        return unknown_words(self.tokenizer, text)

    def text_of(self, answer_ids: list[int]) -> str:
        """What the model wrote -> as a person reads it."""
        return str(self.tokenizer.decode(answer_ids, skip_special_tokens=True)).strip()

    def _warn_of_another_world(self, path: str, *, score: float | None) -> None:
        """Says where the model finds a video unlike its world. `score` None: a model of any video."""
        if score is not None and score > 1:
            logger.warning(
                f"{path}: this looks or sounds unlike all that {self.settings.name} was made for"
                f"{self.settings.describes and f' ({self.settings.describes})'}, so do not believe its caption "
                f"(score {score:.1f}, border 1.0); for real videos choose a model with --model"
            )

    def _warn_of_unknown_words(self, prompt: str) -> None:
        if prompt in self._warned:
            return
        self._warned.add(prompt)
        if unknown := self.unknown_words(prompt):
            words = ", ".join(repr(word) for word in dict.fromkeys(unknown))
            logger.warning(f"the prompt has words that {self.checkpoint} does not know and will not see: {words}")
