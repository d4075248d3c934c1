"""Captions of a round sampled by an engine that serves the round's model, and the check that it does.

Large models are sampled by an engine in life, and learn here. The engine has to serve the weights that the round begins
with, merged or with the round's adapter; other weights would give pairs of another policy, and nothing would show it.
So on a few probes its greedy text is taken, and scored by the model here: both have to find it equally likely. That
alone lets the model of the round before pass, which differs little on the whole. So where the model here would write
another text, the first token in which they part has to be one that it finds as likely as its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from avcap.data.qa_files import VideoQuestion
from avcap.data.request import Request
from avcap.engines.captioner import EngineCaptioner, replied
from avcap.errors import MediaError, UserError
from avcap.infer.captioner import Captioner
from avcap.infer.question_answering import Answerer
from avcap.infer.settings import CaptionerSettings
from avcap.records import Decoding, Sample

NUM_PROBES = 3
TOLERANCE = 0.05
"""Nats a token: what 16-bit arithmetic and another way of decoding make of the same weights."""
NEAR_TIE = 0.25
"""Nats: two tokens that 16-bit arithmetic may take one for the other (a logit of 16 to 32 has steps of 1/8)."""
Sampler = Callable[[CaptionerSettings], EngineCaptioner]
"""Settings of a checkpoint -> the engine's captioner, which looks at as many frames and asks with the same prompts."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One probe: what the engine wrote, what the model here writes, and how likely each finds the engine's text.

    `served` None: the engine gives no log-probabilities. `lead`: how much likelier the model here finds its own next
    token, in nats, where the two texts part.
    """

    sample_id: str
    text: str
    own_text: str
    own: float
    served: float | None
    lead: float = 0.0

    @property
    def gap(self) -> float | None:
        return None if self.served is None else abs(self.own - self.served)

    @property
    def is_same(self) -> bool:
        """By log-probabilities where there are any; else the texts have to be equal, word for word."""
        return self.text == self.own_text if self.gap is None else self.gap <= TOLERANCE and self.lead <= NEAR_TIE


def check_same_weights(
    sampler: EngineCaptioner, captioner: Captioner, samples: Sequence[Sample], *, folder: str
) -> list[Probe]:
    """An engine, the model that it should serve, and samples -> what the first of these showed.

    Args:
        sampler: The engine.
        captioner: The model as it is here.
        samples: What is to be sampled; the first few are the probes.
        folder: Where the right weights are, for the message.

    Raises:
        UserError: The engine serves other weights.
    """
    answerer = Answerer(captioner)
    request = Request(decoding=Decoding(max_new_tokens=captioner.settings.max_new_tokens))
    probes = [_probe(sampler, answerer, sample, request) for sample in samples[:NUM_PROBES]]
    if wrong := [probe for probe in probes if not probe.is_same]:
        worst = max(wrong, key=lambda probe: (probe.gap or 0.0) / TOLERANCE + probe.lead / NEAR_TIE)
        what = f"it writes {worst.text[:60]!r}, the model here {worst.own_text[:60]!r}"
        if worst.gap is not None:
            what += f"; their log-probabilities of the former differ by {worst.gap:.3f} a token (expected at most "
            what += (
                f"{TOLERANCE:g}), and where they part, the model here finds its own token likelier by {worst.lead:.2f}"
            )
            what += f" (expected at most {NEAR_TIE:g})"
        raise UserError(
            f"{sampler.checkpoint}: serves other weights than {folder}: of {len(wrong)} of {len(probes)} probes, on "
            f"{worst.sample_id} {what}; load {folder} there, and run this again"
        )
    return probes


def _probe(sampler: EngineCaptioner, answerer: Answerer, sample: Sample, request: Request) -> Probe:
    """A sample -> the engine's greedy text of it, and what the model here thinks of that."""
    (clip,) = sampler.clips([sample], request)
    (own_clip,) = answerer.clips([sample], request)
    for one in (clip, own_clip):
        if isinstance(one, MediaError):
            raise one
    assert not isinstance(clip, MediaError) and not isinstance(own_clip, MediaError)
    looked = answerer.look(own_clip, sample=sample, request=request)
    prompt = sample.prompt or answerer.prompts.choose(
        interval_s=sample.interval_s, has_video=looked.seen.frames > 0, has_audio=looked.seen.audio_seconds > 0
    )
    shown = sampler.show(clip, sample=sample, request=request)
    (answer,) = sampler.engine.chat.ask([shown.request(prompt, request.decoding, logprobs=True)])
    reply = replied(answer, path=sample.video, engine=sampler.checkpoint)
    text = reply.text.strip()
    (own_reply,) = answerer.reply(looked, [prompt], max_new_tokens=request.decoding.max_new_tokens)
    question = VideoQuestion(
        question_id="probe", video=sample.video, kind="probe", text=prompt, answer=text, options=(text,)
    )
    ((own,),) = answerer.text_scores(looked, [question])
    number = max(1, len(answerer.tokenizer(text, add_special_tokens=False)["input_ids"]))
    served = sum(token.logprob for token in reply.logprobs) / number if reply.logprobs else None
    return Probe(
        sample_id=sample.sample_id,
        text=text,
        own_text=own_reply.text,
        own=own / number,
        served=served,
        lead=answerer.lead(looked, prompt, own_reply.text, over=text),
    )
