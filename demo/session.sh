#!/usr/bin/env bash
# What is typed in the recording, in a clone of the project; record.sh runs it.

type_and_run() {
    printf '$ '
    for ((i = 0; i < ${#1}; i++)); do
        printf '%s' "${1:i:1}"
        sleep 0.01
    done
    sleep 0.5
    printf '\n'
    eval "$1"
    sleep 1.5
}

type_and_run 'python python/main.py --dataset=mnist_5k --widths=20,50,500,256 --max_steps=1500 \
    --learning_rate=3e-3 --final_learning_rate=1e-5 --group_lasso=0.015 --eval_interval=500 --log_dir=run'
type_and_run 'python python/retrain.py --log_dir=run --max_steps=1500 --learning_rate=3e-3'
type_and_run 'python python/compress.py --log_dir=run/retrained'
