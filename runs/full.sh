#!/usr/bin/env bash
# The same lines at real sizes: a released-size model on your videos, with a language model as the judge.
# Not run by us: there are no weights and no GPU where avcap is made. Each command is tested at toy size.
#   SFT      the model to begin with (see docs/checkpoints.md)
#   DATA     videos to learn on, with events: JSONL of samples (docs/data.md; avcap events extract makes the events)
#   HELD     other videos, to measure on
#   QA, HELD_QA  questions about them with answers (any format of avcap evaluate-qa)
#   JUDGE    openai:MODEL@URL or local:PATH
# Stopped at any moment and started again, it goes on where it was.
set -euo pipefail
: "${SFT:?}" "${DATA:?}" "${HELD:?}" "${QA:?}" "${HELD_QA:?}" "${JUDGE:?}"
OUT=${OUT:-out/full}

avcap judge calibrate --judge "$JUDGE" --out "$OUT/judge.json"
FINAL=$(avcap rounds salmonn2_7b_rounds --model "$SFT" --data "$DATA" --held-out "$HELD" --questions "$QA" \
    --held-out-questions "$HELD_QA" --judge "$JUDGE" --calibration "$OUT/judge.json" --out "$OUT/rounds")
avcap rounds status "$OUT/rounds" --plot "$OUT/rounds.png"
avcap rebirth salmonn2_7b_rebirth --model "$SFT" --teacher "$FINAL" --data "$DATA" --questions "$QA" \
    --held-out "$HELD" --held-out-questions "$HELD_QA" --judge "$JUDGE" --out "$OUT/rebirth"
