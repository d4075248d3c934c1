"""How long does an evaluation take that has its verdicts already, and is the oracle exact?

    python bench/evaluate.py [--scenes 2000]

Prints: time and peak memory of `avcap evaluate` on 16,541 events of 483 videos (the sizes of the published test set,
with made-up text), from a file of verdicts and from a warm cache of replies; the oracle's errors on true captions; and
how often it finds exactly the errors that were planted in captions, 1 to 5 of them, by kind.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from support.scripted_server import Body, ScriptedServer

from avcap.judge.metrics.error_counts import count_errors
from avcap.world.describe import reference_caption
from avcap.world.oracle import PlantedError, corrupt, judge_caption
from avcap.world.scene import Scene, make_scene

NUM_EVENTS, NUM_VIDEOS, WORDS_PER_CAPTION = 16_541, 483, 605
WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "mo", "ne", "ra", "su") for b in ("ber", "den", "gol", "min")]
FIRST_SEED = 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_warm(Path(folder))
    scenes = [make_scene(FIRST_SEED + i) for i in range(arguments.scenes)]
    measure_truth(scenes)
    measure_planted(scenes)


# --- a warm evaluation ------------------------------------------------------------------------------------------------


def measure_warm(folder: Path) -> None:
    """Prints time and memory of the first run, of one with the verdicts of the first, and of one with its replies."""
    write_test_set(folder)
    with ScriptedServer(answer=answer_like_a_judge) as server:
        command = [
            sys.executable,
            "-m",
            "avcap",
            "evaluate",
            "captions.json",
            "--truth",
            "truth.json",
            "--out",
            "report",
            "--judge",
            f"openai:scripted@{server.url}",
            "--cache",
            "replies.sqlite",
        ]
        run("cold, from a scripted server", command, folder=folder)
        num_calls = len(server.calls)
        run("warm, from the verdicts", command, folder=folder)
        for path in (folder / "report").iterdir():
            path.unlink()
        run("warm, from the cache of replies", command, folder=folder)
        print(f"calls to the server: {num_calls} when cold, {len(server.calls) - num_calls} when warm")


def write_test_set(folder: Path) -> None:
    """Made-up events and captions: three quarters of the events stand in the caption."""
    rng = random.Random(0)
    truth, captions = [], []
    for video in range(NUM_VIDEOS):
        num_events = NUM_EVENTS // NUM_VIDEOS + (video < NUM_EVENTS % NUM_VIDEOS)
        events = [" ".join(rng.choices(WORDS, k=9)) for _ in range(num_events)]
        told = [event for event in events if rng.random() < 0.75]
        filler = rng.choices(WORDS, k=max(0, WORDS_PER_CAPTION - 9 * len(told)))
        truth.append({"video": f"video/{video}.mp4", "events": events})
        captions.append({"video": f"video/{video}.mp4", "pred": ". ".join([*told, " ".join(filler)])})
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")


def answer_like_a_judge(body: Body) -> str:
    """What a judge that reads word by word would reply: an event is correct if it stands in the caption."""
    text = body["messages"][-1]["content"]
    listed, _, caption = text.partition("The caption of the whole video:")
    words = " ".join(caption.split())
    labels = []
    for line in listed.splitlines():
        number, _, event = line.partition(". ")
        if number.isdigit():
            found = event in words
            labels.append({"id": int(number), "label": "correct" if found else "missing", "quote": event * found})
    counts = Counter(label["label"] for label in labels)
    numbers = {name: counts[name] for name in ("correct", "missing", "incorrect")}
    return json.dumps({"events": labels, "invented": [], "counts": {**numbers, "invented": 0}})


def run(what: str, command: list[str], *, folder: Path) -> None:
    """Runs a command and prints its wall time, its processor time and its peak memory."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    assert status == 0, f"{what}: exit status {status}"
    print(
        f"{what}: {seconds:.1f} s, of which {usage.ru_utime + usage.ru_stime:.1f} s on a processor; "
        f"peak {usage.ru_maxrss / 1024:.0f} MB; {out.splitlines()[-1]}",
        flush=True,
    )


# --- the oracle -------------------------------------------------------------------------------------------------------


def measure_truth(scenes: list[Scene]) -> None:
    counts = [count_errors(judge_caption(reference_caption(scene), truth=scene)) for scene in scenes]
    print(
        f"true captions of {len(scenes)} scenes, {sum(count.num_events for count in counts)} events: "
        f"{sum(count.missing for count in counts)} missing, {sum(count.incorrect for count in counts)} incorrect, "
        f"{sum(count.invented for count in counts)} invented, {sum(count.repeated for count in counts)} repeated"
    )


def measure_planted(scenes: list[Scene]) -> None:
    """Prints, for 1 to 5 planted errors, how many captions are judged exactly, and how many errors of each kind."""
    for k in range(1, 6):
        num_exact = num_captions = 0
        kinds: Counter[str] = Counter()
        for scene in scenes:
            caption = reference_caption(scene)
            try:
                text, planted = corrupt(caption, k, rng=random.Random(f"{scene.seed}/{k}"))
            except ValueError:  # it tells of fewer than k seconds
                continue
            num_captions += 1
            num_exact += is_exact(text, planted, scene=scene)
            kinds.update(error.kind for error in planted)
        by_kind = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        print(f"{k} planted: {num_exact} of {num_captions} captions exact ({by_kind})", flush=True)


def is_exact(text: str, planted: tuple[PlantedError, ...], *, scene: Scene) -> bool:
    """Whether the oracle finds these errors, these events, and nothing else."""
    verdict = judge_caption(text, truth=scene)
    missing = {event.event_id for event in verdict.events if event.label == "missing"}
    incorrect = {event.event_id for event in verdict.events if event.label == "incorrect"}
    return (
        missing == {event_id for error in planted for event_id in error.missing}
        and incorrect == {event_id for error in planted for event_id in error.incorrect}
        and len(verdict.invented) == sum(error.num_invented for error in planted)
        and len(verdict.repeated) == sum(error.num_repeated for error in planted)
    )


if __name__ == "__main__":
    main()
