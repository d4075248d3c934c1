"""What --model takes, in the words of the help of each command that has it."""

WEIGHTS = "a tiny model (avcap models), a checkpoint folder, or org/name on the hub"
"""Where the weights are needed."""
ANY_MODEL = "a tiny model (avcap models), a checkpoint folder, org/name on the hub, or openai:NAME@URL"
"""Where texts are enough: behind an engine, too."""
