"""A SentencePiece model as Marian wants it: ``</s>`` is 0, ``<unk>`` 1, then the pieces of text in their order."""

from typing import Any, NamedTuple

from sentencepiece import sentencepiece_model_pb2

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike

EOS, UNKNOWN = "</s>", "<unk>"
MULTIPLE = 8  # of the size: Marian's 8-bit product has no other numbers of columns
_Proto: Any = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]
_Piece: Any = _Proto.SentencePiece
_Types: Any = _Piece.Type


class Vocabulary(NamedTuple):
    """A serialized model, its pieces by id, and the ids that stand for no piece of text."""

    model: bytes
    pieces: list[str]
    unused: int
    unigram: bool


def marian_vocabulary(path: PathLike) -> Vocabulary:
    """The model of a file in Marian's order, filled up with unused pieces to a multiple of 8."""
    proto = _Proto()
    try:
        with open(path, "rb") as stream:
            proto.ParseFromString(stream.read())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    unknown = [piece for piece in proto.pieces if piece.type == _Types.UNKNOWN]
    if len(unknown) != 1:
        raise DataError(f"{path}: must have one unknown piece, has {len(unknown)}")
    text = [piece for piece in proto.pieces if piece.type not in (_Types.CONTROL, _Types.UNKNOWN)]
    whole = [_Piece(piece=EOS, score=0, type=_Types.CONTROL), *unknown, *text]
    unused = -len(whole) % MULTIPLE
    whole += [_Piece(piece=f"<unused{i}>", score=0, type=_Types.UNUSED) for i in range(unused)]
    kept = [piece.SerializeToString() for piece in whole]
    del proto.pieces[:]
    proto.pieces.extend(_Piece.FromString(piece) for piece in kept)
    trainer = proto.trainer_spec
    trainer.eos_id, trainer.unk_id, trainer.bos_id, trainer.pad_id = 0, 1, -1, -1
    trainer.vocab_size = len(kept)
    pieces = [EOS, UNKNOWN, *(piece.piece for piece in proto.pieces[2:])]
    unigram = trainer.model_type == trainer.ModelType.Value("UNIGRAM")
    return Vocabulary(proto.SerializeToString(), pieces, unused, unigram)
