"""A teacher's tables over two vocabularies: the union, means of segmentations, pieces with and without a word start."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from fairseq.data import Dictionary

import fairseq_compress.models as our_models  # noqa: F401 - registers them
from fairseq_compress.corpus.segmentation.sentencepiece_model import piece_segmenter
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary
from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.surgery.extend_vocabulary import extend_vocabulary, extended_table, segmentations

SENTENCES = ["Malý pes běží přes zelenou louku.", "Dvě ženy sedí na lavičce a čtou.", "Muž v modré košili hraje."] * 5
SIZES = {"teacher": 330, "student": 312}
SMALL = {
    "encoder_layers": 1, "encoder_embed_dim": 8, "encoder_ffn_embed_dim": 6, "encoder_attention_heads": 2,
    "decoder_layers": 1, "decoder_embed_dim": 8, "decoder_ffn_embed_dim": 6, "decoder_attention_heads": 2,
}  # fmt: skip
APART = {"share_all_embeddings": False, "share_decoder_input_output_embed": False}


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """The prefixes of teacher and student; the student's text has words of its own."""
    folder = tmp_path_factory.mktemp("vocabularies")
    (folder / "teacher.txt").write_text("\n".join(SENTENCES))
    (folder / "student.txt").write_text("\n".join(["Kuchař hraje a vaří ☃ doma."] * 9))
    for name, size in SIZES.items():
        build_vocabulary([folder / f"{name}.txt"], str(folder / name), VocabularySettings(size=size))
    return folder


@pytest.fixture(scope="module")
def dictionaries(vocabularies):
    """Of teacher, student and union."""
    teacher, student = (Dictionary.load(str(vocabularies / f"{name}.dict.txt")) for name in SIZES)
    return teacher, student, as_dictionary(list(dict.fromkeys([*teacher.symbols, *student.symbols])))


def as_dictionary(symbols):
    dictionary = Dictionary()
    for symbol in symbols[len(dictionary) :]:
        dictionary.add_symbol(symbol)
    return dictionary


def make(dictionary, **values):
    torch.manual_seed(1)
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    return models.build_model(argparse.Namespace(arch="transformer", **SMALL, **values), task)


def test_means_by_hand():
    table = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]])
    found = extended_table(table, [[0, 1], [2], [0, 0, 1, 2]])
    assert found.tolist() == [*table.tolist(), [2.0, 4.0], [5.0, 1.0], [2.5, 2.75]]
    assert extended_table(table[:, 1], [[0, 1]]).tolist() == [2.0, 6.0, 1.0, 4.0]
    assert extended_table(table.half(), [[0, 1]]).dtype == torch.float16
    nothing = extended_table(table, [])
    assert torch.equal(nothing, table)
    assert nothing.data_ptr() != table.data_ptr()


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        (torch.zeros(3, 2), [[0], []], "got none for number 1"),
        (torch.zeros(3, 2), [[3]], "rows 0 to 2, got 3"),
        (torch.zeros(3, 2), [[-1]], "rows 0 to 2, got -1"),
        (torch.zeros(3, 2, 1), [[0]], r"floating \(V, D\) or \(V,\)"),
        (torch.zeros(3, 2).long(), [[0]], "floating"),
    ],
)
def test_wrong_tables_are_refused(table, rows, message):
    with pytest.raises(ValueError, match=message):
        extended_table(table, rows)


def test_every_piece_of_a_model_is_cut_as_itself(vocabularies, dictionaries):
    """So no word start is added to any, and none is lost."""
    for name, dictionary in zip(SIZES, dictionaries, strict=False):
        segment = piece_segmenter(vocabularies / f"{name}.model")
        assert [segment(symbol) for symbol in dictionary.symbols[4:]] == [[symbol] for symbol in dictionary.symbols[4:]]


def test_pieces_of_the_other_model_keep_their_text(vocabularies, dictionaries):
    teacher, student, _ = dictionaries
    segment = piece_segmenter(vocabularies / "teacher.model")
    new = [symbol for symbol in student.symbols if symbol not in teacher.symbols]
    assert any(symbol.startswith("▁") for symbol in new)
    assert any(not symbol.startswith("▁") for symbol in new)
    for symbol in new:
        cut = segment(symbol)
        text = b"".join(bytes([int(p[1:-1], 16)]) if p.startswith("<0x") else p.encode() for p in cut).decode()
        assert text == symbol
        assert all(piece in teacher for piece in cut)
    assert segment("☃") == ["<0xE2>", "<0x98>", "<0x83>"]
    assert segment("▁☃") == ["▁", "<0xE2>", "<0x98>", "<0x83>"]
    assert (segment("es"), segment("▁es"), segment("▁")) == (["es"], ["▁", "es"], ["▁"])
    assert segment("<0x41>") == ["<0x41>"]


