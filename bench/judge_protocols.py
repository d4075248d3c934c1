"""Both protocols of judging on plain and paraphrased captions: a judge that searches for strings, behind a real server.

    python bench/judge_protocols.py [VIDEOS] > docs/judge_protocols.txt

The server's mind is a search for the words of an event in the sentence of its second. On the world's own words it finds
what is told, on paraphrases it does not: which the calibration says. Shown are that and what a caption costs.
"""

import json
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support.scripted_server import Body, Play, ScriptedServer, Stage  # noqa: E402
from support.yes_no_model import play  # noqa: E402

from avcap.judge.calibration.calibrate import calibrate  # noqa: E402
from avcap.judge.calibration.cases import make_calibration_cases, shuffled_cases  # noqa: E402
from avcap.judge.calibration.text import calibration_text  # noqa: E402
from avcap.judge.calibration.thresholds import FittedJudge  # noqa: E402
from avcap.judge.protocols.avcap1 import LLMJudge  # noqa: E402
from avcap.llm.chat import open_chat  # noqa: E402

EVENT = re.compile(r"\([^)]*?(\d+) s to \d+ s\) (.*)$", re.MULTILINE)
LINES_SHOWN = 8


def caption_of(asked: str) -> str:
    return " ".join(line[2:] for line in asked.splitlines() if line.startswith("| "))


def is_told(second: str, text: str, *, caption: str) -> bool:
    sentences = [one for one in caption.split(". ") if one.startswith(f"At {second}s ")]
    parts = [part.split() for part in text.split(" while ")]
    return any(all(set(part) <= set(one.rstrip(".").split()) for part in parts) for one in sentences)


def labels(body: Body) -> str:
    """avcap-1: a request -> the whole reply."""
    asked = body["messages"][-1]["content"]
    caption = caption_of(asked)
    told = [
        (is_told(second, text, caption=caption), text) for second, text in EVENT.findall(asked.split("\nThe capt")[0])
    ]
    first_word = caption.split()[:2]
    items = [
        {"id": n, "label": "correct" if right else "missing", "quote": " ".join(first_word) if right else ""}
        for n, (right, _) in enumerate(told, 1)
    ]
    num = sum(right for right, _ in told)
    counts = {"correct": num, "missing": len(told) - num, "incorrect": 0, "invented": 0}
    return json.dumps({"events": items, "invented": [], "counts": counts})


def doubt(question: str) -> float:
    """avcap-yesno-1: a question -> how sure the search is; statements are supported if an event has their words."""
    if "The statement:" in question:
        events, _, statement = question.rpartition("The statement:")
        second, _, said = caption_of(statement).removeprefix("At ").partition("s ")
        return (
            -3.0 if any(s == second and set(said.split()) <= set(t.split()) for s, t in EVENT.findall(events)) else 3.0
        )
    ((second, text),) = EVENT.findall(question.rpartition("The event:")[2])
    return -3.0 if is_told(second, text, caption=caption_of(question.rpartition("The event:")[0])) else 3.0


def main() -> None:
    num_videos = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for style in ("plain", "mixed"):
        cases = make_calibration_cases(num_videos=num_videos, seed=0, style=style)
        shuffled = shuffled_cases(cases)
        for protocol in ("avcap-1", "avcap-yesno-1"):
            with (
                ScriptedServer(answer=labels, script=_script) as server,
                open_chat(f"openai:search@{server.url}") as chat,
            ):
                begun_s = time.monotonic()
                fitted = FittedJudge(chat, labelled=cases) if protocol == "avcap-yesno-1" else None
                judge = fitted or LLMJudge(chat)
                if fitted is None:
                    list(judge.judge([one.case for one in cases]))
                took_s, counts = time.monotonic() - begun_s, vars(chat.counts).copy()
                found = calibrate(
                    lambda attempt, judge=judge: judge,
                    cases=cases,
                    shuffled=shuffled,
                    judge_protocol=protocol,
                    style=style,
                    thresholds=fitted.thresholds if fitted else None,
                )
            print("\n".join(calibration_text(found).splitlines()[:LINES_SHOWN]))
            of = len(cases)
            print(
                f"a caption: {counts['calls'] / of:.1f} calls, {counts['input_tokens'] / of:,.0f} tokens in, "
                f"{counts['output_tokens'] / of:,.0f} out, {took_s / of:.3f} s over loopback without a model\n"
            )


def _script(body: Body, times: int) -> Play:
    return play(doubt) if body.get("logprobs") else _reply


def _reply(stage: Stage) -> None:
    text = stage.answer(stage.body)
    num_chars = sum(len(message["content"]) for message in stage.body["messages"])
    usage = {"prompt_tokens": num_chars // 4, "completion_tokens": len(text) // 4}
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    stage.send(json.dumps({"choices": [choice], "usage": usage}).encode())


if __name__ == "__main__":
    main()
