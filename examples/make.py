"""Renders the example clips anew: `python examples/make.py` (needs the extra `world`). The same bytes each time.

They come from world seed 7: no training clip and no reported figure does. They were chosen for their variety, before
any model had seen them.
"""

from pathlib import Path

from avcap.records import WorldTruth, write_jsonl
from avcap.world.clip_file import write_clip
from avcap.world.make import clip_seed, clip_truth
from avcap.world.scene import make_scene

EXAMPLES = {  # name -> index in world 7, domain
    "two_bells": (261, "default"),
    "knocks": (90, "default"),
    "rain": (84, "default"),
    "telephone": (94, "unseen"),
}


def main() -> None:
    folder = Path(__file__).parent
    truths: list[WorldTruth] = []
    for name, (index, domain) in EXAMPLES.items():
        scene = make_scene(clip_seed(7, index), domain=domain)
        write_clip(folder / f"{name}.mp4", scene)
        truths.append(clip_truth(scene, clip_id=name, video=f"{name}.mp4"))
    write_jsonl(folder / "truth.jsonl", truths)


if __name__ == "__main__":
    main()
