#!/usr/bin/env bash
# tinydata from text to a second-round model, on real text that every machine has. Seven minutes on two cores.
#   bash examples/demo.sh [--engine spark] [TOKENIZER]     a directory or file; without it, one is trained here
# Killed, or run again: what is there already is not done again. To start over: rm -r demo
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD extras=spm,report,train
if [ "${1:-}" = --engine ]; then
  for verb in COUNT ENCODE SCORE RESAMPLE; do export TINYDATA_${verb}_ENGINE="$2"; done # as in tinydata.toml
  extras=$extras,$2
  shift 2
fi
tokenizer=${1:+$(realpath "$1")}

# 0. install (once): a virtual environment of its own, nothing outside this directory
[ -x .venv/bin/python ] || python3 -m venv .venv
[ -e ".venv/demo-$extras" ] ||
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]"
touch ".venv/demo-$extras"
PATH=$root/.venv/bin:$PATH
run() { printf '\n$ %s\n' "$*" && "$@"; }
step() { [ -e "$1" ] || run "${@:2}"; } # step WHAT_IT_MAKES COMMAND…; training goes on by itself
mkdir -p demo && cd demo

# 1. a corpus: the Python installation's own sources and documentation, {"doc_id", "domain", "text"} a line;
#    a sample of it to train on, for a machine without a GPU
step sample.jsonl python "$root/examples/gather.py" corpus.jsonl sample.jsonl 12

# 2. a big tokenizer, if you named none: byte-level BPE, 49,152 ids, with the `tokenizers` library
if [ -z "$tokenizer" ]; then
  tokenizer=tokenizer.json
  step $tokenizer python "$root/examples/train_tokenizer.py" corpus.jsonl --vocab 49152 -o $tokenizer
fi

# 3. say once where things are; from here on every command is short
step tinydata.toml tinydata init corpus.jsonl --tokenizer "$tokenizer"

# 4. count token ids, per domain, 1% of the documents held out; then the compact vocabulary, a third of the big one,
#    and beside it the paper's selection: the most frequent ids, whatever they are merged from
step counts tinydata count
third=$(tinydata ls counts --json | python -c 'import json, sys; print(json.load(sys.stdin)[0]["ids"] // 3)')
step vocab tinydata compact --vocab "$third" --multiple-of 64 --curve
run tinydata compact --vocab "$third" --multiple-of 64 --method frequency --dry-run

# 5. shards to train on; and had the corpus been tokenized with the big tokenizer already: without its text
step shards tinydata encode sample.jsonl
step big-shards tinydata encode --vocab "$tokenizer" -o big-shards
step rewritten tinydata encode big-shards --vocab vocab -o rewritten

# 6. the start of a tiny model out of a bigger one; you have a better one than this, which is trained here in half a minute
step big/checkpoints/step-00000024 python -m trainer.run --preset tiny-1m --width 192 --steps 24 --batch-tokens 1024 -o big
step big-model python -m trainer.export big -o big-model
step init python -m trainer.inherit big-model tiny-1m --data shards --method taylor -o init

# 7. train: a million parameters besides the vocabulary, one epoch
run python -m trainer.run --preset tiny-1m --batch-tokens 2048 --init init --holdout 16 --log-sequence-loss

# 8. the next round: score the data with the frozen model, keep the hard half of it, train on that
step scores tinydata score
step round-1 tinydata resample --keep 0.5
run python -m trainer.run --preset tiny-1m --batch-tokens 2048 --round 1

# 9. bits per byte of held-out text before and after; what it says; and what exactly it is made of
run python -m trainer.evaluate run
run python -m trainer.evaluate run-1
step model python -m trainer.export run-1 -o model
run python -m trainer.generate model 'def __init__(self' --tokens 60 --temperature 0.5
run tinydata ls --lineage model

# 10. everything on one page
run tinydata report counts vocab shards scores round-1
printf '\nThe page is %s\n' "$PWD/report.html"
