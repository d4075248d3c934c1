"""testset-gpt: the protocol of the video-SALMONN 2 test set. Counts of missed, incorrect and hallucinated events.

The rules are theirs, the wording of the prompts is ours: seven runs over the whole set; in each a reply that cannot be
read is asked for again, up to nine tries, then a prompt for counts alone three times; then the video is out of the run.
Rates are sums over videos divided by the sum of events, and the run with the median Total is reported.

Ours on top: a reply is JSON and never run as code; the lists must fit the counts; what was left out is counted. A
caption that ran into its token limit has its repetitions taken out first, as theirs has (by a rule of ours).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from avcap.judge.protocols import prompts
from avcap.judge.protocols.avcap1 import TOKENS_BESIDE_EVENTS, TOKENS_PER_EVENT, event_list, what_is_captioned
from avcap.judge.protocols.protocol import Card, ErrorRates, error_rates
from avcap.judge.protocols.wording import Wordings, worded
from avcap.judge.types import Case
from avcap.llm import json_reply
from avcap.llm.dialogue import Dialogue, Failed, ask_until_valid, side_by_side
from avcap.llm.json_reply import BadReply
from avcap.llm.quoting import delimit, shorten_repeats
from avcap.llm.types import ChatRequest
from avcap.records import Event, Sample, Unscored

NUM_RUNS = 7
LIST_TRIES, COUNT_TRIES = 9, 3
KINDS = ("missed", "incorrect", "hallucination")

_COUNT = {"type": "integer"}
_NUMBERS = prompts.object_schema(count=_COUNT, events=prompts.list_schema({"type": "integer"}))
LIST_SCHEMA = prompts.object_schema(
    missed=_NUMBERS,
    incorrect=_NUMBERS,
    hallucination=prompts.object_schema(count=_COUNT, claims=prompts.list_schema({"type": "string"})),
)
COUNT_SCHEMA = prompts.object_schema(**{kind: _COUNT for kind in KINDS})


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """The errors of one caption in one run. Lists are None where only counts could be had."""

    missed: int
    incorrect: int
    hallucination: int
    missed_ids: tuple[str, ...] | None = None
    incorrect_ids: tuple[str, ...] | None = None
    claims: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class SevenRuns:
    """A caption's score: its counts in each run, or why it has none there."""

    caption_id: str
    num_events: int
    runs: tuple[RunCounts | Unscored, ...]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The rates of one run. Hallucination includes incorrect, as in the paper; Total is the same either way."""

    rates: ErrorRates
    num_unscored: int


@dataclass(frozen=True, kw_only=True)
class SevenRunsSummary:
    """`median`: the run that is reported; the others show how far the judge scatters."""

    median: RunSummary
    median_run: int
    runs: tuple[RunSummary, ...]


@dataclass(frozen=True, kw_only=True)
class GptTestset:
    """The protocol. `temperature`: the released script leaves it at the server's default, which is usually 1."""

    num_runs: int = NUM_RUNS
    temperature: float = 1.0
    wordings: Wordings = field(default_factory=dict)

    @property
    def card(self) -> Card:
        return Card(
            name="testset-gpt",
            version=1,
            prompt_version=prompts.fingerprint(*_example(self.wordings)),
            decoding=f"temperature {self.temperature:g}; {self.num_runs} runs; {LIST_TRIES} tries, then {COUNT_TRIES} "
            "for counts alone",
            aggregation="per run sums over captions before dividing by the sum of events; the run of the median Total",
        )

    def dialogue(self, case: Case, /) -> Dialogue[SevenRuns | Unscored]:
        """A case -> its counts in each run. Unscored if no run has any."""
        num_events = len(case.sample.events)
        if not num_events:
            return Unscored(caption_id=case.caption_id, reason="the sample has no events")
        text = shorten_repeats(case.text, kept=1)[0] if case.finished is False else case.text
        if not delimit(text, name="caption").body:
            every = tuple(event.event_id for event in case.sample.events)
            all_missed = RunCounts(
                missed=num_events, incorrect=0, hallucination=0, missed_ids=every, incorrect_ids=(), claims=()
            )
            return SevenRuns(caption_id=case.caption_id, num_events=num_events, runs=self.num_runs * (all_missed,))
        shown = replace(case, text=text)
        runs = yield from side_by_side([self._run(shown, run=run) for run in range(self.num_runs)])
        bad = [run for run in runs if isinstance(run, Unscored)]
        if len(bad) == len(runs):
            return replace(bad[-1], reason=f"no run gave counts; the last: {bad[-1].reason}")
        return SevenRuns(caption_id=case.caption_id, num_events=num_events, runs=tuple(runs))

    def _run(self, case: Case, *, run: int) -> Dialogue[RunCounts | Unscored]:
        """A case -> its counts in one run. Attempts of different runs never meet: run, run + 7, run + 14, ..."""
        lists, counts = (
            replace(request, attempt=run, temperature=self.temperature)
            for request in requests_of(case, wordings=self.wordings)
        )
        found = yield from ask_until_valid(
            lists,
            read=lambda text: read_lists(text, sample=case.sample),
            max_tries=LIST_TRIES,
            attempt_step=self.num_runs,
        )
        if isinstance(found, Failed) and found.reply:  # a server that cannot be asked is not asked more simply
            found = yield from ask_until_valid(
                counts,
                read=lambda text: read_counts(text, num_events=len(case.sample.events)),
                max_tries=COUNT_TRIES,
                attempt_step=self.num_runs,
            )
        if isinstance(found, Failed):
            return Unscored(caption_id=case.caption_id, reason=found.reason, reply=found.reply)
        return found

    def summarise(self, scores: Sequence[SevenRuns], /) -> SevenRunsSummary:
        """Scores -> all runs, and the one whose Total is the median (of two in the middle, the lower)."""
        runs = tuple(_summarise_run(scores, run=run) for run in range(self.num_runs))
        scored = [run for run in range(self.num_runs) if runs[run].rates.total_error_rate is not None]
        scored.sort(key=lambda run: (runs[run].rates.total_error_rate, run))
        median_run = scored[(len(scored) - 1) // 2] if scored else 0
        return SevenRunsSummary(median=runs[median_run], median_run=median_run, runs=runs)


def _summarise_run(scores: Sequence[SevenRuns], *, run: int) -> RunSummary:
    pairs = [(score.num_events, score.runs[run]) for score in scores]
    scored = [(num_events, counts) for num_events, counts in pairs if isinstance(counts, RunCounts)]
    rates = error_rates(
        num_captions=len(scored),
        num_events=sum(num_events for num_events, _ in scored),
        missing=sum(counts.missed for _, counts in scored),
        incorrect=sum(counts.incorrect for _, counts in scored),
        invented=sum(counts.hallucination for _, counts in scored),
    )
    return RunSummary(rates=rates, num_unscored=len(pairs) - len(scored))


def requests_of(case: Case, *, wordings: Wordings) -> tuple[ChatRequest, ChatRequest]:
    """A case -> (what is asked for with lists, what for counts alone)."""
    parts = {
        "events": event_list(case.sample),
        "about": what_is_captioned(case.sample),
        "caption": delimit(case.text, name="caption").text,
    }
    max_tokens = TOKENS_BESIDE_EVENTS + TOKENS_PER_EVENT * len(case.sample.events)
    return (
        worded(prompts.TESTSET, parts, wording=wordings.get("lists"), max_tokens=max_tokens, schema=LIST_SCHEMA),
        worded(
            prompts.TESTSET_COUNTS,
            parts,
            wording=wordings.get("counts"),
            max_tokens=TOKENS_BESIDE_EVENTS,
            schema=COUNT_SCHEMA,
        ),
    )


def read_lists(text: str, *, sample: Sample) -> RunCounts:
    """A reply with lists -> counts. Raises BadReply if a count is not its list's, or an event is in two lists."""
    reply = json_reply.parse_object(text, schema=LIST_SCHEMA)
    missed, incorrect = (_read_numbers(reply, kind, num_events=len(sample.events)) for kind in KINDS[:2])
    if both := sorted(set(missed) & set(incorrect)):
        raise BadReply(f"event {both[0]} is both missed and incorrect")
    hallucination = json_reply.take(reply, KINDS[2], where="the reply")
    claims = json_reply.take_list(hallucination, "claims", where=KINDS[2])
    if not all(isinstance(claim, str) and claim.strip() for claim in claims):
        raise BadReply("a hallucination is not a text")
    _check_count(hallucination, items=claims, where=KINDS[2])
    ids = [event.event_id for event in sample.events]
    return RunCounts(
        missed=len(missed),
        incorrect=len(incorrect),
        hallucination=len(claims),
        claims=tuple(claims),
        missed_ids=tuple(ids[number - 1] for number in missed),
        incorrect_ids=tuple(ids[number - 1] for number in incorrect),
    )


def _read_numbers(reply: dict[str, Any], kind: str, *, num_events: int) -> list[int]:
    part = json_reply.take(reply, kind, where="the reply")
    numbers = json_reply.take_list(part, "events", where=kind)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= num_events:
            raise BadReply(f"{kind} lists something that is not the number of one of the {num_events} events")
    if len(set(numbers)) < len(numbers):
        raise BadReply(f"{kind} lists an event twice")
    _check_count(part, items=numbers, where=kind)
    return numbers


def _check_count(part: Any, *, items: list[Any], where: str) -> None:
    if (count := json_reply.take_count(part, "count", where=where)) != len(items):
        raise BadReply(f"{where} counts {count} and lists {len(items)}")


def read_counts(text: str, *, num_events: int) -> RunCounts:
    """A reply with counts alone -> counts. Raises BadReply if more events are wrong than there are."""
    reply = json_reply.parse_object(text, schema=COUNT_SCHEMA)
    missed, incorrect = (json_reply.take_count(reply, kind, where="the reply", most=num_events) for kind in KINDS[:2])
    if missed + incorrect > num_events:
        raise BadReply(f"{missed} missed and {incorrect} incorrect of {num_events} events")
    return RunCounts(
        missed=missed, incorrect=incorrect, hallucination=json_reply.take_count(reply, KINDS[2], where="the reply")
    )


def _example(wordings: Wordings) -> Iterator[ChatRequest]:
    """Requests that show all that is asked here."""
    event = Event(event_id="1", text="a man waves", modality="visual", start_s=1.0, end_s=2.0)
    for interval_s in (None, (1.0, 2.0)):
        sample = Sample(sample_id="1", video="1.mp4", prompt="", interval_s=interval_s, events=(event,))
        yield from requests_of(Case(caption_id="1", sample=sample, text="A man waves."), wordings=wordings)
