#!/usr/bin/env bash
# tinydata from one end to the other, on real text that every machine has. Three minutes on 2 cores.
#   bash examples/demo.sh [TOKENIZER]     a directory or file; without it, one is trained here
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD tokenizer=${1:+$(realpath "$1")}

# 0. install (once): a virtual environment of its own, nothing outside this directory
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -c 'import tinydata, jinja2, vl_convert, sentencepiece, torch, tyro' 2>/dev/null ||
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-dev.txt -e '.[spm,report,train]'
PATH=$root/.venv/bin:$PATH
run() { printf '\n$ %s\n' "$*"; "$@"; }

rm -rf demo && mkdir demo && cd demo

# 1. a corpus: the Python installation's own sources and documentation, {"doc_id", "domain", "text"} a line
run python "$root/examples/gather.py" corpus.jsonl

# 2. a big tokenizer, if you named none: byte-level BPE, 49,152 ids, with the `tokenizers` library
if [ -z "$tokenizer" ]; then
  tokenizer=tokenizer.json
  run python "$root/examples/train_tokenizer.py" corpus.jsonl --vocab 49152 -o $tokenizer
fi

# 3. say once where things are; from here on every command is short
run tinydata init corpus.jsonl --tokenizer "$tokenizer"

# 4. count token ids, per domain, 1% of the documents held out
run tinydata count

# 5. the compact vocabulary: a third of the big one; the trade is measured on the held-out text
third=$(tinydata ls counts --json | python -c 'import json, sys; print(json.load(sys.stdin)[0]["ids"] // 3)')
run tinydata compact --vocab "$third" --multiple-of 64 --curve

# 6. beside it, the paper's selection at the same size: the most frequent ids, whatever they are merged from
run tinydata compact --vocab "$third" --multiple-of 64 --method frequency --dry-run

# 7. the corpus as shards, with the compact tokenizer
run tinydata encode

# 8. had it been tokenized with the big one already: from those shards, without the text
run tinydata encode --vocab "$tokenizer" -o big-shards
run tinydata encode big-shards --vocab vocab -o rewritten

# 9. everything on one page
run tinydata report counts vocab shards rewritten

# 10. a tiny model on the shards, a million parameters besides its vocabulary
run python -m trainer.run --preset tiny-1m --steps 200 --holdout 128

# 11. bits per byte of held-out text, domain by domain; and the loss as a picture
run python -m trainer.evaluate run
run python -m trainer.curve run -o curve.html

# 12. a directory that every library loads, and what it says so far
run python -m trainer.export run -o model
run python -m trainer.generate model 'def __init__(self' --tokens 60 --temperature 0.5

printf '\nThe page is %s\n' "$PWD/report.html"
