#!/usr/bin/env bash
# PACL on DINOv2-B/14 with registers and the texts of CLIP ViT-B/16, trained on COCO captions.
#
# Never run by us: it needs a model hub, COCO and the benchmarks under DATA.
# Data: DATA/coco/train2017 and annotations/captions_train2017.json (118,287 images).
# Tokens: 16 x 16 at 224 px, 256 x 768 x 2 bytes = 384 KiB an image, 46 GB for all of them.
# Time by arithmetic: 118,287 images x 47 GFLOP = 5.6 PFLOP to encode once, a minute at 100 TFLOP/s
# and in practice as long as the JPEGs take to decode (463 a second and core: 4 minutes on 1 core);
# 10 passes of the trained block over 118,287 x 256 tokens x 2 MFLOP x 3: 1.8 PFLOP.
# To beat: Talk2DINO's mean of eight sets, 46.3 (src/pacl/evaluation/published.csv).
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL train --data "$DATA/coco/annotations/captions_train2017.json" \
  --vision facebook/dinov2-with-registers-base --text openai/clip-vit-base-patch16 \
  --head vision --epochs 10 --batch-size 4096 --cache disk --output runs/dinov2_clip_text
$PACL evaluate --all --root "$DATA" --preset sclip --model runs/dinov2_clip_text \
  --output runs/benchmarks
