"""Which dictionaries belong to a sentencepiece model: written from its vocabulary, or counted in text that it cut."""

import random
from collections import Counter

import pytest
import sentencepiece
from fairseq.data import Dictionary

from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.corpus.segmentation.subword_nmt import SubwordNmt
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary
from fairseq_compress.corpus.vocabulary_match import Entries, joint_mismatch, mismatch, tokenizer_caution
from fairseq_compress.errors import ConfigError
from fairseq_compress.teachers.loading import open_segmenter
from tests.helpers.byte_pairs import learned, write_codes

SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


def text(seed, lines=3000):
    """Words of a made-up language; a seed draws other words of the same syllables."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(400)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=draw.randint(3, 12))) for _ in range(lines)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models by name: of the text, larger ones of the same text, of other text, and without bytes."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed, size in (("own", 1, 600), ("larger", 1, 620), ("much", 1, 900), ("other", 2, 600)):
        (folder / "text").write_text("\n".join(text(seed)))
        build_vocabulary([folder / "text"], str(folder / name), VocabularySettings(size))
    for name, kind in (("unigram", "unigram"), ("few", "bpe")):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text(1)), model_prefix=str(folder / name), vocab_size=300, model_type=kind,
            minloglevel=2, hard_vocab_limit=False,
        )  # fmt: skip
    return {path.stem: SentencePiece(path) for path in folder.glob("*.model")}


def written(model):
    """As train-vocabulary writes it."""
    return Entries(model.entries(), [1] * len(model.entries()))


def counted(model, lines, padding=8, threshold=-1, words=-1):
    """As fairseq-preprocess writes it, with --thresholdsrc and --nwordssrc."""
    dictionary = Dictionary()
    for line in model.encode(lines):
        for piece in line.split():
            dictionary.add_symbol(piece)
    dictionary.finalize(threshold, words, padding)
    return Entries(dictionary.symbols[dictionary.nspecial :], dictionary.count[dictionary.nspecial :])


@pytest.mark.parametrize("name", ["own", "larger", "much", "other", "unigram", "few"])
def test_a_model_s_own_dictionaries(models, name):
    own, lines = models[name], text(2 if name == "other" else 1)
    assert mismatch(written(own), own) is None
    for part in (lines, lines[:300], lines[:20], lines[:3]):
        assert mismatch(counted(own, part), own) is None


def test_written_dictionaries_are_exact(models):
    own = models["own"]
    symbols, counts = written(own)
    extended = Entries([*symbols, "__en__", "<2cs>", "[cs_CZ]", "madeupword0000", "<mask>"], [*counts, 0, 0, 1, 0, 1])
    assert mismatch(extended, own) is None
    assert "lacks 1 of its" in mismatch(Entries(symbols[:-1], counts[:-1]), own)
    assert mismatch(Entries(symbols[::-1], counts), own) is None  # the order proves nothing
    assert "1 of the dictionary's 598 entries are no pieces, such as 'bab'" in mismatch(
        Entries([*symbols, "bab"], [*counts, 1]), own
    )


@pytest.mark.parametrize(
    "make", [written, lambda model: counted(model, text(1)), lambda model: counted(model, text(1, 300))]
)
def test_another_model_of_the_same_languages(models, make):
    entries = make(models["own"])
    for name in ("larger", "much", "other", "unigram", "few"):
        assert mismatch(entries, models[name]), name
    for name in ("larger", "much", "other"):
        assert mismatch(make(models[name]), models["own"]), name


def test_a_larger_model_of_the_same_text_is_told_by_its_last_merges(models):
    """All entries are pieces of it: a rule that only looks for foreign entries takes it."""
    entries = counted(models["own"], text(1))
    assert set(entries.symbols) - set(models["much"].entries()) <= {s for s in entries.symbols if "madeup" in s}
    assert "300 more merges" in mismatch(entries, models["much"])
    assert "20 more merges" in mismatch(entries, models["larger"])


@pytest.mark.parametrize("name", ["own", "much", "few"])
def test_dictionaries_cut_by_count_and_by_number(models, name):
    """They lack the last merges, as the dictionary of a smaller model does."""
    own = models[name]
    for threshold in (2, 3, 5, 10, 30):
        assert mismatch(counted(own, text(1), threshold=threshold), own) is None
        assert mismatch(counted(own, text(1), threshold=threshold), models["other"])
    entries = counted(own, text(1), padding=1)
    some = entries.counts.index(1) if 1 in entries.counts else len(entries.counts)
    for words in (*(len(entries.symbols) * share // 10 for share in (3, 5, 7, 9)), *range(some, len(entries.counts))):
        assert mismatch(counted(own, text(1), words=words), own) is None, words
        assert mismatch(counted(own, text(1), words=words), models["other"])


def test_text_that_a_model_does_not_know(models):
    few = models["few"]
    lines = [*text(1), "漢字 ba", "漢 ba"]
    entries = counted(few, lines)
    assert any("漢" in symbol for symbol in entries.symbols)
    assert mismatch(entries, few) is None
    assert mismatch(entries, models["unigram"])
    assert mismatch(Entries(["漢字", "漢", "ba"], [50, 40, 10]), few)
    assert "entries are no pieces, such as '<0x00>'" in mismatch(written(models["own"]), few)


def test_two_models_with_one_dictionary(models):
    own, other = models["own"], models["other"]
    both = Counter(dict(zip(*counted(own, text(1)), strict=True))) + Counter(
        dict(zip(*counted(other, text(2)), strict=True))
    )
    entries = Entries(list(both), list(both.values()))
    assert joint_mismatch(entries, own, other) is None
    assert mismatch(entries, own)
    assert mismatch(entries, other)
    assert joint_mismatch(entries, own, models["unigram"])
    assert f"all entries are pieces of {own.path} by itself" in joint_mismatch(counted(own, text(1)), own, other)


def dictionary(model):
    entries = Dictionary()
    for piece in model.entries():
        entries.add_symbol(piece)
    return entries


def opened(source, target, *dictionaries):
    return open_segmenter(Segmentation(source, target), (None, None), *dictionaries)


def test_both_dictionaries_are_compared(models):
    own, other = models["own"], models["other"]
    mine, theirs = dictionary(own), dictionary(other)
    assert opened(own.path, None, mine, mine).target.path == own.path
    assert opened(own.path, other.path, mine, theirs).target.path == other.path
    for arguments, side in (
        ((own.path, None, mine, theirs), "target"), ((own.path, None, theirs, mine), "source"),
        ((other.path, own.path, mine, theirs), "source"), ((own.path, other.path, mine, mine), "shared"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"--sentencepiece-model: .* does not belong to its {side} dictionary"):
            opened(*arguments)


def test_each_side_has_its_own_pieces(models):
    own, other = models["own"], models["other"]
    both = Segmentation(own.path, other.path).open()
    assert next(both.encode(["babe"])) == next(own.encode(["babe"]))
    line = text(2)[0]
    assert list(both.decode(other.encode([line]))) == [line]


@pytest.fixture(scope="module")
def merges(tmp_path_factory):
    """Merges by name: of the text in both versions, fewer and more of the same text, and of other text."""
    folder = tmp_path_factory.mktemp("merges")
    for name, seed, size, apart in (
        ("own", 1, 150, False), ("apart", 1, 150, True), ("more", 1, 260, False), ("other", 2, 150, False),
    ):  # fmt: skip
        write_codes(folder / name, learned(text(seed), size, apart), "" if apart else "#version: 0.2\n")
    return {path.name: SubwordNmt(path) for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["own", "apart", "more", "other"])
def test_merges_and_their_own_dictionaries(merges, name):
    own, lines = merges[name], text(2 if name == "other" else 1)
    for part in (lines, lines[:300], lines[:20], lines[:3]):
        assert mismatch(counted(own, part), own) is None
    for threshold in (2, 5, 30):
        assert mismatch(counted(own, lines, threshold=threshold), own) is None
    assert mismatch(counted(own, [*lines, "\u6f22\u5b57 ba x@@ @@ ba\u2028ba"]), own) is None


def test_words_of_one_character_are_never_merged(merges):
    entries = Entries(["!", "ba"], [9, 1])
    assert mismatch(entries, merges["own"]) is None
    assert "1 of the dictionary's 2 entries" in mismatch(Entries(["!@@", "ba"], [9, 1]), merges["own"])


def test_merges_of_other_text_and_other_numbers_of_merges(merges):
    entries = counted(merges["own"], text(1))
    for name in ("more", "other"):
        assert mismatch(entries, merges[name]), name
        assert mismatch(counted(merges[name], text(2 if name == "other" else 1)), merges["own"]), name
    assert "entries are no subwords, such as" in mismatch(entries, merges["other"])
    assert "more merges than the model that encoded" in mismatch(entries, merges["more"])


def test_merges_and_sentencepiece_models(models, merges):
    assert mismatch(counted(merges["own"], text(1)), models["own"])
    assert mismatch(counted(models["own"], text(1)), merges["own"])
    assert mismatch(written(models["own"]), Segmentation(kind="none").open()) is None


def test_merges_of_each_side_with_one_dictionary(merges):
    own, other = merges["own"], merges["other"]
    both = Counter(dict(zip(*counted(own, text(1)), strict=True))) + Counter(
        dict(zip(*counted(other, text(2)), strict=True))
    )
    assert joint_mismatch(Entries(list(both), list(both.values())), own, other) is None
    problem = joint_mismatch(counted(own, text(1)), own, other)
    assert f"all entries are subwords of {own.path} by itself" in problem


def test_escapes_of_moses():
    escaped, plain, neither = (Entries(symbols, [1] * len(symbols)) for symbols in (["&apos;t", "a"], ["'t"], ["a"]))
    assert tokenizer_caution(escaped, True) is None
    assert "--tokenizer moses" in tokenizer_caution(escaped, False)
    assert tokenizer_caution(plain, False) is None
    assert "--moses-no-escape" in tokenizer_caution(plain, True)
    assert tokenizer_caution(neither, True) is tokenizer_caution(neither, False) is None
