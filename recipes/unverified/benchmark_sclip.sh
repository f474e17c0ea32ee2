#!/usr/bin/env bash
# SCLIP, ViT-B/16, no training, on all eight sets, under its own protocol.
#
# Never run by us: it needs the data sets under DATA and a model hub.
# COCO and ADE class names are written with spaces here, which moves the score.
# Published figures: the rows "SCLIP,ViT-B/16" of src/pacl/evaluation/published.csv.
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline sclip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
