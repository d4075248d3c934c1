"""Questions about videos are asked of a model: what `avcap evaluate-qa` runs.

OUT/run.json       what was asked, and of whom
OUT/answers.jsonl  one Answer or AnswerError a line; a stopped run goes on with what is missing
OUT/metrics.json   accuracy by kind with intervals over videos, chance, letter bias, and what has no answer
"""

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avcap.captioners import Answerer, LookedAt, open_answerer
from avcap.data.qa_files import QuestionSet, VideoQuestion, letters_prompt
from avcap.data.request import Request
from avcap.errors import MediaError, RunError, UserError
from avcap.files.claim import claim
from avcap.files.journal import Journal, LineFormat
from avcap.files.lock import lock_folder
from avcap.files.write import write_json
from avcap.judge.metrics.answers import (
    Answer,
    AnswerError,
    Method,
    QaMetrics,
    Scoring,
    compute_qa_metrics,
    is_right,
    qa_metrics_to_dict,
    read_text,
)
from avcap.judge.metrics.letters import read_letter
from avcap.media.clip import Clip
from avcap.records import Decoding, Sample, from_json, line_format, to_json

if TYPE_CHECKING:
    from avcap.captioners import AnyCaptioner

METHODS: tuple[Method, ...] = ("generate", "logprobs")


@dataclass(frozen=True, kw_only=True)
class QaConfig:
    """How questions are asked. `rotate`: every multiple-choice question in all cyclic orders of its options."""

    methods: tuple[Method, ...] = METHODS
    use_audio: bool = True
    use_video: bool = True
    rotate: bool = False
    max_new_tokens: int = 32


Row = Answer | AnswerError
Ask = Callable[[LookedAt, list[VideoQuestion]], Iterator[Answer]]


