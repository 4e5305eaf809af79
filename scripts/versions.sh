#!/usr/bin/env bash
# Trains the smoke preset on the local target and rehearses Kaggle's script under each interpreter's own package versions.
# Usage: scripts/versions.sh PYTHON [PYTHON ...]
# Each PYTHON needs numpy, pandas, OpenCV, Keras and TensorFlow; run after make setup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export BONEAGECTL_HOME="$place/state" TF_CPP_MIN_LOG_LEVEL=3
ours="$PWD/.venv/bin/boneagectl"
"$ours" data synth "$place/hands" --n 96 --size 32 2>/dev/null
"$ours" data prepare "$place/hands" --out "$place/pack" --size 32 2>/dev/null
for python in "$@"; do
  run=$("$ours" submit --quiet --data "$place/pack" --set targets.local.python="$python" --set train.preset=smoke)
  "$ours" watch "$run" --quiet
  "$ours" rehearse --target kaggle --quiet --set targets.local.python="$python" --set targets.kaggle.username=someone \
    --data "$place/pack" --preset smoke 2>/dev/null | grep -E '^(ok|bad)'
  "$python" -c 'import json, sys
e = json.load(open(sys.argv[1]))
print("ok", "python", e["python"], *(f"{k} {v}" for k, v in e["packages"].items()))' "$("$ours" collect "$run" --quiet)/environment.json"
done
