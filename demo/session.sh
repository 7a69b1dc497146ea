#!/usr/bin/env bash
# What is typed in the recording, in a folder that holds a clone of the project; record.sh runs it.

type_and_run() {
    printf '$ '
    for ((i = 0; i < ${#1}; i++)); do
        printf '%s' "${1:i:1}"
        sleep 0.015
    done
    sleep 0.5
    printf '\n'
    eval "$1"
    sleep 1.5
}

type_and_run 'git clone -q project gss && cd gss'
type_and_run 'python3 -m venv .venv && . .venv/bin/activate'
type_and_run 'python -m pip install -qq -r requirements.txt'
type_and_run 'python python/main.py --dataset=mnist_5k --widths=20,50,500,256 --max_steps=1500 \
    --learning_rate=3e-3 --final_learning_rate=1e-5 --group_lasso=0.015 --log_dir=run'
type_and_run 'python python/compress.py --log_dir=run'
