"""Fixtures of all tests: real text from this Python's own library, and tokenizers trained on it in a second.

Larger real data (tokenizers, corpora, tokenized fixtures) are looked for in `../shared/data`; tests
that need them are skipped, saying so, where they are not.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import kernels  # noqa: F401 - before anything that imports numba
from tinydata.core.errors import TinydataError
from tinydata.engines.local import LocalEngine
from tinydata.verbs.encode.plan import Settings
from tinydata.verbs.encode.verb import encode

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the library warns of forks otherwise
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may depend on the network

sys.path.insert(0, str(Path(__file__).parent / "scorers"))  # a scorer is named by its module: unigram:load

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Modules of the standard library: prose in docstrings, code, tables. They are there wherever Python is.
MODULES = ("argparse", "ast", "configparser", "datetime", "decimal", "enum", "inspect", "random", "smtplib", "typing")

# One small scene in many scripts: letters with and without case, marks, no blanks, right to left.
SENTENCES = [
    "The ferry leaves at 6:45, so don't be late; we'll wait by the red kiosk.",
    "Die Fähre legt um 6.45 Uhr ab – komm nicht zu spät, wir warten am Kiosk.",
    "Le bac part à 6 h 45 : ne sois pas en retard, on t’attendra près du kiosque.",
    "El transbordador sale a las 6:45. ¿Vendrás? ¡No llegues tarde, señor Núñez!",
    "A barca sai às 6h45; não te atrases, esperamos junto ao quiosque vermelho.",
    "Il traghetto parte alle 6:45, perciò non far tardi: c’è già la coda.",
    "Prom odpływa o 6:45, więc nie spóźnij się – zaczekamy przy żółtej budce.",
    "Trajekt odplouvá v 6.45, tak se neopozdi; počkáme u červeného stánku.",
    "Паром отходит в 6:45, не опаздывай: мы подождём у красного киоска.",
    "Пором відходить о 6:45, не запізнюйся, ґанок біля їдальні вже відчинено.",
    "Το φέρι φεύγει στις 6:45, μην αργήσεις· θα περιμένουμε στο περίπτερο.",
    "Feribot 6.45’te kalkıyor, geç kalma; kırmızı büfenin önünde bekliyoruz. İĞIŞ ığış",
    "Phà rời bến lúc 6 giờ 45, đừng đến muộn nhé; chúng tôi đợi ở quầy đỏ.",
    "המעבורת יוצאת ב־6:45, אל תאחר; נחכה ליד הדוכן האדום.",
    "تغادر العبّارة في ٦:٤٥، لا تتأخر؛ سننتظر عند الكشك الأحمر.",
    "नाव ६:४५ पर निकलती है, देर मत करना; हम लाल दुकान के पास रुकेंगे।",
    "ফেরি ৬:৪৫-এ ছাড়ে, দেরি কোরো না; আমরা লাল দোকানের পাশে থাকব।",
    "படகு 6:45 மணிக்குப் புறப்படும், தாமதிக்காதே; சிவப்புக் கடை அருகே இருப்போம்.",
    "เรือข้ามฟากออกเวลา 6:45 น. อย่ามาสายนะ เราจะรออยู่ข้างซุ้มสีแดง",
    "渡船六点四十五分开，别迟到；我们在红色售货亭旁边等你。",
    "渡輪六點四十五分開，別遲到；我們在紅色售貨亭旁邊等你。「好！」",
    "フェリーは6時45分に出ます。遅れないでね、赤い売店のそばで待っています。ｶﾅも。",
    "나룻배는 6시 45분에 떠나니 늦지 마세요. 빨간 매점 옆에서 기다릴게요.",
    "ნავი 6:45-ზე გადის, არ დაიგვიანო; წითელ ჯიხურთან დაგელოდებით։ Լաստանավը մեկնում է։",
    "جهاز 👩‍👩‍👧‍👦 🇫🇷 👍🏽 ☕️ → ½ ² Ⅷ ∑∫ €£¥ ½–¾ … 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 \u200bzero\u200dwidth\ufeff",
]

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = TEKKEN.replace("]+|[", "]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[", 1).replace(
    r"]*|\p{N}|", r"]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
)

ADDED = ("<|im_start|>", "<|im_end|>")  # special tokens of every trained byte-level tokenizer, after <|endoftext|>
SYMBOLS = ["<|im_start|>", "<|im_end|>", "[LABEL]", "、、"]  # user-defined symbols of every trained SentencePiece model


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the project."""
    if not SHARED.is_dir():
        pytest.skip("the real data of ../shared/data are not here")
    return SHARED