def test_no_model_is_an_error(tmp_path):
    (tmp_path / "x.model").write_text("x")
    with pytest.raises(DataError, match="is not a sentencepiece model"):
        piece_segmenter(tmp_path / "x.model")
    with pytest.raises(DataError, match="cannot read"):
        piece_segmenter(tmp_path / "y.model")


@pytest.mark.parametrize("tied", ["all", "output", "none"])
def test_an_extended_teacher(vocabularies, dictionaries, tied):
    """It loads, keeps what it knew bit for bit, has means in the new rows, and its ties."""
    teacher, _, union = dictionaries
    options = {"all": {"share_all_embeddings": True}, "output": APART | {"share_decoder_input_output_embed": True},
               "none": APART}[tied]  # fmt: skip
    model = make(teacher, **options)
    segment = piece_segmenter(vocabularies / "teacher.model")
    before = model.state_dict()
    after = extend_vocabulary(before, union, teacher, segment)
    larger = make(union, **options)
    larger.load_state_dict(dict(after), strict=True)
    assert after.keys() == before.keys()
    keys = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
    places = [after[key].data_ptr() for key in keys]
    assert len(set(places)) == {"all": 1, "output": 2, "none": 3}[tied]
    assert (places[1] == places[2]) == (tied != "none")
    for key, value in before.items():
        if key not in keys:
            assert after[key] is value
            continue
        assert torch.equal(after[key][: len(teacher)], value)
        for row in range(len(teacher), len(union)):
            ids = [teacher.index(piece) for piece in segment(union[row])]
            assert torch.allclose(after[key][row], sum(value[i] for i in ids) / len(ids), atol=1e-6)


def test_old_pieces_get_the_scores_they_had(vocabularies, dictionaries):
    teacher, _, union = dictionaries
    model, larger = make(teacher), make(union)
    weights = extend_vocabulary(model.state_dict(), union, teacher, piece_segmenter(vocabularies / "teacher.model"))
    larger.load_state_dict(dict(weights), strict=True)
    tokens, lengths = torch.tensor([[5, 9, 300, 2]]), torch.tensor([4])
    scores = [each.eval()(tokens, lengths, tokens)[0] for each in (model, larger)]
    assert torch.allclose(scores[1][..., : len(teacher)], scores[0], atol=1e-6)


def test_a_bias_of_the_output_is_extended():
    teacher, union = as_dictionary(["", "", "", "", "a", "b"]), as_dictionary(["", "", "", "", "a", "b", "ab"])
    table = torch.arange(12.0).view(6, 2)
    names = "encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection"
    weights = {f"{name}.weight": table.clone() for name in names}
    weights["decoder.output_projection.bias"] = torch.tensor([0.0, 0, 0, 0, 3, 5])
    after = extend_vocabulary(weights, union, teacher, list)
    assert after["decoder.output_projection.bias"].tolist() == [0, 0, 0, 0, 3, 5, 4]
    assert after["encoder.embed_tokens.weight"][-1].tolist() == [9, 10]


def test_what_the_teacher_cannot_write_starts_from_unk(caplog):
    teacher, union = as_dictionary([""] * 4 + ["a"]), as_dictionary([""] * 4 + ["a", "☃", "gone", "aa"])
    with caplog.at_level("INFO"):
        found = segmentations(union, teacher, {"☃": ["☃"], "gone": [], "aa": ["a", "a"]}.__getitem__)
    assert found == [[3], [3], [4, 4]]
    assert "3 pieces added to 5, 2 of them from <unk>" in caplog.text


def test_wrong_dictionaries_and_tables_are_refused():
    teacher, other = as_dictionary([""] * 4 + ["a", "b"]), as_dictionary([""] * 4 + ["a", "c", "b"])
    with pytest.raises(ConfigError, match=r"union: must begin with the teacher's 6 entries, got \['c'\] for 'b' at 5"):
        segmentations(other, teacher, list)
    with pytest.raises(ConfigError, match=r"got \[\] for 'b' at 5"):
        segmentations(as_dictionary([""] * 4 + ["a"]), teacher, list)
    names = "encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection"
    weights = {f"{name}.weight": torch.zeros(6, 2) for name in names}
    with pytest.raises(CheckpointError, match=r"decoder.embed_tokens.weight must have 6 rows, .*, got 7"):
        extend_vocabulary(weights | {"decoder.embed_tokens.weight": torch.zeros(7, 2)}, teacher, teacher, list)
    del weights["encoder.embed_tokens.weight"]
    with pytest.raises(CheckpointError, match="got no plain table"):
        extend_vocabulary(weights, teacher, teacher, list)
