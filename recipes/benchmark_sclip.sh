#!/usr/bin/env bash
# SCLIP, ViT-B/16, no training, on all eight sets, under its own protocol.
#
# NOT RUN HERE: it needs the data sets below DATA and a model hub. No figure of ours exists for it.
# COCO and ADE class names are written with spaces here, which moves the score.
#
# Published: SCLIP, ViT-B/16, mIoU in percent
#   source: SCLIP repository, README
#   protocol: sclip
#   voc21 59.63, context60 31.74, coco-object 33.52, voc20 81.54
#   context59 34.46, coco-stuff171 22.77, cityscapes 32.34, ade150 16.45
#
# Published: SCLIP, ViT-B/16, mIoU in percent
#   source: table in the Trident repository (ICCV 2025)
#   protocol: standard: all classes compete, original resolution; windows of its authors
#   voc21 59.1, context60 30.4, coco-object 30.5, voc20 80.4
#   context59 34.2, coco-stuff171 22.4, cityscapes 32.2, ade150 16.1
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline sclip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
