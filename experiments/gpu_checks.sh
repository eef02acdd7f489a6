#!/usr/bin/env bash
# What a GPU has to show, in ten minutes on one card: bash experiments/gpu_checks.sh [--dry-run] [STEP ...]
#
# The tests marked gpu; warm-up step, inference and joint step with SAM inside in bfloat16 beside
# PyTorch, eager and compiled; memory of a warm-up step of 8 and 16 images at 768x768, with the head
# in float32 and in bfloat16. Every row is written as soon as it is there. The last lines say which
# steps passed, failed, were cut off or not run; status 0 means all passed, 2 that there is no GPU.
#
#   STEP ...       these steps only: tests inference warmup joint compiled memory memory_bfloat16
#   --dry-run      print the commands; needs no GPU
#   OUT=DIR        where CARD-bfloat16/STEP/ goes (default experiments/results/benchmark)
#   LIMIT=S        seconds for all steps together, installation not counted (default 580)
#   VENV=DIR       a virtual environment that has everything; without it .venv is made and filled
#   CUDA=N         12 or 13 (default): which JAX is installed there
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

steps=(tests inference warmup joint compiled memory memory_bfloat16)
# Shares of the time; a step may also use what the steps before it left.
declare -A share=(
  [tests]=80 [inference]=60 [warmup]=140 [joint]=140 [compiled]=80 [memory]=50 [memory_bfloat16]=50
)
limit="${LIMIT:-580}"
dry=0
wanted=()
for argument in "$@"; do
  case "$argument" in
    --dry-run) dry=1 ;;
    -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *)
      if [ -z "${share[$argument]:-}" ]; then
        echo "gpu_checks.sh: unknown argument '$argument'; there are --dry-run and ${steps[*]}" >&2
        exit 1
      fi
      wanted+=("$argument") ;;
  esac
done
[ "${#wanted[@]}" -gt 0 ] || wanted=("${steps[@]}")

card=CARD
if [ "$dry" = 0 ]; then
  name="$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | sed -n 1p)"
  if [ -z "$name" ]; then
    echo "gpu_checks.sh: nvidia-smi finds no GPU here; nothing was run" >&2
    exit 2
  fi
  # "NVIDIA H100 80GB HBM3" -> h100-80gb-hbm3
  card="$(tr 'A-Z' 'a-z' <<<"$name" | sed 's/^nvidia *//; s/[^a-z0-9]\{1,\}/-/g; s/-$//')"
fi
out="${OUT:-experiments/results/benchmark}/$card-bfloat16"
python="${VENV:-.venv}/bin/python"

install() {
  [ -x "$python" ] || python3 -m venv .venv || return
  local stamp=".venv/installed-for-gpu-checks"
  [ -f "$stamp" ] && cmp -s pyproject.toml "$stamp" && return
  "$python" -m pip install --quiet "torch==2.13.0" &&
    "$python" -m pip install --quiet --editable ".[torch,cuda${CUDA:-13},dev]" &&
    cp pyproject.toml "$stamp"
}

# The CPU too, which the tests compare with. Memory as it is needed: JAX and PyTorch share the card.
export JAX_PLATFORMS=cuda,cpu XLA_FLAGS="${XLA_FLAGS:-}" XLA_PYTHON_CLIENT_PREALLOCATE=false
# Later steps find the programs that earlier ones compiled.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${TMPDIR:-/tmp}/clouds-gpu-checks-xla}"

if [ "$dry" = 0 ]; then
  if [ -z "${VENV:-}" ]; then install || { echo "gpu_checks.sh: installing failed" >&2; exit 1; }; fi
  if ! "$python" -c "import jax; assert jax.default_backend() == 'gpu'" 2>/dev/null; then
    echo "gpu_checks.sh: JAX of $python does not see the $name; nothing was run" >&2
    exit 2
  fi
fi

benchmark() {
  local step="$1"; shift
  command=("$python" -m experiments.benchmark "$@" --device gpu --dtype bfloat16 --rounds 5
    --output "$out/$step")
}

command=()
set_command() {
  case "$1" in
    tests)
      command=("$python" -m pytest tests/unit/test_gpu.py -m gpu -v -p no:cacheprovider
        --junitxml "$out/tests/results.xml") ;;
    inference) benchmark "$1" inference ;;
    warmup) benchmark "$1" warmup ;;
    joint) benchmark "$1" joint_online joint_stored ;;
    compiled) benchmark "$1" inference warmup --compile ;;
    memory) benchmark "$1" warmup --against none ;;
    memory_bfloat16) benchmark "$1" warmup --against none --head-dtype bfloat16 ;;
  esac
}

# A skipped test has not passed, and the benchmark goes on after a row that failed.
complete() {
  if [ "$1" = tests ]; then
    ! grep -q "<skipped" "$out/tests/results.xml"
  else
    ! grep -q "not run" "$out/$1/table.md"
  fi
}

shares=0
for step in "${wanted[@]}"; do shares=$((shares + share[$step])); done
later=$limit # seconds kept for the steps to come
began=$SECONDS
report=()
bad=0
for step in "${wanted[@]}"; do
  set_command "$step"
  own=$((limit * share[$step] / shares))
  later=$((later - own))
  if [ "$dry" = 1 ]; then
    echo "$step: timeout $own ${command[*]}"
    continue
  fi
  allowed=$((limit - (SECONDS - began) - later))
  if [ "$allowed" -lt 10 ]; then
    report+=("$step: not run, no time left"); bad=1
    continue
  fi
  printf '\n== %s (at most %d s)\n' "$step" "$allowed"
  mkdir -p "$out/$step"
  timeout --kill-after=10 "$allowed" "${command[@]}" 2>&1 | tee "$out/$step/log.txt"
  status="${PIPESTATUS[0]}"
  if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    report+=("$step: cut off after $allowed s"); bad=1
  elif [ "$status" != 0 ] || ! complete "$step"; then
    report+=("$step: failed, see $out/$step/log.txt"); bad=1
  else
    report+=("$step: passed")
  fi
done
[ "$dry" = 0 ] || exit 0
printf '\n== %s, %d s\n' "$card" "$((SECONDS - began))"
printf '%s\n' "${report[@]}" | tee "$out/summary.txt"
exit "$bad"
