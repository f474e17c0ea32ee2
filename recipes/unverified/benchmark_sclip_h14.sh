#!/usr/bin/env bash
# SCLIP on a ViT-H/14, no training, on all eight sets.
#
# Never run by us: it needs the data sets under DATA and a model hub.
# Which weights the source's table used is not known; these are LAION-2B's.
# Published figures: the rows "SCLIP,ViT-H/14" of src/pacl/evaluation/published.csv.
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate --all --root "$DATA" --preset sclip --baseline sclip \
  --model laion/CLIP-ViT-H-14-laion2B-s32B-b79K --output runs/benchmarks
