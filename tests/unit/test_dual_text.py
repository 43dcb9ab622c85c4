"""Text that is encoded once in two vocabularies: what comes out of it is what the models say."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from fairseq_compress.cli.main import main
from fairseq_compress.corpus import encode_dual as encoding
from fairseq_compress.corpus.dual_text import EOS, PAD, UNK, DualText, ragged_places
from fairseq_compress.corpus.encode_dual import VocabularyFiles, encode_dual
from fairseq_compress.corpus.normalization import normalize_line
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import read_lines
from tests.helpers.dual_corpus import LANGUAGES, make_folder, make_lines, make_vocabularies, spell, symbols, write_text

LINES = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("dual"), train=LINES)


def files_of(folder: Path) -> list[VocabularyFiles]:
    names = ("teacher", "student")
    return [VocabularyFiles(folder.parent / f"{name}.model", folder.parent / f"{name}.dict.txt") for name in names]


def text_of(folder: Path, language: str, part: str = "train") -> list[str]:
    return list(read_lines(folder.parent / f"{part}.{language}"))


def test_special_entries_are_those_of_fairseq() -> None:
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    assert (dictionary.pad(), dictionary.eos(), dictionary.unk(), len(dictionary)) == (PAD, EOS, UNK, 4)


@pytest.mark.parametrize("language", LANGUAGES)
def test_pure_segmentations_are_those_of_the_models_and_fairseq(folder: Path, language: str) -> None:
    from fairseq.data import Dictionary

    text = DualText(folder, "train", language)
    assert len(text) == LINES
    for files, name in zip(files_of(folder), ("teacher", "student"), strict=True):
        dictionary = Dictionary.load(str(folder / f"dict.{name}.txt"))
        assert len(dictionary) == text.entries[name]
        for index, line in enumerate(SentencePiece(files.model).encode(text_of(folder, language))):
            expected = dictionary.encode_line(line, add_if_not_exist=False, append_eos=False)
            assert getattr(text, name)(text.word_types(index))[0].tolist() == expected.tolist()


def test_the_union_has_the_teachers_entries_first(folder: Path) -> None:
    teacher, student, union = (symbols(folder / f"dict.{name}.txt") for name in ("teacher", "student", "union"))
    assert union[: len(teacher)] == teacher
    assert union[len(teacher) :] == [piece for piece in student if piece not in teacher] != []
    text = DualText(folder, "valid", "cs")
    assert [union[place] for place in text.teacher_to_union] == teacher
    assert [union[place] for place in text.student_to_union] == student
    assert text.entries == {"teacher": len(teacher), "student": len(student), "union": len(union)}


def check_mixtures(folder: Path, language: str, part: str, lines: list[str], rate: float) -> None:
    """Each word of each sentence, cut by the vocabulary that was drawn for it, spells the word of the line."""
    text, union = DualText(folder, part, language), symbols(folder / "dict.union.txt")
    files = files_of(folder)
    rules = sentencepiece.SentencePieceProcessor(model_file=str(files[0].model))
    draw = np.random.default_rng(5)
    for index, line in enumerate(lines):
        expected = rules.normalize(normalize_line(line)).split("▁")[1:]
        types = text.word_types(index)
        assert len(types) == len(expected) == text.sizes.words[index]
        ids, words = text.segment(types, draw.random(len(types)) < rate)
        pieces: list[list[str]] = [[] for _ in expected]
        for place, word in zip(ids.tolist(), words.tolist(), strict=True):
            pieces[word].append(union[place])
        assert (np.diff(words) >= 0).all()
        assert all("▁" not in "".join(word)[1:] for word in pieces)
        assert [spell(word) for word in pieces] == [f"▁{word}" for word in expected]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_any_mixture_spells_the_sentence(folder: Path, language: str, rate: float) -> None:
    check_mixtures(folder, language, "train", text_of(folder, language), rate)


def data_folder() -> Path | None:
    named = os.environ.get("FAIRSEQ_COMPRESS_DATA")
    found = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    return found if (found / "tatoeba" / "tatoeba.cs").is_file() else None


@pytest.mark.shared_data
@pytest.mark.skipif(data_folder() is None, reason="no real text: set FAIRSEQ_COMPRESS_DATA")
def test_alignments_of_20000_real_sentences(tmp_path: Path) -> None:
    """News, captions and talk, by vocabularies that have seen captions only."""
    data = data_folder()
    assert data is not None
    parts = {"multi30k": 4000, "news": 3000, "tatoeba": 3000}
    names = {"multi30k": "train", "news": "newstest2013", "tatoeba": "tatoeba"}
    for part, count in parts.items():
        lines = {name: list(read_lines(data / part / f"{names[part]}.{name}"))[:count] for name in LANGUAGES}
        write_text(tmp_path / part, lines)
    captions = [data / "multi30k" / f"val.{language}" for language in LANGUAGES]
    teacher, student = make_vocabularies(tmp_path, captions, teacher=3000, student=600)
    prefixes = {part: str(tmp_path / part) for part in parts}
    meta = encode_dual(prefixes, LANGUAGES, teacher, student, tmp_path / "dual")
    assert sum(2 * facts["sentences"] for facts in meta.parts.values()) == 20000
    for part in parts:
        for language in LANGUAGES:
            check_mixtures(tmp_path / "dual", language, part, text_of(tmp_path / "dual", language, part), 0.5)


def test_sizes_and_batches_against_loops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairseq_compress.corpus.dual_text.SENTENCES_AT_ONCE", 7)
    text = DualText(folder, "train", "cs")
    lengths = []
    for index in range(len(text)):
        types = text.word_types(index)
        counts = [[len(cut(types[[place]])[0]) for cut in (text.teacher, text.student)] for place in range(len(types))]
        lengths.append((len(types), sum(t for t, _ in counts), sum(s for _, s in counts), sum(map(max, counts))))
    assert list(zip(*(values.tolist() for values in text.sizes), strict=True)) == lengths
    assert 0 in text.sizes.words
    indices = np.array([9, 2, 250, 2])
    types, counts = text.batch(indices)
    assert types.tolist() == [value for index in indices for value in text.word_types(index)]
    assert counts.tolist() == [lengths[index][0] for index in indices]


def test_places_by_hand() -> None:
    assert ragged_places(np.array([7, 3, 0, 5]), np.array([2, 0, 1, 3])).tolist() == [7, 8, 0, 5, 6, 7]
    assert ragged_places(np.zeros(0, int), np.zeros(0, int)).tolist() == []


def test_the_same_files_whatever_the_block(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH_LINES", 8)
    parts = {part: str(folder.parent / part) for part in ("train", "valid")}
    encode_dual(parts, LANGUAGES, *files_of(folder), tmp_path / "dual")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dual"]
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "dual" / path.name).read_bytes()
    text = pickle.loads(pickle.dumps(DualText(folder, "valid", "en")))
    assert text.word_types(3).tolist() == DualText(tmp_path / "dual", "valid", "en").word_types(3).tolist()


def test_the_verb(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: list[Any] = ["--source-lang", "en", "--target-lang", "cs", "--trainpref", folder.parent / "train"]
    arguments += ["--testpref", *[folder.parent / "valid"] * 2, "--output", tmp_path / "new" / "dual"]
    for name, files in zip(("teacher", "student"), files_of(folder), strict=True):
        arguments += [f"--{name}-sentencepiece-model", files.model, f"--{name}-dictionary", files.dictionary]
    assert main(["encode-dual", *map(str, arguments)]) == 0
    assert "train 300, test 40, test1 40 sentences" in capsys.readouterr().err
    text = DualText(tmp_path / "new" / "dual", "test1", "en")
    assert len(text) == 40
    with pytest.raises(DataError, match="has no part 'valid' in 'en', but train, test, test1 in en and cs"):
        DualText(tmp_path / "new" / "dual", "valid", "en")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def new_format(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "other"}))


DAMAGE = [
    ("meta.json", new_format, r"meta\.json: the format must be .*, got 'other'"),
    ("meta.json", truncate, r"meta\.json: damaged: not valid JSON \(JSONDecodeError"),
    ("meta.json", Path.unlink, r"cannot read .*meta\.json: .*; encode-dual writes it"),
    ("dict.student.txt", alter, r"dict\.student\.txt: altered: SHA-256 must be"),
    ("dict.union.txt", Path.unlink, r"cannot read .*dict\.union\.txt"),
    ("train.cs.types.bin", truncate, r"types\.bin: must have [\d,]+ bytes by meta\.json, got"),
    ("train.cs.offsets.bin", Path.unlink, r"cannot read .*offsets\.bin"),
    ("train.cs.offsets.bin", alter, r"offsets\.bin: damaged, offsets must rise from 0 to"),
    ("train.cs.types.bin", lambda path: path.write_bytes(b"\xff" * path.stat().st_size), r"a word is of no type"),
    ("pieces.bin", lambda path: path.write_bytes(b"\x7f" * path.stat().st_size), r"a piece is no entry"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_damaged_folders_are_refused(folder: Path, tmp_path: Path, name: str, damage: Any, message: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    damage(copy / name)
    with pytest.raises(DataError, match=message):
        _ = DualText(copy, "train", "cs").sizes


def test_a_failure_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    teacher, student = files_of(folder)
    lines = make_lines("en", 20, 3)
    uneven = write_text(tmp_path / "uneven", {"en": lines, "cs": lines[1:]})
    good = write_text(tmp_path / "good", {"en": lines, "cs": lines})
    Path(f"{tmp_path}/broken.en").write_bytes(b"a\n\xff\n")
    Path(f"{tmp_path}/broken.cs").write_bytes(b"a\nb\n")
    (tmp_path / "short.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols(student.dictionary)[4:-3]))
    (tmp_path / "more.txt").write_text("".join(f"{symbol} 1\n" for symbol in [*symbols(student.dictionary)[4:], "qx"]))
    (tmp_path / "twice.txt").write_text("a 1\nb 1\na 1\n")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"parts": {"train": good, "valid": uneven}}, DataError, "line counts differ"),
        ({"parts": {"train": str(tmp_path / "broken")}}, DataError, r"broken\.en, line 2: not valid UTF-8"),
        ({"parts": {"train": str(tmp_path / "none")}}, DataError, r"cannot read .*none\.en"),
        ({"parts": {}}, ConfigError, "parts: at least one"),
        ({"parts": {"a/b": good}}, ConfigError, r"must be letters, digits, '-' and '_', got 'a/b'"),
        ({"languages": ("en", "c/s")}, ConfigError, r"--target-lang: must be a language code .*, got 'c/s'"),
        ({"languages": ("en", "en")}, ConfigError, "must differ, got en twice"),
        ({"student": student._replace(dictionary=tmp_path / "short.txt")}, DataError, r"short\.txt: .* lacks 3, such"),
        (
            {"student": student._replace(dictionary=tmp_path / "more.txt")},
            DataError,
            r"more\.txt: must be the dictionary of .*: 1 of the dictionary's .* no pieces, such as 'qx'",
        ),
        ({"teacher": teacher._replace(dictionary=tmp_path / "twice.txt")}, DataError, r"line 3: .* 'a' is in line 1"),
        ({"output": folder}, ConfigError, r"--output: must not be there yet"),
        ({"output": tmp_path / "good.en" / "dual"}, DataError, r"cannot make the folder"),
    ]
    before = sorted(tmp_path.iterdir())
    usual = {"parts": {"train": good}, "languages": LANGUAGES, "teacher": teacher, "student": student}
    for changed, error, message in cases:
        with pytest.raises(error, match=message):
            encode_dual(**({"output": tmp_path / "out"} | usual | changed))
        assert sorted(tmp_path.iterdir()) == before
