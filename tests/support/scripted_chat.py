"""A language model made of a function, for tests: base.Chat without a server."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from avcap.judge.types import Case
from avcap.llm.types import ChatRequest, NoReply, Reply
from avcap.records import Event, Sample


@dataclass
class ScriptedChat:
    """Answers by a function of the request; keeps what it was asked, and how many requests came in each batch."""

    script: Callable[[ChatRequest], str | Reply | NoReply]
    name: str = "scripted"
    dropped: tuple[str, ...] = ()
    asked: list[ChatRequest] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def ask(self, requests: Iterable[ChatRequest]) -> Iterator[Reply | NoReply]:
        self.batches.append(0)
        for request in requests:
            self.asked.append(request)
            self.batches[-1] += 1
            answer = self.script(request)
            yield Reply(text=answer) if isinstance(answer, str) else answer


def in_turn(answers: Sequence[str | Reply | NoReply]) -> Callable[[ChatRequest], str | Reply | NoReply]:
    """Answers -> a script that gives them one after the other."""
    left = iter(answers)
    return lambda request: next(left)


def make_case(text: str, *, events: Sequence[str | Event] = (), caption_id: str = "c1", **sample: object) -> Case:
    """A caption of a video in which these events happen, all seen."""
    listed = tuple(
        event if isinstance(event, Event) else Event(event_id=f"e{number}", text=event, modality="visual")
        for number, event in enumerate(events, 1)
    )
    fields = {"sample_id": "v1", "video": "v1.mp4", "prompt": "", "events": listed} | sample
    return Case(caption_id=caption_id, sample=Sample(**fields), text=text)
