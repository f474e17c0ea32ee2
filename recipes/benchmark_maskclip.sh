#!/usr/bin/env bash
# MaskCLIP, ViT-B/16, no training, on all eight sets.
#
# NOT RUN HERE: it needs the data sets below DATA and a model hub. No figure of ours exists for it.
# The windows are SCLIP's: those of the source's table are not known.
#
# Published: MaskCLIP, ViT-B/16, mIoU in percent
#   source: table in the Trident repository (ICCV 2025)
#   protocol: standard: all classes compete, original resolution; windows of its authors
#   voc21 43.4, context60 23.2, coco-object 20.6, voc20 74.9
#   context59 26.4, coco-stuff171 16.7, cityscapes 24.9, ade150 11.9
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline maskclip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
