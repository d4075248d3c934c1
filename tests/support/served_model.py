"""A model of ours behind a scripted engine: asked about a video, it is run, and the server says what it says.

    with ServedModel(VLLM).load("tiny-sft", videos) as server:
        ... --sampler {server.url}

The server knows a video by its audio, and shows the model the file: what an engine decodes again differs a little.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Request
from avcap.infer.captioner import Captioner
from avcap.infer.question_answering import Answerer
from avcap.media.encode import decode_wav, encode_wav
from avcap.media.load import read_clip
from avcap.records import Caption, Decoding
from support.scripted_engine import Asked, ScriptedEngine


def audio_of(path: str | Path) -> bytes:
    """A file -> its audio as an engine is sent it."""
    return decode_wav(encode_wav(read_clip(str(path), with_video=False).waveform_S)).tobytes()


class ServedModel(ScriptedEngine):
    """A server with a model in it; `load` puts another into it. `said`: what it wrote of videos."""

    logprobs = True

    def load(self, model: str | Path, videos: list[str | Path]) -> "ServedModel":
        self.captioner = Captioner(model)
        self.videos = {audio_of(path): str(path) for path in videos}
        self.said: list[str] = []
        self.model_lock = threading.Lock()
        return self

    def _completion(self, asked: Asked, body: dict[str, Any]) -> bytes:
        path = self.videos.get(asked.waveform_S.tobytes())
        if path is None:
            return super()._completion(asked, body)  # a probe
        decoding = Decoding(
            max_new_tokens=body["max_tokens"],
            temperature=body.get("temperature", 0.0),
            top_p=body.get("top_p", 1.0),
            seed=body.get("seed", 0),
        )
        request = Request(decoding=decoding, prompt=asked.text)
        with self.model_lock:
            rows = list(self.captioner.sample([path], request, num_answers=body.get("n", 1)))
            assert all(isinstance(row, Caption) for row in rows), rows
            choices = [
                {"finish_reason": "stop" if row.finished else "length", "message": {"content": row.text}}
                for row in rows
                if isinstance(row, Caption)
            ]
            if body.get("logprobs") and self.logprobs:
                choices[0]["logprobs"] = {"content": list(self._logprobs(path, request, rows[0].text))}
        self.said += [choice["message"]["content"] for choice in choices]
        return json.dumps({"choices": choices, "usage": self._usage(asked)}).encode()

    def _logprobs(self, path: str, request: Request, text: str) -> Iterator[dict[str, Any]]:
        """A text of a video -> its log-probability, spread over the words."""
        sample, answerer = request.sample(path), Answerer(self.captioner)
        with contextlib.closing(answerer.clips([sample], request)) as clips:
            looked = answerer.look(next(clips), sample=sample, request=request)
        asked = VideoQuestion(question_id="q", video="", kind="", text=request.prompt, answer=text, options=(text,))
        ((score,),) = answerer.text_scores(looked, [asked])
        for word in text.split():
            yield {"token": word, "logprob": score / len(text.split())}