def evaluate_qa(
    captioner: "AnyCaptioner",
    questions: QuestionSet,
    *,
    config: QaConfig,
    out_dir: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QaMetrics:
    """A model and questions -> figures, and the files above. `progress(done, total)`: questions, after each video."""
    answerer = open_answerer(captioner)
    scoring: Scoring = "letters" if answerer.knows_letters else "texts"
    if config.rotate and scoring == "texts":
        raise UserError(
            f"got --rotate for {answerer.checkpoint}, which is shown no options (its vocabulary has no letters), so "
            "their order cannot matter; leave it out"
        )
    run = {"model": answerer.checkpoint, "format": questions.format, **asdict(config)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_folder(out_dir))
        claim(out_dir, "run.json", run)
        lines = stack.enter_context(Journal(out_dir / "answers.jsonl", ROWS))
        rows = _take_up(lines)
        todo = _without_answer(questions.questions, rows, config=config)
        num_done = len(questions.questions) - len(todo)
        for number, found in _ask_all(answerer, todo, config=config, scoring=scoring):
            lines.append(found)
            rows += found
            num_done += number
            progress(num_done, len(questions.questions))
        metrics = _metrics(questions, rows, scoring=scoring)
        write_json(out_dir / "metrics.json", qa_metrics_to_dict(metrics))
    return metrics


def _metrics(questions: QuestionSet, rows: list[Row], *, scoring: Scoring) -> QaMetrics:
    known = {question.question_id for question in questions.questions}
    unanswered = {f"{problem.question_id}": problem.reason for problem in questions.problems}
    unanswered |= {row.question_id: row.error for row in rows if isinstance(row, AnswerError)}
    # a stopped run may have written a part of a video's answers, and asked for all of them again
    answers = {
        (row.question_id, row.method, row.rotation): row
        for row in rows
        if isinstance(row, Answer) and row.question_id in known
    }
    return compute_qa_metrics(
        questions.questions,
        answers.values(),
        scoring=scoring,
        unanswered=unanswered,
        is_world=questions.format == "world",
    )


# --- asking -----------------------------------------------------------------------------------------------------------


def _ask_all(
    answerer: Answerer, todo: list[VideoQuestion], *, config: QaConfig, scoring: Scoring
) -> Iterator[tuple[int, list[Row]]]:
    """Questions -> for each video, or interval of one: how many were asked about it, and all rows of them."""
    groups: dict[tuple[str, tuple[float, float] | None], list[VideoQuestion]] = {}
    for question in todo:
        groups.setdefault((question.video, question.interval_s), []).append(question)
    request = Request(
        decoding=Decoding(max_new_tokens=config.max_new_tokens),
        use_audio=config.use_audio,
        use_video=config.use_video,
    )
    samples = [Sample(sample_id=video, video=video, prompt="", interval_s=part) for video, part in groups]
    clips = zip(samples, answerer.clips(samples, request), groups.values(), strict=True)

    def ask(sample: Sample, clip: Clip | MediaError, asked: list[VideoQuestion]) -> tuple[int, list[Row]]:
        rows = ask_about_clip(answerer, clip, asked, sample=sample, request=request, config=config, scoring=scoring)
        return len(asked), rows

    if answerer.at_once == 1:
        yield from (ask(*one) for one in clips)
    else:
        yield from _several_at_once(ask, clips, at_once=answerer.at_once)


def _several_at_once(
    ask: Callable[..., tuple[int, list[Row]]],
    clips: Iterable[tuple[Sample, Clip | MediaError, list[VideoQuestion]]],
    *,
    at_once: int,
) -> Iterator[tuple[int, list[Row]]]:
    """Clips with their questions -> the same rows, in order, while so many clips are asked about: an engine waits."""
    under_way: deque[Future[tuple[int, list[Row]]]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="questions") as threads:
        for one in clips:
            under_way.append(threads.submit(ask, *one))
            while under_way and (under_way[0].done() or len(under_way) > at_once):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def ask_about_clip(
    answerer: Answerer,
    clip: Clip | MediaError,
    asked: list[VideoQuestion],
    *,
    sample: Sample,
    request: Request,
    config: QaConfig,
    scoring: Scoring,
) -> list[Row]:
    """A decoded clip and the questions about it -> their answers, or an error for each question."""
    try:
        if isinstance(clip, MediaError):
            raise clip
        looked = answerer.look(clip, sample=sample, request=request)
    except RunError:
        raise
    except UserError as error:
        return _errors(asked, error)
    # an engine may fail at one question, and the others are answered still; a model here takes all in one go
    groups = [asked] if answerer.at_once == 1 else [[question] for question in asked]
    rows: list[Row] = []
    for group in groups:
        try:
            rows += _ask_about(answerer, looked, group, config=config, scoring=scoring)
        except UserError as error:
            rows += _errors(group, error)
    return rows


def _errors(asked: list[VideoQuestion], error: UserError) -> list[Row]:
    return [AnswerError(question_id=one.question_id, video=one.video, error=str(error)) for one in asked]


def _ask_about(
    answerer: Answerer, looked: LookedAt, asked: list[VideoQuestion], *, config: QaConfig, scoring: Scoring
) -> list[Row]:
    """A clip that the model was shown and the questions about it -> their answers, by each method."""
    ask: dict[tuple[Method, Scoring], Ask] = {
        ("generate", "letters"): lambda looked, qs: _write_letters(answerer, looked, qs, config=config),
        ("generate", "texts"): lambda looked, qs: _write_texts(answerer, looked, qs, config=config),
        ("logprobs", "letters"): lambda looked, qs: _score_letters(answerer, looked, qs, config=config),
        ("logprobs", "texts"): lambda looked, qs: _score_texts(answerer, looked, qs),
    }
    rows: list[Row] = []
    for method in config.methods:
        rows += ask[method, scoring](looked, asked)
    return rows


def _write_letters(
    answerer: Answerer, looked: LookedAt, asked: list[VideoQuestion], *, config: QaConfig
) -> Iterator[Answer]:
    """Options are shown and a letter is asked for; questions without options are answered in words."""
    turned = _turned([question for question in asked if question.options], rotate=config.rotate)
    prompts = [letters_prompt(shown) for _, shown, _ in turned]
    replies = answerer.reply(looked, prompts, max_new_tokens=config.max_new_tokens)
    for (question, shown, rotation), prompt, reply in zip(turned, prompts, replies, strict=True):
        choice = read_letter(reply.text, shown.options)
        yield _choice_answer(
            answerer, question, method="generate", rotation=rotation, choice=choice, text=reply.text, prompt=prompt
        )
    yield from _write_texts(answerer, looked, [question for question in asked if not question.options], config=config)


def _score_letters(
    answerer: Answerer, looked: LookedAt, asked: list[VideoQuestion], *, config: QaConfig
) -> Iterator[Answer]:
    turned = _turned([question for question in asked if question.options], rotate=config.rotate)
    all_scores = answerer.letter_scores(looked, [shown for _, shown, _ in turned])
    for (question, shown, rotation), scores in zip(turned, all_scores, strict=True):
        yield _choice_answer(
            answerer,
            question,
            method="logprobs",
            rotation=rotation,
            choice=_likeliest(scores),
            scores=scores,
            prompt=letters_prompt(shown),
        )


def _likeliest(scores: list[float]) -> int | None:
    """Scores of options -> the index of the best; None where the model answers with no letter."""
    return scores.index(max(scores)) if scores else None


def _write_texts(
    answerer: Answerer, looked: LookedAt, asked: list[VideoQuestion], *, config: QaConfig
) -> Iterator[Answer]:
    """The question alone is asked, and its answer is wanted in words; right is what says the right option."""
    replies = answerer.reply(looked, [question.text for question in asked], max_new_tokens=config.max_new_tokens)
    for question, reply in zip(asked, replies, strict=True):
        choice = read_text(reply.text, question)
        yield Answer(
            question_id=question.question_id,
            video=question.video,
            method="generate",
            text=reply.text,
            is_right=is_right(reply.text, question),
            choice=choice,
            shown_choice=choice,
            unknown_words=answerer.count_unknown_words(question.text),
        )


def _score_texts(answerer: Answerer, looked: LookedAt, asked: list[VideoQuestion]) -> Iterator[Answer]:
    """The question alone is asked; the option is chosen whose text is the likeliest answer."""
    with_options = [question for question in asked if question.options]
    for question, scores in zip(with_options, answerer.text_scores(looked, with_options), strict=True):
        yield _choice_answer(
            answerer,
            question,
            method="logprobs",
            rotation=0,
            choice=scores.index(max(scores)),
            scores=scores,
            prompt=question.text,
        )


def _turned(asked: list[VideoQuestion], *, rotate: bool) -> list[tuple[VideoQuestion, VideoQuestion, int]]:
    """Questions -> (question, the same as it is shown, by how many places its options are turned)."""
    return [
        (question, replace(question, options=question.options[rotation:] + question.options[:rotation]), rotation)
        for question in asked
        for rotation in range(len(question.options) if rotate else 1)
    ]


def _choice_answer(
    answerer: Answerer,
    question: VideoQuestion,
    *,
    method: Method,
    rotation: int,
    choice: int | None,
    prompt: str,
    text: str = "",
    scores: list[float] | None = None,
) -> Answer:
    """`choice` and `scores` in the order shown -> an Answer in the file's order."""
    number = len(question.options)
    meant = None if choice is None else (choice + rotation) % number
    in_order = scores and [scores[(index - rotation) % number] for index in range(number)]
    return Answer(
        question_id=question.question_id,
        video=question.video,
        method=method,
        text=text,
        choice=meant,
        shown_choice=choice,
        rotation=rotation,
        is_right=meant is not None and meant == question.answer_index,
        scores=tuple(round(score, 4) for score in in_order or ()),
        unknown_words=answerer.count_unknown_words(prompt),
    )


# --- files ------------------------------------------------------------------------------------------------------------


def _row(line: str) -> Row:
    data = json.loads(line)
    if isinstance(data, dict) and "error" in data:
        return from_json(line, AnswerError)
    return from_json(line, Answer)


ROWS = LineFormat[Row](
    what="answer", parse=_row, dump=to_json, starts=(*line_format(Answer).starts, *line_format(AnswerError).starts)
)


def _take_up(lines: Journal[Row]) -> list[Row]:
    """What an earlier run left -> its answers; errors are left out, so that they are tried again."""
    old = list(lines.read())
    answers: list[Row] = [row for row in old if isinstance(row, Answer)]
    if len(answers) < len(old):
        lines.rewrite(answers)
    return answers


def _without_answer(questions: tuple[VideoQuestion, ...], rows: list[Row], *, config: QaConfig) -> list[VideoQuestion]:
    """Questions that lack an answer by some method, or in some order of their options."""
    done = {(row.question_id, row.method, row.rotation) for row in rows if isinstance(row, Answer)}
    return [
        question
        for question in questions
        if any(
            (question.question_id, method, rotation) not in done
            for method in config.methods
            if method == "generate" or question.options
            for rotation in range(max(1, len(question.options)) if config.rotate else 1)
        )
    ]
