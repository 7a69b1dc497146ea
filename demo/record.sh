#!/usr/bin/env bash
# Records demo.cast, a terminal session in a clean clone, and draws demo.gif from it:
#     bash demo/record.sh
# in an environment that has requirements.txt. It takes some minutes, for everything in it is really done.
set -euo pipefail
demo=$(cd "$(dirname "$0")" && pwd)
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
python3 -m venv "$away/tools"
"$away/tools/bin/python" -m pip install -qq 'asciinema~=2.4'
git clone -q "$demo/.." "$away/gss"
cd "$away/gss"
env -i HOME="$away" PATH="$PATH" LANG=C.UTF-8 TERM=xterm-256color \
    "$away/tools/bin/asciinema" rec --overwrite --quiet --cols 112 --rows 34 --env '' \
    --command "bash '$demo/session.sh'" "$away/raw.cast"
python "$demo/animate.py" "$demo/demo.cast" "$demo/demo.gif" "$away/raw.cast"
