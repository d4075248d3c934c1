#!/usr/bin/env bash
# The shipped models from nothing, on a CPU. Stopped at any moment and started again, it goes on where it was.
# Needs avcap with the extra "world" on the PATH: pip install -e '.[world]'   (or: make train)
#
# It does not touch what is shipped. To ship what it made (the model cards, README.md, are written by hand):
#   cp out/tiny-base/checkpoint/* src/avcap/models/tiny-base/
#   cp out/tiny-sft/checkpoint/* src/avcap/models/tiny-sft/
#   python runs/ship.py out/tiny/checkpoint tiny
# and measure it before that: the lines on top of bench/tiny.py and bench/results.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export OMP_NUM_THREADS=1  # matrices this small lose more to a second thread's start than it gives

avcap train tiny_base --seed 0 --out out/base
avcap train tiny_align --seed 0 --model out/base/checkpoint --out out/tiny-base
avcap train tiny_sft --seed 0 --model out/tiny-base/checkpoint --out out/tiny-sft

# The model from before the rounds learns what the best round says.
avcap rounds tiny_rounds --seed 0 --model out/tiny-sft/checkpoint --out out/tiny-rounds | tee out/tiny-rounds.best
avcap rebirth tiny_rebirth --seed 0 --model out/tiny-sft/checkpoint --teacher "$(cat out/tiny-rounds.best)" --out out/tiny
