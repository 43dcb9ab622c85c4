"""Encoding and decoding: nothing gets lost, whatever the text."""

import os
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from fairseq_compress.corpus.normalization import normalize_line
from fairseq_compress.corpus.segmentation import sentencepiece_model
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.corpus.segmentation.text_files import decode_file, encode_file
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import read_lines

SENTENCES = ["Malý pes běží přes zelenou louku.", "Dvě ženy sedí na lavičce a čtou.", "Muž v modré košili hraje."] * 5
SPECIALS = ["<unk>", "</s>", "<s> a <pad>", "x</s>y <unk>.", "<0x41><0x0A>", "a @@ b", "#fairseq:overwrite 1"]

any_text = st.text(st.characters(exclude_categories=["Cs"]))
czech = st.text("aábcčdďeéěfghiíjklmnňoópqrřsštťuúůvwxyýzžAÁŘŽ0123456789 .,!?-„“")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "text").write_text("\n".join(SENTENCES))
    build_vocabulary([folder / "text"], str(folder / "v"), VocabularySettings(size=330))
    return str(folder / "v")


@pytest.fixture(scope="module")
def segmenter(prefix: str) -> SentencePiece:
    return SentencePiece(f"{prefix}.model")


def round_trip(segmenter: SentencePiece, lines: list[str]) -> list[str]:
    return list(segmenter.decode(segmenter.encode(lines)))


@given(lines=st.lists(any_text, max_size=5))
@example(lines=["", "a", ""])
@example(lines=["\u2028", " \u2581 "])
def test_any_text_comes_back_normalized(prefix: str, segmenter: SentencePiece, lines: list[str]) -> None:
    rules = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    expected = [rules.normalize(normalize_line(line)).replace("▁", " ").strip() for line in lines]
    assert round_trip(segmenter, lines) == expected


@given(lines=st.lists(czech))
def test_ordinary_czech_comes_back_unchanged(segmenter: SentencePiece, lines: list[str]) -> None:
    assert round_trip(segmenter, lines) == [normalize_line(line) for line in lines]


@given(any_text)
def test_fairseq_sees_the_same_pieces(segmenter: SentencePiece, text: str) -> None:
    (line,) = segmenter.encode([text])
    assert line.split() == [piece for piece in line.split(" ") if piece]
    assert len(line.splitlines()) <= 1


@pytest.mark.parametrize("text", SPECIALS)
def test_text_that_looks_like_a_symbol_survives_fairseq(prefix: str, segmenter: SentencePiece, text: str) -> None:
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(f"{prefix}.dict.txt")
    (line,) = segmenter.encode([text])
    ids = dictionary.encode_line(line, add_if_not_exist=False)
    assert dictionary.unk() not in ids
    assert (ids == dictionary.eos()).sum() == 1  # the one that encode_line adds
    assert list(segmenter.decode([dictionary.string(ids)])) == [text]


def test_compatibility_characters_are_replaced_as_documented(segmenter: SentencePiece) -> None:
    assert round_trip(segmenter, ["ﬁ … ² „Ano“"]) == ["fi ... 2 „Ano“"]


def test_bytes_that_a_model_makes_up_keep_the_line_whole(segmenter: SentencePiece) -> None:
    assert list(segmenter.decode(["▁a <0x0A> ▁ a", "<0xFF> a", "<0x0D>"])) == ["a a", "\ufffda", ""]


def test_batches_keep_order_and_count(segmenter: SentencePiece, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [str(number) for number in range(10)]
    whole = list(segmenter.encode(lines))
    monkeypatch.setattr(sentencepiece_model, "BATCH_LINES", 3)
    assert list(segmenter.encode(lines)) == whole
    assert list(segmenter.encode([])) == []


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_no_model(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "v.model").write_bytes(content)
    with pytest.raises(DataError, match=r"v\.model"):
        SentencePiece(tmp_path / "v.model")


def test_half_a_model(tmp_path: Path, prefix: str) -> None:
    model = Path(f"{prefix}.model").read_bytes()
    (tmp_path / "v.model").write_bytes(model[: len(model) // 2])
    with pytest.raises(DataError, match="is not a sentencepiece model"):
        SentencePiece(tmp_path / "v.model")


def test_files_line_by_line(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "in").write_bytes("Muž\r\n \u2028\n\nžena".encode())
    assert encode_file(SentencePiece(f"{prefix}.model"), tmp_path / "in", tmp_path / "pieces") == 4
    assert decode_file(SentencePiece(f"{prefix}.model"), tmp_path / "pieces", tmp_path / "out") == 4
    assert (tmp_path / "out").read_text() == "Muž\n\n\nžena\n"


def data_folder() -> Path | None:
    named = os.environ.get("FAIRSEQ_COMPRESS_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    return folder / "multi30k" if (folder / "multi30k" / "val.cs").is_file() else None


@pytest.mark.shared_data
@pytest.mark.skipif(data_folder() is None, reason="no real text: set FAIRSEQ_COMPRESS_DATA")
@pytest.mark.parametrize("language", ["en", "cs"])
def test_real_text_comes_back_exactly(tmp_path: Path, language: str) -> None:
    folder = data_folder()
    assert folder is not None
    build_vocabulary([folder / f"train.{language}"], str(tmp_path / "v"), VocabularySettings(size=4000))
    source = folder / f"val.{language}"
    encode_file(SentencePiece(tmp_path / "v.model"), source, tmp_path / "pieces")
    decode_file(SentencePiece(tmp_path / "v.model"), tmp_path / "pieces", tmp_path / "out")
    assert list(read_lines(tmp_path / "out")) == [normalize_line(line) for line in read_lines(source)]
