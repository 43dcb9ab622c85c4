"""Training the subword vocabulary, and the fairseq dictionary that belongs to it.

Byte-pair encoding with byte fallback: ``<unk>`` never occurs. The model normalizes with sentencepiece's ``nmt_nfkc``
(as Marian and the Firefox models do), so decoded text is NFKC: the ligature "ﬁ" comes back as "fi", "²" as "2". These
rules turn U+200C, which Persian and Indic text needs (see :mod:`fairseq_compress.corpus.invisible`), into a space:
where the training text has one, it is a user-defined symbol, which the rules leave unchanged.
"""

import io
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import sentencepiece

from fairseq_compress.corpus.normalization import normalize_line
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.options import check, flag, option
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct, check_not_empty, progress, read_lines

# Ids of sentencepiece's own control symbols. They are left out of the dictionary: fairseq brings its own four.
UNK_ID, BOS_ID, EOS_ID, PAD_ID = 0, 1, 2, -1
FAIRSEQ_SPECIALS = frozenset({"<s>", "<pad>", "</s>", "<unk>"})

NON_JOINER = "\u200c"

LARGEST_SIZE = re.compile(r"Vocabulary size too high \(\d+\)\. Please set it to a value <= (\d+)")
SMALLEST_SIZE = re.compile(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)")
# sentencepiece leaves out longer lines (its own default, 4192 bytes, is under 250 long words). A word may not have more
# than 65,535 characters, so the limit stays and lines are cut.
MAX_LINE_BYTES = 1 << 16
RESERVED = "\u2585"  # stands for characters without a piece inside the trainer, which leaves out lines that have it


@dataclass(frozen=True)
class VocabularySettings:
    """Options of SentencePiece's trainer."""

    size: int = option(help="pieces, with the 3 control symbols and the 256 bytes", range="[1, inf)")
    model_type: str = option("bpe", "kind of pieces", choices=("bpe", "unigram"))
    character_coverage: float = option(
        1.0, "fraction of the characters of the text that get a piece; the others become bytes", range="[0.98, 1]"
    )
    seed: int = option(1, "of the sample; nothing else is random")
    input_sentence_size: int = option(0, "train on a random sample of N lines; 0 takes all", range="[0, inf)")
    symbols: tuple[str, ...] = ()  # user-defined symbols, which the rules of the model do not change

    def __post_init__(self) -> None:
        check(self, spelling=lambda name: flag("vocab_size" if name == "size" else name))


@dataclass
class LineCounts:
    """Counts of lines, by how they were changed for the trainer."""

    read: int = 0
    empty: int = 0  # nothing to train on
    cut: int = 0  # over MAX_LINE_BYTES, trained on in parts
    reserved: int = 0  # trained on without U+2585

    def summary(self) -> str:
        """One line for people, empty when no line was changed."""
        kinds = {
            "empty (left out)": self.empty,
            f"longer than {MAX_LINE_BYTES:,} bytes (cut into parts)": self.cut,
            "with U+2585, which sentencepiece reserves (trained on without it)": self.reserved,
        }
        changed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        return f"{self.read:,} lines read, {changed}" if changed else ""


def train_model(lines: Iterable[str], settings: VocabularySettings, counts: LineCounts | None = None) -> bytes:
    """Train a sentencepiece model and return it serialized, a deterministic function of lines and settings.

    Args:
        counts: updated by :func:`training_lines`.
    """
    if settings.input_sentence_size:
        lines = sample(lines, settings.input_sentence_size, settings.seed)
    counts = LineCounts() if counts is None else counts
    model = io.BytesIO()
    failures: list[DataError] = []
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_keep_failure(training_lines(lines, counts), failures),
            model_writer=model,
            vocab_size=settings.size,
            model_type=settings.model_type,
            character_coverage=settings.character_coverage,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc",
            max_sentence_length=MAX_LINE_BYTES,
            user_defined_symbols=list(settings.symbols),
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            pad_id=PAD_ID,
            num_threads=1,  # the number is stored in the model; one is fast enough
            minloglevel=2,  # errors only
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        if counts.empty == counts.read:
            raise DataError("--input: all lines are empty, there is nothing to train a vocabulary on") from None
        raise _explained(str(error), settings.size) from error
    return model.getvalue()


