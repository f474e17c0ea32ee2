#!/usr/bin/env bash
# SCLIP on a ViT-H/14, no training, on all eight sets.
#
# NOT RUN HERE: it needs the data sets below DATA and a model hub. No figure of ours exists for it.
# Which weights the source's table used is not known; these are LAION-2B's.
#
# Published: SCLIP, ViT-H/14, mIoU in percent
#   source: table in the Trident repository (ICCV 2025)
#   protocol: standard: all classes compete, original resolution; windows of its authors
#   voc21 43.8, context60 23.5, coco-object 24.6, voc20 67.5
#   context59 25.6, coco-stuff171 16.8, cityscapes 19.5, ade150 11.3
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline sclip \
  --model laion/CLIP-ViT-H-14-laion2B-s32B-b79K --output runs/benchmarks
