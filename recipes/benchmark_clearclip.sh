#!/usr/bin/env bash
# ClearCLIP, ViT-B/16, no training, on all eight sets.
#
# NOT RUN HERE: it needs the data sets below DATA and a model hub. No figure of ours exists for it.
#
# Published: ClearCLIP, ViT-B/16, mIoU in percent
#   source: DeCLIP paper, table 5
#   protocol: standard: all classes compete, original resolution; windows of its authors
#   voc21 51.8, context60 32.6, coco-object 33, voc20 80.9
#   context59 35.9, coco-stuff171 23.9, cityscapes 30, ade150 16.7
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline clearclip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
