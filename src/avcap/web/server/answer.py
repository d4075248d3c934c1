"""A response -> what OpenAI's clients read: one JSON object, or a stream of events. No torch.

Beside their fields stands "avcap": what the model was given, and what of the request was ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from avcap.llm.types import TokenLogprobs
from avcap.web.server.call import Call
from avcap.web.server.model import Replied
from avcap.web.server.refusals import Refused

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": still at it\n\n"


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answered request, as it is told.

    Attributes:
        completion_id: Names it.
        created_s: Seconds since 1970.
        model: What the model is called in requests.
        checkpoint: What it is called in records.
        call: What was asked.
    """

    completion_id: str
    created_s: int
    model: str
    checkpoint: str
    call: Call

    def whole(self, replied: Replied) -> dict[str, Any]:
        """The answer as one object."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text},
                "finish_reason": _reason(answer.finished),
                "logprobs": self._logprobs(answer.logprobs),
            }
            for index, answer in enumerate(replied.response.answers)
        ]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage(self.call, replied),
            "avcap": self.record(replied),
        }

    def opening(self) -> list[dict[str, Any]]:
        """The first events of a stream."""
        return [
            self._chunk(index, {"role": "assistant", "content": ""}, None) for index in range(self.call.num_answers)
        ]

    def delta(self, index: int, text: str) -> dict[str, Any]:
        """More text of an answer."""
        return self._chunk(index, {"content": text}, None)

    def closing(self, replied: Replied) -> list[dict[str, Any]]:
        """The last events of a stream, behind all text: why answers ended, the record, and the usage if asked for."""
        last = [
            self._chunk(index, {}, _reason(answer.finished), logprobs=self._logprobs(answer.logprobs))
            for index, answer in enumerate(replied.response.answers)
        ]
        last[-1]["avcap"] = self.record(replied)
        if self.call.has_usage:
            last.append({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(self.call, replied)})
        return last

    def record(self, replied: Replied) -> dict[str, Any]:
        """What the model was given and how it was asked."""
        response, clip, call = replied.response, replied.clip, self.call
        told: dict[str, Any] = {
            "checkpoint": self.checkpoint,
            "prompt": response.prompt,
            "seen": asdict(response.seen),
            "decoding": asdict(call.decoding),
            "ignored": list(call.ignored),
        }
        if clip is not None:
            told["duration_s"] = round(clip.duration_s, 3)
            if clip.world_score is not None:
                told |= {"in_world": clip.world_score <= 1, "world_score": round(clip.world_score, 3)}
        return told

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.completion_id, "object": kind, "created": self.created_s, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None, **fields: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": reason, **fields}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _logprobs(self, tokens: tuple[TokenLogprobs, ...]) -> dict[str, Any] | None:
        if self.call.top_logprobs is None:
            return None
        num = self.call.top_logprobs
        return {
            "content": [
                {
                    **_token(one.token, one.logprob),
                    "top_logprobs": [_token(text, value) for text, value in one.top[:num]],
                }
                for one in tokens
            ]
        }


def usage(call: Call, replied: Replied) -> dict[str, Any]:
    """A response -> tokens of prompt and answers; of the prompt, what is text, video, images and audio."""
    response = replied.response
    seen, num_prompt = response.seen, response.num_prompt_tokens
    visual, audio = seen.visual_tokens or 0, seen.audio_tokens or 0
    num_written = sum(answer.num_tokens for answer in response.answers)
    is_image = any(part.kind == "image" for part in call.media)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_written,
        "total_tokens": num_prompt + num_written,
        "prompt_tokens_details": {
            "text_tokens": num_prompt - visual - audio,
            "video_tokens": 0 if is_image else visual,
            "image_tokens": visual if is_image else 0,
            "audio_tokens": audio,
            "cached_tokens": 0,
        },
    }


def refusal(error: Refused) -> dict[str, Any]:
    """A refusal -> the object that OpenAI's clients read."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def event(data: Mapping[str, Any]) -> bytes:
    """An object -> an event of a stream."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _reason(finished: bool) -> str:
    return "stop" if finished else "length"


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}
