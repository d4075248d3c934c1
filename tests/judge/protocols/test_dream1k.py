"""dream-1k: AutoDQ's precision and recall, with its lower case, its empty lists and its order of averaging."""

import json

import pytest
from support.scripted_chat import ScriptedChat

from avcap.judge.protocols import prompts
from avcap.judge.protocols.dream1k import Dream1k, DreamCase, DreamScore, PrecisionRecall, read_events, read_relations
from avcap.judge.protocols.protocol import run_protocol
from avcap.llm.json_reply import BadReply
from avcap.llm.types import ChatRequest, NoReply


def relations(*values: str) -> str:
    return json.dumps({"relations": [{"id": number, "relation": value} for number, value in enumerate(values, 1)]})


def events(*texts: str) -> str:
    return json.dumps({"events": list(texts)})


def make(caption: str = "A man waves.", reference_caption: str = "A cat runs.", **fields: object) -> DreamCase:
    return DreamCase(
        **{
            "caption_id": "c1",
            "source": "films",
            "caption": caption,
            "reference_caption": reference_caption,
            "reference_caption_events": ("A cat runs", "A dog sleeps"),
        }
        | fields
    )


def by_kind(*, found: str, recall: str, precision: str, reference_caption: str = "a cat runs."):
    """A script that knows its three questions: key events, and how the events of each side stand to the other."""

    def script(request: ChatRequest) -> str:
        rules, question = (message.content for message in request.messages)
        if rules == prompts.DREAM_EVENTS:
            return found
        return precision if f"| {reference_caption}" in question else recall

    return script


def test_precision_and_recall():
    """1 of 2 reference events follows from the caption; 2 of 3 caption events from the reference. F1 = 4/7."""
    script = by_kind(
        found=events("A man waves", "he smiles", "he goes"),
        recall=relations("entailment", "neutral"),
        precision=relations("entailment", "contradiction", "entailment"),
    )
    chat = ScriptedChat(script)
    outcome = run_protocol(Dream1k(), [make()], chat=chat)
    assert outcome.scores == (
        DreamScore(
            caption_id="c1",
            source="films",
            recall=1 / 2,
            precision=2 / 3,
            reference_caption_events=("a cat runs", "a dog sleeps"),
            caption_events=("a man waves", "he smiles", "he goes"),
        ),
    )
    # 2 x 1/2 x 2/3 / (1/2 + 2/3) = (2/3) / (7/6) = 4/7
    assert outcome.summary.overall.f1 == pytest.approx(4 / 7)
    assert chat.batches == [1, 2]  # the events of the caption, then both relations together


def test_lower_case_and_single_quotes():
    script = by_kind(found=events('Says "Hi"'), recall=relations("neutral"), precision=relations("neutral"))
    chat = ScriptedChat(script)
    case = make('A Man says "Hi".', "A Cat RUNS.", reference_caption_events=('Someone says "Hi"',))
    run_protocol(Dream1k(), [case], chat=chat)
    questions = [request.messages[1].content for request in chat.asked]
    assert "| a man says 'hi'." in questions[0] and "| a cat runs." in questions[2]
    assert "1. someone says 'hi'" in questions[1] and "1. says 'hi'" in questions[2]


def test_only_entailment_counts():
    script = by_kind(
        found=events("x"), recall=relations("contradiction", "neutral"), precision=relations("contradiction")
    )
    (score,) = run_protocol(Dream1k(), [make()], chat=ScriptedChat(script)).scores
    assert (score.recall, score.precision) == (0.0, 0.0)
    assert PrecisionRecall(precision=0.0, recall=0.0, num=1).f1 == 0.0


def test_an_empty_list_scores_one():
    """No caption events: precision 1 unasked. No reference events: recall 1 unasked."""
    chat = ScriptedChat(by_kind(found=events(), recall="never asked", precision="never asked"))
    (score,) = run_protocol(Dream1k(), [make(reference_caption_events=())], chat=chat).scores
    assert (score.recall, score.precision, len(chat.asked)) == (1.0, 1.0, 1)


def test_an_empty_caption_has_no_events_and_entails_none():
    (score,) = run_protocol(Dream1k(), [make(caption="")], chat=ScriptedChat(lambda request: "never asked")).scores
    assert (score.recall, score.precision) == (0.0, 1.0)


def test_events_of_reference_captions_that_are_not_given_are_extracted():
    chat = ScriptedChat(by_kind(found=events("x"), recall=relations("entailment"), precision=relations("neutral")))
    (score,) = run_protocol(Dream1k(), [make(reference_caption_events=None)], chat=chat).scores
    assert score.reference_caption_events == ("x",) and chat.batches == [2, 2]


def test_means_over_sources_and_f1_of_the_means():
    """Source a: (P, R) = (1, 0) and (1, 1), mean (1, 1/2). Source b: (0, 1). Overall (1/2, 3/4): F1 = 3/5.

    The mean over videos is (2/3, 2/3), and the mean of the sources' F1 is (2/3 + 0) / 2 = 1/3: other numbers.
    """
    scores = [
        DreamScore(
            caption_id="x",
            source=source,
            precision=precision,
            recall=recall,
            reference_caption_events=(),
            caption_events=(),
        )
        for source, precision, recall in (("a", 1.0, 0.0), ("a", 1.0, 1.0), ("b", 0.0, 1.0))
    ]
    summary = Dream1k().summarise(scores)
    assert summary.overall == PrecisionRecall(precision=1 / 2, recall=3 / 4, num=2)
    assert summary.overall.f1 == pytest.approx(3 / 5)
    assert summary.over_videos.f1 == pytest.approx(2 / 3)
    assert {source: mean.f1 for source, mean in summary.by_source.items()} == pytest.approx({"a": 2 / 3, "b": 0.0})


def test_ten_tries_and_then_unscored():
    chat = ScriptedChat(by_kind(found="no", recall="no", precision="no"))
    outcome = run_protocol(Dream1k(), [make()], chat=chat)
    assert len(chat.asked) == 10 and outcome.summary.overall is None
    assert outcome.unscored[0].caption_id == "c1" and "10 replies" in outcome.unscored[0].reason


def test_what_cannot_be_asked_or_compared_is_unscored():
    away = run_protocol(Dream1k(), [make()], chat=ScriptedChat(lambda request: NoReply(reason="503")))
    assert away.unscored[0].reason == "503"
    without = run_protocol(Dream1k(), [make(reference_caption=" ")], chat=ScriptedChat(lambda request: ""))
    assert without.unscored[0].reason == "no reference caption"


@pytest.mark.parametrize("text", [events(*map(str, range(11))), events(""), '{"events": [1]}', '{"events": "x"}', "{}"])
def test_lists_of_events_that_are_none(text):
    with pytest.raises(BadReply):
        read_events(text)


@pytest.mark.parametrize(
    "text",
    [
        relations("entailment"),
        relations("entailment", "neutral", "neutral"),
        relations("entailment", "yes"),
        '{"relations": [{"id": 1, "relation": "neutral"}, {"id": 1, "relation": "neutral"}]}',
        '{"relations": [{"id": 0, "relation": "neutral"}, {"id": 1, "relation": "neutral"}]}',
    ],
)
def test_relations_that_do_not_fit_two_events(text):
    with pytest.raises(BadReply):
        read_relations(text, num_events=2)
