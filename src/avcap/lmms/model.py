"""The model `avcap` of lmms-eval: any checkpoint that `avcap caption` takes, on all tasks that ask about one video."""

import logging
from itertools import groupby
from typing import Any

from lmms_eval.api.model import lmms

from avcap.infer.captioner import Captioner
from avcap.lmms.requests import cut_at_stops, request_of, sample_of
from avcap.records import CaptionError

logger = logging.getLogger("avcap")


class AvcapLmms(lmms):
    """--model avcap --model_args model=tiny,use_audio=True. A video that cannot be read is answered with ""."""

    is_simple = False  # requests are chat messages

    def __init__(
        self,
        model: str = "tiny",
        *,
        batch_size: int | str = 8,
        device: str | None = None,
        use_audio: bool = True,
        use_video: bool = True,
        **kwargs: Any,
    ):
        super().__init__()
        if kwargs:
            logger.warning(f"got the model arguments {sorted(kwargs)}, which avcap has not; they are left out")
        self.captioner = Captioner(model, device=device, batch_size=8 if batch_size == "auto" else int(batch_size))
        self.use_audio, self.use_video = use_audio, use_video
        self.num_failed = 0

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Requests (context, doc_to_messages, generation_kwargs, doc_id, task, split) -> a text for each, in order."""
        replies = []
        for _, group in groupby(requests, key=lambda request: repr(request.args[-4])):
            replies += self._generate_alike(list(group))
        if self.num_failed:
            logger.warning(f"{self.num_failed} videos could not be read and were answered with an empty text")
        return replies

    def _generate_alike(self, requests: list[Any]) -> list[str]:
        """Requests with the same generation_kwargs -> their texts."""
        samples = []
        for index, request in enumerate(requests):
            doc_to_messages, _, doc_id, task, split = request.args[-5:]
            messages = doc_to_messages(self.task_dict[task][split][doc_id])
            samples.append(sample_of(messages, sample_id=f"{task}/{split}/{doc_id}/{index}"))
        generation = requests[0].args[-4]
        request = request_of(generation, use_audio=self.use_audio, use_video=self.use_video)
        return [self._text(row, generation) for row in self.captioner.stream(samples, request)]

    def _text(self, row: Any, generation: dict[str, Any]) -> str:
        if isinstance(row, CaptionError):
            logger.warning(row.error)
            self.num_failed += 1
            return ""
        return cut_at_stops(row.text, generation)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("avcap writes texts: choose a generate_until task, or avcap evaluate-qa")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError("avcap answers one question at a time: choose a generate_until task")
