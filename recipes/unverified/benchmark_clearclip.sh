#!/usr/bin/env bash
# ClearCLIP, ViT-B/16, no training, on all eight sets.
#
# Never run by us: it needs the data sets under DATA and a model hub.
# Published figures: the rows "ClearCLIP,ViT-B/16" of src/pacl/evaluation/published.csv.
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline clearclip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
