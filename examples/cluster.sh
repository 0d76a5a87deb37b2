#!/usr/bin/env bash
# The whole of it on a cluster: Spark for the data, torchrun for the model. Fill in the first block; each step is
# resumable, and what is there already is not done again.
#   CORPUS=s3://lake/corpus TOKENIZER=Qwen2.5-7B BIG=Qwen2.5-7B WORK=/shared/tiny bash examples/cluster.sh
set -euo pipefail
: "${CORPUS:?files, directories or globs of text or token ids}"
: "${TOKENIZER:?the big tokenizer: directory or file}"
: "${BIG:?the big model: a Hugging Face directory of that tokenizer}"
: "${WORK:?a directory that driver, executors and trainers all reach}"
VOCAB=${VOCAB:-48000} PRESET=${PRESET:-pi-1b-pro} ROUNDS=${ROUNDS:-1} KEEP=${KEEP:-0.5}
NODES=${NODES:-1} GPUS=${GPUS:-8} RENDEZVOUS=${RENDEZVOUS:-localhost:29400}
NODE=${NODE:-0} # with more than one, run this on each, numbered from 0: the others wait for what 0 makes, and train with it
jobs=$(cd "$(dirname "$0")/../jobs" && pwd)
cd "$WORK"

submit() { spark-submit ${SPARK_CONF:-} "$@"; } # SPARK_CONF: --master, --archives, memory: docs/spark.md
gpus() {                                        # one executor a GPU: the model is loaded once for each
  submit --conf spark.executor.cores=1 --conf spark.executor.resource.gpu.amount=1 \
    --conf spark.task.resource.gpu.amount=1 --conf spark.speculation=false \
    --conf spark.executor.resource.gpu.discoveryScript="$jobs/find_gpus.sh" "$@"
}
train() {
  torchrun --nnodes "$NODES" --nproc-per-node "$GPUS" --rdzv-backend c10d --rdzv-endpoint "$RENDEZVOUS" \
    -m trainer.run --preset "$PRESET" "$@"
}
step() { # step WHAT_IT_MAKES COMMAND…; training goes on by itself
  if [ "$NODE" = 0 ]; then [ -e "$1" ] || "${@:2}"; else until [ -e "$1" ]; do sleep 10; done; fi
}

# compact tokenizer, and the corpus in it
step tinydata.toml tinydata init "$CORPUS" --tokenizer "$TOKENIZER"
step counts submit "$jobs/token_freq.py"
step vocab tinydata compact --vocab "$VOCAB" --multiple-of 64
step shards submit "$jobs/encode.py"

# architecture and inheritance
step init python -m trainer.inherit "$BIG" "$PRESET" --vocab vocab --data shards --method taylor -o init

# round 0, then: score with the frozen model, keep the hard part, train on it
train --init init --log-sequence-loss
last=run
for round in $(seq "$ROUNDS"); do
  before=$((round - 1)) scores=scores
  [ "$before" = 0 ] || scores=scores-$before
  step "$scores" gpus "$jobs/score.py" --round "$before"
  step "round-$round" submit "$jobs/resample.py" --round "$before" --keep "$KEEP"
  train --round "$round"
  last=run-$round
done

[ "$NODE" = 0 ] || exit 0
python -m trainer.evaluate "$last"
step model python -m trainer.export "$last" -o model
tinydata ls --lineage model
