#!/usr/bin/env bash
# NACLIP, ViT-B/16, no training, on all eight sets, without and with PAMR.
#
# NOT RUN HERE: it needs the data sets below DATA and a model hub. No figure of ours exists for it.
# PAMR works at the size the encoder sees; the authors refine at the original one.
#
# Published: NACLIP, ViT-B/16, mIoU in percent
#   source: table in the Trident repository (ICCV 2025)
#   protocol: standard: all classes compete, original resolution; windows of its authors
#   voc21 58.9, context60 32.2, coco-object 33.2, voc20 79.7
#   context59 35.2, coco-stuff171 23.3, cityscapes 35.5, ade150 17.4
#
# Published: NACLIP, ViT-B/16, mIoU in percent
#   source: NACLIP repository, README
#   protocol: naclip, with PAMR
#   voc21 64.07, context60 34.99, coco-object 36.19, voc20 83.03
#   context59 38.35, coco-stuff171 25.69, cityscapes 38.27, ade150 19.05
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset naclip --baseline naclip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
