"""One door for all text that users give: lists, JSON, JSONL, CSV, YAML. Bounded, and refused rather than guessed."""
