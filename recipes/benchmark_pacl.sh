#!/usr/bin/env bash
# PACL, ViT-B/16: training as the paper says, then all eight sets.
#
# NOT RUN HERE: it needs the data sets below DATA and a model hub. No figure of ours exists for it.
# PAIRS: a table of 30 million image-caption pairs (CC3M, CC12M, YFCC15M in the paper).
# Nobody has reproduced the figures. Which protocol they were made with is unclear: hence three,
# of which `restricted` tells the model the classes in each image and compares with nothing.
#
# Published: PACL, ViT-B/16, mIoU in percent
#   source: Papers with Code, as claimed by the paper
#   protocol: unclear; never reproduced, perhaps only with the classes in the image
#   voc20 72.3, context59 50.1, coco-stuff171 38.8, ade150 31.4
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data}
PAIRS=${PAIRS:-pairs/captions.csv}
PACL=${PACL:-.venv/bin/pacl}

$PACL train --paper --data "$PAIRS" --model openai/clip-vit-base-patch16 --output runs/paper-b16
$PACL evaluate --all --root "$DATA" --preset paper --model runs/paper-b16 --output runs/benchmarks
$PACL evaluate --all --root "$DATA" --preset sclip --model runs/paper-b16 --output runs/benchmarks
$PACL evaluate --all --root "$DATA" --preset restricted --model runs/paper-b16 --output runs/benchmarks
