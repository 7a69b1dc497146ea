#!/usr/bin/env bash
# Records demo.cast, a terminal session in a clean clone, and draws demo_snapshot.png from it:
#     bash demo/record.sh
# It takes some minutes, for everything in it is really done: the installation, the training, the compression.
set -euo pipefail
demo=$(cd "$(dirname "$0")" && pwd)
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
python3 -m venv "$away/tools"
"$away/tools/bin/python" -m pip install -qq 'asciinema~=2.4' pyte matplotlib
git clone -q "$demo/.." "$away/project"
cd "$away"
env -i HOME="$away" PATH="$PATH" LANG=C.UTF-8 TERM=xterm-256color \
    "$away/tools/bin/asciinema" rec --overwrite --quiet --cols 112 --rows 34 --idle-time-limit 1.5 \
    --title 'Attention-Based Guided Structured Sparsity, reproduced' --env '' \
    --command "bash '$demo/session.sh'" "$away/demo.cast"
"$away/tools/bin/python" "$demo/snapshot.py" "$away/demo.cast" "$demo/demo_snapshot.png"
mv "$away/demo.cast" "$demo/demo.cast"
