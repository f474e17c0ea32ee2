#!/usr/bin/env bash
# The embedded model, models/storybook, from nothing: a world, a CLIP, a PACL embedder.
#
#   recipes/storybook.sh              on a CPU: 87 minutes in all, on one thread beside other work
#   STEPS=6000 BATCH=512 recipes/storybook.sh      on a GPU; not run yet
#
# Deterministic on one machine; another CPU or GPU rounds differently and makes another model of
# like quality. If interrupted, run it again: it resumes. docs/log.md has the loss and the scores.
set -euo pipefail
cd "$(dirname "$0")/.."
WORK=${WORK:-runs/storybook-recipe}
STEPS=${STEPS:-5600}
BATCH=${BATCH:-64}
PICTURES=${PICTURES:-24000}
PYTHON=${PYTHON:-.venv/bin/python}
PACL=${PACL:-.venv/bin/pacl}

$PYTHON - "$WORK/world" "$PICTURES" <<'PY'
import sys
from pathlib import Path
from pacl.data.storybook import draw_storybook

draw_storybook(Path(sys.argv[1]), counts={"train": int(sys.argv[2]), "validation": 300}, seed=0)
PY
$PYTHON recipes/storybook_clip.py "$WORK/world/train/captions.csv" "$WORK/untrained"
$PACL train --objective clip --trainable all \
  --model "$WORK/untrained" --data "$WORK/world/train" --output "$WORK/clip" \
  --batch-size "$BATCH" --steps "$STEPS" --lr 1e-3 --wd 0.1 --warmup 100 --noun-weight 1 \
  --augment flip --keep-patches 0.35 --precision bf16 --checkpoint-every 100
$PYTHON - "$WORK/clip/last" models/storybook <<'PY'
import sys
import torch
from pacl import HfClip

HfClip.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2], dtype=torch.float16)
PY
$PACL train --model models/storybook --data "$WORK/world/train" \
  --output "$WORK/pacl" --batch-size 64 --lr 3e-3 --epochs 3
mkdir -p models/storybook/pacl
cp "$WORK"/pacl/last/config.json "$WORK"/pacl/last/embedder.safetensors models/storybook/pacl/
