#!/usr/bin/env bash
# Zero-shot classification, ViT-B/16, on all twelve sets: CLIP, PACL and their fusion.
#
# Never run by us: it needs the data sets under DATA and a model hub.
# MODEL: a run of `pacl train`, such as the one of recipes/unverified/benchmark_pacl.sh.
#
# Published: unknown. The paper classifies on 12 sets against CLIP; which sets, class names and
# templates is not known to us, so no figure of it can be expected here (docs/classification.md).
set -euo pipefail
cd "$(dirname "$0")/../.."
DATA=${DATA:-data}
MODEL=${MODEL:-runs/paper-b16}
PACL=${PACL:-.venv/bin/pacl}

$PACL evaluate imagenet imagenet-a imagenet-r imagenet-v2 caltech101 cifar10 cifar100 \
  food101 flowers102 pets cars dtd --root "$DATA" --model "$MODEL" --batch-size 64 \
  --output runs/classification
