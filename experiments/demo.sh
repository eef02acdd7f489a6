#!/usr/bin/env bash
# The main job on a laptop, from nothing: bash experiments/demo.sh [--quick]
#
# Makes a virtual environment, installs, draws labelled streets of one city by day, trains a
# Mask2Former head on real frozen ImageNet features, scores cities and weathers it never saw,
# segments photos, and writes report.html. No GPU, no download besides PyPI.
#
#   --quick        a smaller version of the same, to see that everything works
#   OUT=DIR        where the results go (default demo_out, or demo_out_quick)
#   VENV=DIR       the virtual environment (default .venv)
#   CLOUDS_DATA=D  a folder with camvid/ and street_photos/: real images are scored and segmented too
set -euo pipefail
cd "$(dirname "$0")/.."

quick=0
case "${1:-}" in
  "") ;;
  --quick) quick=1 ;;
  -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "demo.sh: unknown argument '$1'; the only one is --quick" >&2; exit 2 ;;
esac

venv="${VENV:-.venv}"
if [ "$quick" = 1 ]; then
  out="${OUT:-demo_out_quick}"; train=64; val=4; unseen=(streets_newtown_day streets_oldtown_night)
  size=(--config.steps=100 --config.data.batch.streets_oldtown_day=4
    --config.optimizer.lr_warmup_steps=10)
else
  out="${OUT:-demo_out}"; train=400; val=24; size=()
  unseen=(
    streets_newtown_day streets_suburb_day streets_oldtown_night streets_oldtown_rain
    streets_oldtown_fog streets_oldtown_snow
  )
fi
source="streets_oldtown_day"

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
python="$venv/bin/python"
stamp="$venv/installed-for-demo"
if [ ! -f "$stamp" ] || ! cmp -s pyproject.toml "$stamp"; then
  "$python" -m pip install --quiet --editable ".[lite0]"
  cp pyproject.toml "$stamp"
fi

# Two simulated devices, so that both cores take part in what XLA runs on one core per device, and
# large temporaries on huge pages.
export XLA_FLAGS="${XLA_FLAGS:---xla_force_host_platform_device_count=2}"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
began=$SECONDS
say() { printf '\n== %s (%d s)\n' "$*" "$((SECONDS - began))"; }

say "converting the ImageNet weights of EfficientNet-Lite0"
[ -d "$out/weights" ] ||
  "$python" -m porting convert efficientnet_lite0 package:efficientnet_lite0 --output "$out/weights"

say "drawing labelled streets"
"$python" -m clouds_jax.data.build "$source" --split train --count "$train" --output "$out/shards"
for domain in "$source" "${unseen[@]}"; do
  "$python" -m clouds_jax.data.build "$domain" --split val --count "$val" --output "$out/shards"
done
"$python" -m clouds_jax.data.loader --shards "$out/shards" --ref "$source/train" --crop 256 384 \
  --output "$out/training_images.png"

say "training on $source"
"$python" -m clouds_jax.train --config configs/warmup_streets.py --workdir "$out/run" \
  --config.data.shards="$out/shards" --config.encoder.weights="$out/weights" "${size[@]}"

say "scoring domains it never saw"
datasets="$source/val"
for domain in "${unseen[@]}"; do datasets="$datasets,$domain/val"; done
"$python" -m clouds_jax.evaluate --workdir "$out/run" --datasets "$datasets" --protocol native \
  --output "$out/evaluation"
evaluations=("$out/evaluation")

photos="$out/photos"
mkdir -p "$photos"
if [ -n "${CLOUDS_DATA:-}" ]; then
  limit=(); [ "$quick" = 0 ] || limit=(--limit 24)
  "$python" -m clouds_jax.data.build camvid --raw "$CLOUDS_DATA" --split test --output "$out/shards" \
    "${limit[@]}"
  "$python" -m clouds_jax.evaluate --workdir "$out/run" --datasets camvid/test --protocol native \
    --output "$out/evaluation_camvid"
  evaluations+=("$out/evaluation_camvid")
  # sed reads to the end, where `head` would leave early and pipefail take that for a failure
  find "$CLOUDS_DATA/street_photos" -name '*.jpg' | sort | sed -n '1,4p' | xargs cp -t "$photos"
else
  "$python" - "$photos" <<'PY'
import sys
from PIL import Image
from clouds_jax.streets import render
for domain in ("newtown-day", "newtown-dusk", "suburb-rain", "suburb-snow"):
    Image.fromarray(render(domain, 7, 0)[0]).save(f"{sys.argv[1]}/{domain}.png")
PY
fi

say "segmenting pictures"
"$python" -m clouds_jax.predict --workdir "$out/run" --output "$out/predictions" "$photos"

"$python" -m experiments.report --runs "$out/run" --evaluations "${evaluations[@]}" \
  --predictions "$out/predictions" --output "$out/report.html"
say "done: open $out/report.html"
