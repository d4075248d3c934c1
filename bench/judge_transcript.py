"""The whole path of an LLM judge as a user walks it, against a scripted server that answers as language models do.

    python bench/judge_transcript.py > docs/judge_transcript.txt

It evaluates what the shipped model says of the four example videos. The server matches words, so its verdicts are those
of a simple mind; it answers one caption plainly, one wrapped in chatter, one wrongly first, and one it refuses.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support.scripted_server import ScriptedServer  # noqa: E402

EVENT = re.compile(r"^(\d+)\. \([^)]*\) (.*)$", flags=re.MULTILINE)
MANNERS: list[str] = []  # by caption, in the order in which they are first asked about
PLAIN, CHATTY, HASTY, SHY = "plain", "chatty", "hasty", "shy"


def answer(body: dict) -> str:
    """A request -> the reply of a model that looks for an event's words in the caption."""
    asked = body["messages"][-1]["content"]
    caption = " ".join(line.lstrip("| ") for line in asked.splitlines() if line.startswith("|"))
    manner = manner_of(caption)
    if manner == SHY:
        return "I'm sorry, but I cannot help with that."
    verdict = json.dumps(judge(EVENT.findall(asked), caption=caption, hasty=manner == HASTY))
    if manner == CHATTY:
        return f"Let me go through the events one by one.\n\n```json\n{verdict}\n```\n\nI hope this helps!"
    return verdict


def manner_of(caption: str) -> str:
    """Caption -> how it is answered; a hasty answer is mended when it is asked for again."""
    if caption in MANNERS:
        number = MANNERS.index(caption)
        return SHY if number == 3 else PLAIN
    MANNERS.append(caption)
    return (PLAIN, CHATTY, HASTY, SHY)[(len(MANNERS) - 1) % 4]


def judge(events: list[tuple[str, str]], *, caption: str, hasty: bool) -> dict:
    found = [(int(number), text if text in caption else "") for number, text in events]
    labels = [{"id": number, "label": "correct" if quote else "missing", "quote": quote} for number, quote in found]
    counts = {name: sum(label["label"] == name for label in labels) for name in ("correct", "missing", "incorrect")}
    if hasty:
        counts["missing"] += 1  # counts that are not those of the list
    return {"events": labels, "invented": [], "counts": counts | {"invented": 0}}


def show(*words: str, environment: dict[str, str], folder: Path) -> None:
    print(f"$ avcap {' '.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "avcap", *words], env=environment, cwd=folder, capture_output=True, text=True
    )
    print(f"{done.stderr}{done.stdout}[exit code {done.returncode}]\n", flush=True)


def main() -> None:
    paths = {"PYTHONPATH": str(ROOT / "src"), "OPENAI_API_KEY": "not-a-real-key"}
    environment = os.environ | paths
    with tempfile.TemporaryDirectory() as name, ScriptedServer(answer=answer) as server:
        folder = Path(name)
        (folder / "examples").symlink_to(ROOT / "examples")
        judge_spec = f"openai:gpt-4.1@{server.url}"
        evaluate = (
            "evaluate",
            "captions.jsonl",
            "--truth",
            "examples/truth.jsonl",
            "--judge",
            judge_spec,
            "--concurrency",
            "1",  # so that it is the same every time
        )
        show("caption", "examples", "--out", "captions.jsonl", environment=environment, folder=folder)
        show(*evaluate, "--out", "report", "--dry-run", environment=environment, folder=folder)
        show(*evaluate, "--out", "report", environment=environment, folder=folder)
        show(*evaluate, "--out", "report", "--max-unscored", "0.3", environment=environment, folder=folder)
        print(f"The server was asked {len(server.calls)} times in all.")
        print("What it was asked first:\n")
        for message in server.calls[0].body["messages"]:
            print(f"--- {message['role']}\n{message['content']}\n")


if __name__ == "__main__":
    main()
