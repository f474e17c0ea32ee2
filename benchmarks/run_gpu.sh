#!/usr/bin/env bash
# All benchmarks on one NVIDIA GPU, in at most 10 minutes; then docs/performance.md anew.
#
#   bash benchmarks/run_gpu.sh               the GPU; run this first, numbers come from its first minute on
#   bash benchmarks/run_gpu.sh --dry-run     every command on a CPU at tiny sizes, into runs/gpu-dry-run
#
# Each command has a time limit, the most telling come first, and every report is written after each
# of its cases: what a limit cuts off is lost, no more. Afterwards, with time left:
# python benchmarks/fused_blocks.py --limit 12 (blocks of the kernels), and the kernels by profile.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
results=benchmarks/results
device=cuda
is_dry=
if [ "${1:-}" = --dry-run ]; then
  is_dry=1 device=cpu results=runs/gpu-dry-run
  export TRITON_INTERPRET=1
fi
mkdir -p "$results"
status=0

# run SECONDS COMMAND... [-- SIZES]: the sizes after -- are those of a GPU; a dry run has its own.
run() {
  local limit=$1 words=() is_size=
  shift
  for word in "$@"; do
    [ "$word" = -- ] && is_size=1 && continue
    [ -n "$is_size" ] && [ -n "$is_dry" ] && continue
    words+=("$word")
  done
  [ -n "$is_dry" ] && words+=($tiny)
  [ -n "$is_dry" ] && limit=1200 # Triton's interpreter takes its time
  local started=$SECONDS
  timeout "$limit" "$python" "${words[@]}"
  local code=$?
  echo "[$((SECONDS - started)) s of $limit, exit $code] ${words[*]:0:2}" >&2
  [ $code -eq 0 ] || status=1
}

rm -f "$results/loss-$device.json"
loss=(benchmarks/loss.py --device $device --dtype bfloat16 --output "$results/loss-$device.json")
tiny="--batch 2 --patches 20 --width 32 --rounds 1 --warmup 0 --case-s 1"
run 150 "${loss[@]}" --variants naive "naive, autocast" tiled fused -- --batch 4096 1024 256 --case-s 20
# Where little but the lean forms fits, and where D is smaller than T.
tiny="--batch 3 --patches 20 --width 32 --rounds 1 --warmup 0"
run 45 "${loss[@]}" --add --variants naive "naive, checkpointed" tiled fused \
  -- --batch 16384 --case-s 15 --warmup 1
tiny="--batch 4 --patches 20 --width 32 --rounds 1 --warmup 0"
run 60 "${loss[@]}" --add --variants naive fused -- --batch 32768 --rounds 3 --warmup 1
tiny="--batch 2 --patches 40 --width 32 --rounds 1 --warmup 0"
run 30 "${loss[@]}" --add --variants naive tiled fused \
  -- --batch 4096 --patches 625 --case-s 10 --warmup 1
tiny="--parts encoder --batch 1 --strides 16 --rounds 1 --warmup 0 --case-s 1"
run 140 benchmarks/inference.py --device $device --layers -1 --engines torch torch-bf16 \
  --output "$results/inference-$device.json" \
  -- torch-bf16-compiled --batch 64 16 4 --case-s 12
tiny="--batch 2 --rounds 1 --warmup 0 --case-s 1"
run 55 benchmarks/training_step.py --device $device --output "$results/training_step-$device.json" \
  -- --batch 256 1024 4096 --at-once 256 --case-s 12
# The collectives over NCCL with one process (gloo in a dry run).
tiny="--rounds 1"
run 40 benchmarks/collectives.py --device $device --output "$results/collectives-$device.json"
tiny="--device cpu --batch 2 --patches 20 --width 32 --limit 1 --rounds 1"
run 60 benchmarks/fused_blocks.py --output "$results/fused_blocks-$device.json" \
  -- --device $device --limit 6
[ -n "$is_dry" ] && exit $status
rm -f "$results"/*.md
"$python" benchmarks/report.py
exit $status