def training_lines(lines: Iterable[str], counts: LineCounts) -> Iterator[str]:
    """Yield the lines as sentencepiece's trainer accepts them; it counts words, so long lines may be cut at spaces."""
    for line in lines:
        counts.read += 1
        if RESERVED in line:
            counts.reserved += 1
            line = line.replace(RESERVED, " ")
        parts = [line] if 4 * len(line) <= MAX_LINE_BYTES else list(cut_line(line, MAX_LINE_BYTES))
        counts.cut += len(parts) > 1
        counts.empty += not line.strip()
        yield from parts


def cut_line(line: str, limit: int) -> Iterator[str]:
    """Parts of at most ``limit`` bytes in UTF-8: cut at the last space that fits, or behind the last character."""
    raw = line.encode()
    while len(raw) > limit:
        place = raw.rfind(b" ", 0, limit + 1)
        if place <= 0:
            place = limit
            while raw[place] & 0xC0 == 0x80:  # inside a character
                place -= 1
        yield raw[:place].decode()
        raw = raw[place:].removeprefix(b" ")
    yield raw.decode()


def sample(lines: Iterable[str], size: int, seed: int) -> list[str]:
    """A uniform random sample of ``size`` lines, or all if there are fewer (reservoir sampling, Vitter 1985)."""
    generator = random.Random(seed)
    chosen: list[str] = []
    for index, line in enumerate(lines):
        if index < size:
            chosen.append(line)
        elif (place := generator.randrange(index + 1)) < size:
            chosen[place] = line
    return chosen


def list_pieces(model: bytes) -> list[tuple[str, float]]:
    """The pieces of a serialized model and their scores, in the order of their ids."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(processor.id_to_piece(index), processor.get_score(index)) for index in range(len(processor))]


def dictionary_lines(pieces: Sequence[str]) -> Iterator[str]:
    """The lines of fairseq's ``dict.txt`` for the pieces that follow the control symbols, each with a count of 1."""
    for piece in pieces:
        if piece in FAIRSEQ_SPECIALS or piece.split() != [piece]:
            raise DataError(f"the vocabulary has the piece {piece!r}, which a fairseq dictionary cannot hold")
        yield f"{piece} 1"


def build_vocabulary(
    inputs: Sequence[PathLike], output_prefix: str, settings: VocabularySettings, counts: LineCounts | None = None
) -> int:
    """Train on the normalized lines of the files; write PREFIX.vocab, PREFIX.dict.txt and, last, PREFIX.model.

    Returns:
        the number of entries of the dictionary, without fairseq's four specials.
    """
    vocab, dictionary, model_file = (f"{output_prefix}.{suffix}" for suffix in ("vocab", "dict.txt", "model"))
    check_distinct(inputs, [vocab, dictionary, model_file])
    total = sum([check_not_empty(path) for path in inputs])
    if any(NON_JOINER in line and NON_JOINER in normalize_line(line) for path in inputs for line in read_lines(path)):
        settings = replace(settings, symbols=(*settings.symbols, NON_JOINER))
    lines = (normalize_line(line) for path in inputs for line in read_lines(path))
    model = train_model(progress(lines, total, "read"), settings, counts)
    pieces = list_pieces(model)
    entries = list(dictionary_lines([piece for piece, _ in pieces[EOS_ID + 1 :]]))
    with atomic_write(vocab) as stream:
        stream.writelines(f"{piece}\t{score:g}\n" for piece, score in pieces)
    with atomic_write(dictionary) as stream:
        stream.writelines(f"{entry}\n" for entry in entries)
    with atomic_write(model_file, "wb") as stream:
        stream.write(model)
    return len(entries)


def _keep_failure(lines: Iterable[str], failures: list[DataError]) -> Iterator[str]:
    """Pass the lines on, and keep the error that ends them: sentencepiece turns every exception into its own."""
    try:
        yield from lines
    except DataError as error:
        failures.append(error)
        raise


def _explained(message: str, size: int) -> ConfigError | DataError:
    if limit := LARGEST_SIZE.search(message):
        return ConfigError(f"--vocab-size: {size} is more than this text allows; the largest possible is {limit[1]}")
    if limit := SMALLEST_SIZE.search(message):
        return ConfigError(
            f"--vocab-size: {size} is too small; the 3 control symbols, the 256 bytes and the characters of this text "
            f"need at least {limit[1]}"
        )
    return DataError(f"sentencepiece could not train the vocabulary: {message}")
