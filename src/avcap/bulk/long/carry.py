"""The prompt of a window that is told of the window before it, so that people and things keep their names. No torch."""

CARRY_PROMPT = (
    "{prompt}\n\nThe part before this one was described so, and may overlap with the beginning of this one:\n"
    "<before>{text}</before>\nTell only what happens in this part. Call people, places and things that go on by the "
    "same names, and tell again nothing that was told."
)
MOST_WORDS = 150


def carried_prompt(prompt: str, *, before: str) -> str:
    """What is asked, and the caption of the window before -> what is asked now."""
    words = before.replace("<", "(").replace(">", ")").split()
    text = ("... " if len(words) > MOST_WORDS else "") + " ".join(words[-MOST_WORDS:])
    return CARRY_PROMPT.replace("{prompt}", prompt).replace("{text}", text) if words else prompt