@pytest.fixture(scope="session")
def text() -> list[str]:
    """Some 300 KB in documents of up to 4,000 characters: library sources and the sentences above."""
    library = Path(sysconfig.get_paths()["stdlib"])
    documents = []
    for name in MODULES:
        source = (library / f"{name}.py").read_text(encoding="utf-8")[:28_000]
        documents += [source[i : i + 4_000] for i in range(0, len(source), 4_000)]
    return documents + SENTENCES + ["\n".join(SENTENCES[i::3] * 4) for i in range(3)]


@pytest.fixture(scope="session")
def byte_bpe(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of byte-level BPE tokenizers, each a directory with a tokenizer.json: gpt2, qwen, llama3, o200k."""
    root = tmp_path_factory.mktemp("byte_bpe")
    o200k = {"pre_tokenizer": _split(O200K), "model": {"ignore_merges": True}}
    for name, change in (("gpt2", {}), ("qwen", _qwen()), ("llama3", _llama3()), ("o200k", o200k)):
        train_bytes(root / name, text, change)
    return root


@pytest.fixture(scope="session")
def spm(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of SentencePiece BPE models, each a directory with a tokenizer.model: plain, prefix.

    prefix: with a dummy prefix, as Llama; plain: without one, as InternLM.
    """
    root = tmp_path_factory.mktemp("spm")
    train_pieces(root / "plain", text, add_dummy_prefix=False)
    train_pieces(root / "prefix", text, add_dummy_prefix=True)
    return root


@pytest.fixture(scope="session")
def ranks(byte_bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with `made`: GPT-2's trained one as tiktoken's rank file, and its tokenizer.json."""
    root = tmp_path_factory.mktemp("ranks")
    (root / "made").mkdir()
    config = json.loads((byte_bpe / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))
    from tinydata.tokenizers.families.byte_bpe import BYTE_OF

    vocab = {bytes(BYTE_OF[c] for c in t): i for t, i in config["model"]["vocab"].items()}
    lines = (b"%s %d\n" % (base64.b64encode(t), i) for t, i in sorted(vocab.items(), key=lambda kv: kv[1]))
    (root / "made" / "made.tiktoken").write_bytes(b"".join(lines))
    (root / "made" / "tokenizer.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def matching(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of tokenizers without merges, each a directory.

    unigram: SentencePiece as T5's; unigram_bytes: without normalizer, with byte fallback; unigram_json;
    wordpiece: a vocab.txt; wordpiece_json: of lower case, with a post-processor. And char_json, which
    does merge: as Llama 2's tokenizer.json.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    root = tmp_path_factory.mktemp("matching")
    t5 = {"byte_fallback": False, "remove_extra_whitespaces": True, "user_defined_symbols": []}
    train_pieces(root / "unigram", text, model_type="unigram", normalization_rule_name="nmt_nfkc", **t5)
    train_pieces(root / "unigram_bytes", text, model_type="unigram", add_dummy_prefix=False)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        text,
        trainers.UnigramTrainer(vocab_size=2_000, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    _saved(root / "unigram_json", tokenizer)
    for name in ("wordpiece", "wordpiece_json"):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=name == "wordpiece_json")
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        special = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(vocab_size=2_500, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(text, trainer)
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
        _saved(root / name, tokenizer)
    vocab = json.loads((root / "wordpiece" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (root / "wordpiece" / "tokenizer.json").unlink()
    lines = "".join(f"{piece}\n" for piece in sorted(vocab, key=vocab.__getitem__))
    (root / "wordpiece" / "vocab.txt").write_text(lines, encoding="utf-8")
    _saved(root / "char_json", _llama2(text))
    return root


def _llama2(text: list[str]) -> Any:
    """BPE over characters with byte fallback; trained on words, then used without a pre-tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=2_000, special_tokens=special, limit_alphabet=200, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    config = json.loads(tokenizer.to_str())
    config["added_tokens"] = config["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps({**config, "pre_tokenizer": None}))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _saved(where: Path, tokenizer: Any) -> None:
    where.mkdir()
    (where / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")


def train_bytes(where: Path, text: list[str], change: dict[str, Any], size: int = 2_500) -> Path:
    """Trains a byte-level BPE with GPT-2's settings, then makes `change` to its tokenizer.json before and after."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    cut: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if "pre_tokenizer" in change:
        bare = json.loads(Tokenizer(models.BPE()).to_str())
        cut = Tokenizer.from_str(json.dumps({**bare, "pre_tokenizer": change["pre_tokenizer"]})).pre_tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cut
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", *ADDED])
    config = json.loads(tokenizer.to_str())
    config["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    config["model"] |= change.get("model", {})
    config |= {k: v for k, v in change.items() if k != "model"}
    where.mkdir()
    (where / "tokenizer.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return where


def _split(regex: str) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [cut, level]}


def _qwen() -> dict[str, Any]:
    """Qwen2: NFC, digits one by one."""
    return {"pre_tokenizer": _split(QWEN), "normalizer": {"type": "NFC"}}


def _llama3() -> dict[str, Any]:
    """Llama 3: digits by threes, whole words looked up first, a begin token in front."""
    begin = {"id": "<|endoftext|>", "ids": [2_500], "tokens": ["<|endoftext|>"]}
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": begin},
    }
    return {"pre_tokenizer": _split(LLAMA3), "post_processor": template, "model": {"ignore_merges": True}}


def train_pieces(where: Path, text: list[str], size: int = 2_000, **options: Any) -> Path:
    """Trains a SentencePiece BPE that leaves text as it is and falls back on bytes."""
    import sentencepiece

    where.mkdir()
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": size,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "character_coverage": 0.9995,
        "user_defined_symbols": SYMBOLS,
        "num_threads": 1,
        "minloglevel": 2,
    }
    lines = iter([line for document in text for line in document.split("\n") if line])
    with (where / "tokenizer.model").open("wb") as out:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=out, **(settings | options))
    return where


# the first two share no kernel, so that no worker waits for what the other compiles
LONGEST_FIRST = ("spark", "test_run", "test_inherit", "test_engines", "test_encode", "test_slice", "test_score")


def shared_by(nodeid: str) -> str:
    """What a test shares with others that is costly, so that they run in one worker: Spark, a tokenizer, fixtures."""
    file, _, name = nodeid.partition("::")
    if "spark" in name:
        return "spark"
    if file.startswith("tests/tokenizers") and "[" in name:
        return name.partition("[")[2].rstrip("]").partition("-")[0]
    return Path(file).stem


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerForWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared_by(nodeid)

    return OneWorkerForWhatIsShared(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that all workers end together."""
    rank = {name: n for n, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(shared_by(item.nodeid), len(rank)))


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """One Spark session for all tests."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'tinydata[spark]'")
    from tinydata.engines.spark import SparkEngine, java

    try:
        java()
    except TinydataError as e:
        pytest.skip(f"{e.what}: {e.fix}")
    engine = SparkEngine(2)
    yield engine
    engine.close()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Any:
    kind, _, workers = request.param.partition("-")
    return request.getfixturevalue("spark") if kind == "spark" else LocalEngine(int(workers))


@pytest.fixture(scope="session")
def shards(text: list[str], byte_bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the trainer: some 75,000 tokens of two domains in several shards."""
    root = tmp_path_factory.mktemp("trained on")
    with (root / "corpus.jsonl").open("w") as f:
        for i, t in enumerate(text):
            f.write(json.dumps({"doc_id": str(i), "domain": "code" if "def " in t else "text", "text": t}) + "\n")
    out = root / "shards"
    encode(
        [str(root / "corpus.jsonl")], str(byte_bpe / "gpt2"), str(out), LocalEngine(1), Settings(shard_tokens=25_000)
    )
    return out
