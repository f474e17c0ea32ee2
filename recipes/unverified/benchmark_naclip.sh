#!/usr/bin/env bash
# NACLIP, ViT-B/16, no training, on all eight sets, without and with PAMR.
#
# Never run by us: it needs the data sets under DATA and a model hub.
# PAMR works at the size the encoder sees; the authors refine at the original one.
# Published figures: the rows "NACLIP,ViT-B/16" of src/pacl/evaluation/published.csv.
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset naclip --baseline naclip \
  --model openai/clip-vit-base-patch16 --output runs/benchmarks
