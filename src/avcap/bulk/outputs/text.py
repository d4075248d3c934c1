"""Side-cars: clip.txt with the caption and nothing else, as most trainers read them. No torch.

No line's end after the caption: some readers keep it. SimpleTuner takes each line for another caption, so there it is
one line; ai-toolkit puts its trigger word in front unless it stands in the caption already.
"""

from dataclasses import replace

from avcap.bulk.outputs.clips import SideCar

TEXT = SideCar(suffix=".txt")
AI_TOOLKIT = SideCar(suffix=".txt", reader="ai-toolkit")
SIMPLETUNER = SideCar(
    suffix=".txt",
    wording=lambda wording: replace(wording, one_line=True),
    reader="SimpleTuner (caption_strategy textfile)",
)
