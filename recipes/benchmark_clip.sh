#!/usr/bin/env bash
# CLIP's own patch tokens, ViT-B/16, no training, on all eight sets.
#
# NOT RUN HERE: it needs the data sets below DATA and a model hub. No figure of ours exists for it.
#
# Published: CLIP, ViT-B/16, mIoU in percent
#   source: table in the Trident repository (ICCV 2025)
#   protocol: standard: all classes compete, original resolution; windows of its authors
#   voc21 16.4, context60 8.4, coco-object 5.6, voc20 41.9
#   context59 9.2, coco-stuff171 4.4, cityscapes 5, ade150 2.9
#
# Published: CLIP, ViT-B/16, mIoU in percent
#   source: DeCLIP paper, table 5
#   protocol: standard: all classes compete, original resolution; windows of its authors
#   voc21 18.8, context60 9.9, coco-object 8.1, voc20 49.4
#   context59 11.1, coco-stuff171 5.7, cityscapes 6.5, ade150 3.1
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline clip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
