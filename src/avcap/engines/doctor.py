"""What `avcap doctor openai:NAME@URL` finds out: what an engine takes, whether audio arrives, several answers,
log-probabilities, limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from avcap.engines.dialect import Dialect
from avcap.engines.engine import Engine, asker
from avcap.engines.findings import Findings, Proof
from avcap.engines.proof import COUNT_PROMPT, COUNT_TOKENS
from avcap.errors import UserError
from avcap.llm.types import ChatRequest, Message, NoReply, Reply

NUM_ANSWERS = 2
TOP_LOGPROBS = 5


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """`lines`: (what, finding), to be printed; `problems`: what keeps videos from being captioned as they should."""

    lines: Sequence[tuple[str, str]]
    problems: Sequence[str]


def examine_engine(engine: Engine) -> EngineReport:
    """An engine -> what it is and takes; everything is asked anew, in about eleven short requests."""
    problems = []
    use_video = True
    try:
        found = engine.find_out(use_video=True)
        video = found.frames_because and f"frames: it refuses its dialect's form ({found.frames_because})"
    except UserError as error:
        use_video = False
        problems.append(str(error))
        found, video = engine.find_out(use_video=False), "refused"
    dialect = engine.known_dialect(found)
    lines = [
        ("dialect", f"{found.dialect} ({dialect.title}): {found.how}"),
        ("video", video or f"{dialect.video_form}: taken"),
        ("audio", _audio_line(found.audio, dialect)),
        *_abilities(engine),
        ("limits", _limits(dialect, found)),
    ]
    if found.audio.arrival == "dropped":
        problems.append(f"{engine.name}: audio does not reach the model")
    if use_video and found.frames_because:
        lines.append(("try", "?dialect=frames says the same without asking"))
    return EngineReport(lines=lines, problems=problems)


def _audio_line(proof: Proof, dialect: Dialect) -> str:
    form = "refused" if proof.is_refused else f"{dialect.audio_form}: {proof.arrival}"
    return f"{form}; {proof.why}"


def _abilities(engine: Engine) -> list[tuple[str, str]]:
    """Whether it gives several answers to one request, and log-probabilities."""
    message = Message(role="user", content=COUNT_PROMPT)
    streaming = {name: value for name, value in engine.fixed_options().items() if name.startswith("stream")}

    def asked(**options: object) -> ChatRequest:
        return ChatRequest(
            messages=(message,), max_tokens=COUNT_TOKENS, temperature=1.0, options={**streaming, **options}
        )

    with engine.probing() as chat:
        ask = asker(chat)
        several = ask(asked(n=NUM_ANSWERS))
        scored = ask(asked(logprobs=True, top_logprobs=TOP_LOGPROBS))
        left_out = [part for part in chat.dropped if part not in ("n", "logprobs", "top_logprobs")]
    return [
        ("n", _several(several)),
        ("log-probs", _scored(scored)),
        ("left out", ", ".join(left_out) or "nothing"),
    ]


def _several(answer: Reply | NoReply) -> str:
    if isinstance(answer, NoReply):
        return f"not known: {answer.reason}"
    if len(answer.choices) == NUM_ANSWERS:
        return f"{NUM_ANSWERS} answers to one request"
    return "one answer to a request: several are asked for one by one"


def _scored(answer: Reply | NoReply) -> str:
    if isinstance(answer, NoReply):
        return f"not known: {answer.reason}"
    if not answer.logprobs:
        return "none: questions are answered in words alone"
    return f"of each token, with the {len(answer.logprobs[0].top)} likeliest"


def _limits(dialect: Dialect, found: Findings) -> str:
    limits = dialect.limits
    known = [
        f"{dialect.max_frames} frames, {dialect.fps:g} a second, of {dialect.max_pixels:,} pixels",
        *([f"{found.context_tokens:,} tokens of prompt and answer"] if found.context_tokens else []),
        *([f"{limits.part_base64_bytes / 1e6:g} MB a part"] if limits.part_base64_bytes else []),
        *([f"{limits.seconds:g} s"] if limits.seconds else []),
    ]
    return ", ".join(known)
