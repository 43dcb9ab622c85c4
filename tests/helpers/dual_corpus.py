"""Made-up English and Czech text, and two vocabularies of different sizes for it."""

import io
import random
from pathlib import Path
from typing import Any

import sentencepiece

from fairseq_compress.corpus.dual_text import SPECIALS
from fairseq_compress.corpus.encode_dual import VocabularyFiles, encode_dual, read_dictionary
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary

LANGUAGES = ("en", "cs")
EXAMPLES = {
    "en": "the a man woman dog plays runs across street snow children's well-known red reading don't it's",
    "cs": "muž žena pes běží přes ulici sníh hraje si děti červený čte nejkrásnější příliš žluťoučký kůň",
}
WORDS = {language: text.split() for language, text in EXAMPLES.items()}
RARE = ["1,250", "3.14", "№", "😀", "👩‍👩‍👧", "ﬁn", "…", "„ano“", '"no"', "(x)", "<0x41>", "</s>", "猫", "ё", "100%"]
ENDS = [".", ".", "!", "?", "...", ""]


def make_lines(language: str, count: int, seed: int) -> list[str]:
    """Sentences of 1 to 12 words, some of them rare, with punctuation; one in forty is empty."""
    draw = random.Random(f"{language} {seed}")
    lines = []
    for _ in range(count):
        words = [draw.choice(RARE if draw.random() < 0.1 else WORDS[language]) for _ in range(draw.randint(1, 12))]
        words = [word + ("," if draw.random() < 0.1 else "") for word in words]
        lines.append("" if draw.random() < 1 / 40 else " ".join(words).capitalize() + draw.choice(ENDS))
    return lines


def write_text(prefix: Path, lines: dict[str, list[str]]) -> str:
    for language, text in lines.items():
        Path(f"{prefix}.{language}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    return str(prefix)


def make_vocabularies(
    folder: Path, inputs: list[Path], teacher: int = 640, student: int = 400
) -> list[VocabularyFiles]:
    """The student learns from the last input only: rare characters are bytes, and it has pieces of its own."""
    files = []
    for name, size, coverage, texts in (("teacher", teacher, 1.0, inputs), ("student", student, 0.98, inputs[-1:])):
        build_vocabulary(texts, str(folder / name), VocabularySettings(size=size, character_coverage=coverage))
        files.append(VocabularyFiles(folder / f"{name}.model", folder / f"{name}.dict.txt"))
    return files


def train_model(path: Path, lines: list[str], **options: Any) -> Path:
    """A small model with options that train-vocabulary does not have."""
    model = io.BytesIO()
    settings = {"vocab_size": 100, "model_type": "bpe", "num_threads": 1, "minloglevel": 2, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **(settings | options))
    path.write_bytes(model.getvalue())
    return path


def make_folder(folder: Path, train: int = 300, valid: int = 40) -> Path:
    """What encode-dual makes of two parts; text, models and dictionaries stay beside it."""
    parts = {
        name: write_text(folder / name, {language: make_lines(language, count, seed) for language in LANGUAGES})
        for seed, (name, count) in enumerate({"train": train, "valid": valid}.items())
    }
    teacher, student = make_vocabularies(folder, [folder / f"train.{language}" for language in LANGUAGES])
    encode_dual(parts, LANGUAGES, teacher, student, folder / "dual")
    return folder / "dual"


def symbols(dictionary: Path) -> list[str]:
    """All entries of a dictionary by their ids."""
    return [*SPECIALS, *read_dictionary(dictionary)]


def spell(pieces: list[str]) -> str:
    """The text of pieces, bytes decoded one after the other."""
    text = b""
    for piece in pieces:
        byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        text += bytes([int(piece[3:5], 16)]) if byte else piece.encode()
    return text.decode()
