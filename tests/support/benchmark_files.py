"""Small made-up files in the forms of the benchmarks, captions for them, and a judge that knows the answers."""

import json
import re
from pathlib import Path
from typing import Any

from support.scripted_server import Body

FILES: dict[str, tuple[str, Any]] = {
    "testset-gpt": (
        "video_salmonn2_test.json",
        [
            {
                "video": f"video/{n}.mp4",
                "conversations": [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "A dog."}],
                "events": ["A dog runs", "A bell rings", "Rain falls", "A man sings"],
            }
            for n in range(2)
        ],
    ),
    "dream-1k": (
        "dream.json",
        [
            {
                "video_file": f"video/{n}.mp4",
                "video_id": f"{n}.mp4",
                "source": source,
                "description": "A dog runs. A bell rings.",
                "extra_info": {"events": ["a dog runs", "a bell rings"]},
            }
            for n, source in enumerate(("Stock", "YouTube"))
        ],
    ),
    "vdc": (
        "detailed.jsonl",
        [
            {"0": [{"question": "What runs?", "answer": "dog"}, {"question": "What rings?", "answer": "bell"}]},
            {"1": [{"question": "What falls?", "answer": "rain"}]},
        ],
    ),
    "avscapbench": (
        "OmniCaption.json",
        [
            {
                "video_id": f"{n}.mp4",
                "event": {
                    "visual_events": ["A dog runs", "A cat sleeps"],
                    "audio_events": {"speech": ["A man says hello"], "music": [], "sfx": ["A bell rings"]},
                    "synergistic_events": ["A bell rings while a dog runs"],
                },
            }
            for n in range(2)
        ],
    ),
    "omni-cloze": (
        "omni_cloze.jsonl",
        [
            {
                "uuid": f"u{n}",
                "video_path": f"videos/{n}.mp4",
                "cloze": {
                    "passage": "A (1) runs while a (2) rings and (3) falls.",
                    "blanks": [
                        {"options": {"A": "dog", "B": "cat", "C": "cow", "D": "pig"}, "answer_key": "A",
                         "required_modality": "visual"},
                        {"options": ["phone", "bell", "cup", "gong"], "answer_key": "B", "required_modality": "audio"},
                        {"answer": "rain", "distractors": ["snow", "hail", "ash"], "answer_key": "C",
                         "required_modality": "visual"},
                    ],
                },
                "metadata": {"subcategory": "animals"},
                "predicted_caption": "A dog runs. A bell rings." if n == 0 else "A cat runs.",
            }
            for n in range(2)
        ],
    ),
    "ugc-videocap": (
        "final_caption_qa.json",
        {"samples": [{"video_id": str(n), "answer": "A dog runs and a bell rings."} for n in range(2)]},
    ),
    "daily-omni-caption-qa": (
        "grouped_data.json",
        [
            {
                "video_id": str(n),
                "video_duration": "30s",
                "questions": [
                    {"Question": "What runs?", "Choice": ["A. cat", "B. dog", "C. cow", "D. pig"], "Answer": "B",
                     "Type": "Inference"},
                    {"Question": "What sings?", "Choice": ["A. man", "B. bird", "C. cow", "D. pig"], "Answer": "A",
                     "Type": "AV Event Alignment"},
                ],
            }
            for n in range(2)
        ],
    ),
    "worldsense-caption-qa": (
        "worldsense_qa.json",
        {
            str(n): {
                "video_duration": "30s",
                "task0": {"question": "What runs?", "candidates": ["A. cat", "B. dog"], "answer": "B",
                          "task_type": "x"},
                "task1": {"question": "What rings?", "candidates": ["A. bell", "B. cup"], "answer": "A",
                          "task_type": "y"},
            }
            for n in range(2)
        },
    ),
}  # fmt: skip
"""Benchmark -> (name of its file, what it holds): two videos, 0.mp4 and 1.mp4."""

CAPTIONS = ["A dog runs. A bell rings.", "A cat runs."]


def write_data(name: str, folder: Path) -> Path:
    """Benchmark -> its file in a folder."""
    file, data = FILES[name]
    path = folder / file
    lines = file.endswith(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in data) if lines else json.dumps(data), encoding="utf-8")
    return path


def write_captions(folder: Path, *, texts: list[str] = CAPTIONS, suffix: str = ".mp4") -> Path:
    """Captions of 0.mp4 and 1.mp4 as AVSCapBench and others take them."""
    path = folder / f"captions-{len(texts[0])}.jsonl"
    rows = [{"video_id": f"{n}{suffix}", "output": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- a judge that looks for words -------------------------------------------------------------------------------------


def answer(body: Body) -> str:
    """A request of any benchmark -> the reply of a judge that looks whether the caption has the words."""
    rules, asked = "".join(m["content"] for m in body["messages"][:-1]), body["messages"][-1]["content"]
    blocks = [" ".join(line[2:] for line in found.splitlines()[1:-1]).lower()
              for found in re.findall(r"<[a-z]+-[0-9a-f]{16}>\n.*?\n</[^>]+>", asked, flags=re.DOTALL)]  # fmt: skip
    text = blocks[0] if blocks else ""
    events = [
        (int(n), said.lower()) for n, said in re.findall(r"^(\d+)\. (?:\([^)]*\) )?(.*)$", asked, flags=re.MULTILINE)
    ]
    if "exactly one label" in rules:
        return _labels(events, text)
    if '"hallucination": {"count"' in rules:
        missed = [n for n, said in events if said not in text]
        return json.dumps({
            "missed": {"count": len(missed), "events": missed},
            "incorrect": {"count": 0, "events": []},
            "hallucination": {"count": 0, "claims": []},
        })  # fmt: skip
    if '"relations"' in rules:
        stated = [{"id": n, "relation": "entailment" if said in text else "neutral"} for n, said in events]
        return json.dumps({"relations": stated})
    if "key events" in rules:
        return json.dumps({"events": [said.strip() for said in text.split(".") if said.strip()]})
    if "numbered blanks" in rules:
        return json.dumps({str(n): _letter(line, text, default="E") for n, line in events if ": " in line})
    if "1 to 5 points" in rules:
        return json.dumps({"visual": 5 if "dog" in text else 2, "audio": 4 if "bell" in text else 1, "details": 3})
    if "multiple-choice" in rules:
        options = re.findall(r"^([A-Z])\. (.*)$", asked, flags=re.MULTILINE)
        return next((letter for letter, said in options if f"{said} {_verb(asked)}" in text), "N/A")
    if '"score"' in rules:
        right = re.search(r"The right answer: (.*)", asked)[1]
        return json.dumps({"correct": "yes" if right in text else "no", "score": 4 if right in text else 0})
    return text or "it does not say"  # an answer from the caption: all of it


def _verb(asked: str) -> str:
    return re.search(r"Question: What (\w+)\?", asked)[1]


def _letter(line: str, text: str, *, default: str) -> str:
    options = re.findall(r"([A-Z]): ([^;]+)", line, flags=re.IGNORECASE)
    return next((f"{letter.upper()}: {said}" for letter, said in options[:4] if said in text), default)


def _labels(events: list[tuple[int, str]], text: str) -> str:
    labels = [
        {"id": n, "label": "correct", "quote": said} if said in text else {"id": n, "label": "missing", "quote": ""}
        for n, said in events
    ]
    num = sum(one["label"] == "correct" for one in labels)
    counts = {"correct": num, "missing": len(labels) - num, "incorrect": 0, "invented": 0}
    return json.dumps({"events": labels, "invented": [], "counts": counts})
