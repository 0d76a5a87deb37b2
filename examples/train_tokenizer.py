"""train_tokenizer.py CORPUS.jsonl --vocab N -o tokenizer.json: a byte-level BPE like Llama-3's, as a stand-in.

Whoever has a big tokenizer does not need this: any tokenizer.json, tokenizer.model or GPT-2 style
vocab.json + merges.txt does.
"""

import argparse
import json
import os
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as f:
        for line in f:
            yield json.loads(line)["text"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("-o", "--out", default="tokenizer.json")
    args = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocab,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(args.corpus), trainer)
    tokenizer.save(f"{args.out}.part")
    os.replace(f"{args.out}.part", args.out)  # killed before, there is none
    print(f"{tokenizer.get_vocab_size():,} ids in {args.out}")


if __name__ == "__main__":
    main()
