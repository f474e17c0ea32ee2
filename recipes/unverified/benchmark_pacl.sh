#!/usr/bin/env bash
# PACL, ViT-B/16: training as the paper says, then all eight sets.
#
# Never run by us: it needs the data sets under DATA and a model hub.
# PAIRS: a table of 30 million image-caption pairs (CC3M, CC12M, YFCC15M in the paper).
# Nobody has reproduced the figures. Which protocol they were made with is unclear: hence three,
# of which `restricted` tells the model the classes in each image and is comparable with nothing.
# Published figures: the rows "PACL,ViT-B/16" of src/pacl/evaluation/published.csv.
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
PAIRS=${PAIRS:-pairs/captions.csv}
PACL=${PACL:-.venv/bin/pacl}

$PACL train --paper --data "$PAIRS" --model openai/clip-vit-base-patch16 --output runs/paper-b16
$PACL evaluate --all --root "$DATA" --preset paper --model runs/paper-b16 --output runs/benchmarks
$PACL evaluate --all --root "$DATA" --preset sclip --model runs/paper-b16 --output runs/benchmarks
$PACL evaluate --all --root "$DATA" --preset restricted --model runs/paper-b16 --output runs/benchmarks
