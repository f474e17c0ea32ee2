#!/usr/bin/env bash
# ProxyCLIP, ViT-B/16 with the patches of DINO ViT-B/8, no training, on all eight sets.
#
# Never run by us: it needs the data sets under DATA and a model hub.
# Published figures: the rows "ProxyCLIP,ViT-B/16" of src/pacl/evaluation/published.csv.
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset proxyclip --baseline proxyclip \
  --model openai/clip-vit-base-patch16 --proxy-tower facebook/dino-vitb8 \
  --output runs/benchmarks
