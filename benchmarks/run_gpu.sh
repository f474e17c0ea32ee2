#!/usr/bin/env bash
# The three benchmarks on one NVIDIA GPU, in at most 8 minutes; then docs/performance.md anew.
# Every report is written after each of its cases: what a time limit cuts off is lost, no more.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
results=benchmarks/results
mkdir -p "$results"
loss() { "$python" benchmarks/loss.py --device cuda --dtype bfloat16 \
  --output "$results/loss-cuda.json" "$@"; }
export -f loss
export python results
rm -f "$results/loss-cuda.json"
timeout 150 bash -c 'loss --batch 4096 1024 256 --case-s 20'
# Where little but the lean forms fits, and where D is smaller than T.
timeout 45 bash -c 'loss --add --batch 16384 --case-s 15 --warmup 1 \
  --variants naive "naive, checkpointed" tiled fused'
timeout 60 bash -c 'loss --add --batch 32768 --rounds 3 --warmup 1 --variants naive fused'
timeout 30 bash -c 'loss --add --batch 4096 --patches 625 --case-s 10 --warmup 1 \
  --variants naive tiled fused'
timeout 140 "$python" benchmarks/inference.py --device cuda --batch 64 16 4 --layers -1 \
  --engines torch torch-bf16 torch-bf16-compiled \
  --case-s 12 --output "$results/inference-cuda.json"
timeout 55 "$python" benchmarks/training_step.py --device cuda --batch 256 1024 4096 \
  --at-once 256 --case-s 12 --output "$results/training_step-cuda.json"
rm -f "$results"/*.md
"$python" benchmarks/report.py
