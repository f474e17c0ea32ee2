#!/usr/bin/env bash
# The three benchmarks on one NVIDIA GPU, in at most 8 minutes; then docs/performance.md anew.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
results=benchmarks/results
mkdir -p "$results"
timeout 270 "$python" benchmarks/loss.py --device cuda --dtype bfloat16 \
  --batch 256 1024 4096 16384 --rounds 20 --output "$results/loss-cuda.json"
timeout 110 "$python" benchmarks/inference.py --device cuda --batch 64 16 4 \
  --case-s 15 --output "$results/inference-cuda.json"
timeout 90 "$python" benchmarks/training_step.py --device cuda --batch 256 1024 4096 \
  --at-once 256 --case-s 15 --output "$results/training_step-cuda.json"
rm -f "$results"/*.md
"$python" benchmarks/report.py
