"""Folders of transformers with MarianMT (OPUS-MT), M2M100 or NLLB.

Their layers are those of fairseq's transformer; ``huggingface_weights.py`` tells what differs. The model adds the
tokens of its languages to every sentence itself (:mod:`fairseq_compress.models.language_tokens`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_compress.architecture.reading import to_json
from fairseq_compress.architecture.shape import Architecture, Embeddings, LanguageTokens
from fairseq_compress.checkpoint.imports import ImportRequest
from fairseq_compress.checkpoint.imports.huggingface_config import Config
from fairseq_compress.checkpoint.imports.huggingface_vocabulary import (
    Vocabulary,
    marian_vocabulary,
    multilingual_vocabulary,
)
from fairseq_compress.checkpoint.imports.huggingface_weights import converted, marian_inputs, tables_of
from fairseq_compress.checkpoint.imports.imported import ImportedModel
from fairseq_compress.checkpoint.imports.safetensors_files import read_json, read_weights
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.vocabulary_match import Entries, joint_mismatch, mismatch
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.options import flag
from fairseq_compress.work.files import PathLike, file_sha256

TITLE = "a folder of transformers with MarianMT, M2M100 or NLLB: config.json and model.safetensors"
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
FAMILIES = {"marian": "MarianMT", "m2m_100": "M2M100"}
SENTENCEPIECE = {"marian": ("source.spm", "target.spm"), "m2m_100": ("sentencepiece.bpe.model", None)}
MARIAN_LANGUAGE = re.compile(r">>(\S+)<<")
LANGUAGE = re.compile(r"__(\w+)__|([a-z]{3}_[A-Z][a-z]{3})")
SHOWN = 5  # languages in a message


def recognizes(path: Path) -> bool:
    return (path / CONFIG).is_file()


def read(path: Path, request: ImportRequest) -> ImportedModel:
    config = Config(path / CONFIG, read_json(path / CONFIG))
    family = config.choice("model_type", tuple(FAMILIES))
    if "quantization_config" in config.values:
        raise DataError(f"{config.path}: quantization_config: must not be there, only float weights can be read")
    settings = read_json(path / TOKENIZER) if (path / TOKENIZER).is_file() else {}
    sentencepiece = request.sentencepiece or _sentencepiece_files(path, *SENTENCEPIECE[family])
    marian = family == "marian"
    config.check_family(marian)
    weights = read_weights(path)
    tables = tables_of(weights, config)
    rows = [len(table) for table in (tables.encoder, tables.decoder)]
    if marian:
        vocabularies = _marian_vocabularies(path, rows)
        languages = _languages(request, settings)
        tokens = LanguageTokens(source=_marian_token(vocabularies[0], languages[1]))
    else:
        vocabularies = (multilingual_vocabulary(path, sentencepiece[0], rows[0]),) * 2
        if settings.get("legacy_behaviour"):
            raise DataError(
                f"{path / TOKENIZER}: legacy_behaviour: must be false, so that the source language is told before a "
                "sentence, not behind it, got true"
            )
        languages = _languages(request, {})
        tokens = LanguageTokens(*(_token(vocabularies[0], *each) for each in zip(SIDES, languages, strict=True)))
    config.check_specials(vocabularies, marian)
    _check_pieces(vocabularies, sentencepiece)
    embeddings = Embeddings(tying=tables.tying)
    architecture = Architecture(*config.stacks(), embeddings=embeddings, language_tokens=tokens, output_bias=marian)
    made = converted(weights, tables, vocabularies, marian)
    if marian:
        made |= marian_inputs(weights, tables, vocabularies[1], config)
    options = config.options(marian) | {"architecture": to_json(architecture)}
    symbols = vocabularies[0].ordered(), vocabularies[1].ordered()
    return ImportedModel(options, made, symbols, languages, sentencepiece, _title(family, vocabularies[0]))


SIDES = ("source", "target")


def _title(family: str, vocabulary: Vocabulary) -> str:
    nllb = family == "m2m_100" and vocabulary.place("__en__") is None
    return "NLLB" if nllb else FAMILIES[family]


def _sentencepiece_files(folder: Path, source: str, target: str | None) -> tuple[PathLike, PathLike | None]:
    files = [folder / name for name in (source, target) if name is not None]
    if missing := [file for file in files if not file.is_file()]:
        raise DataError(
            f"{missing[0]}: no such file; --sentencepiece-model, or --source-sentencepiece-model and "
            "--target-sentencepiece-model, name the SentencePiece models"
        )
    own_target = len(files) == 2 and file_sha256(files[0]) != file_sha256(files[1])
    return files[0], files[1] if own_target else None


def _marian_vocabularies(folder: Path, rows: list[int]) -> tuple[Vocabulary, Vocabulary]:
    """Those of source and target, which most models share."""
    own = folder / "target_vocab.json"
    source = marian_vocabulary(folder / "vocab.json", rows[0])
    return source, marian_vocabulary(own, rows[1]) if own.is_file() else source


def _languages(request: ImportRequest, settings: Mapping[str, Any]) -> tuple[str, str]:
    """Those that are given, or those of the tokenizer."""
    found = [given or settings.get(f"{side}_lang") for side, given in zip(SIDES, request.languages, strict=True)]
    missing = [flag(f"{side}_lang") for side, language in zip(SIDES, found, strict=True) if not language]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: must be given, the model does not tell the languages")
    return str(found[0]), str(found[1])


def _marian_token(vocabulary: Vocabulary, target: str) -> tuple[int, ...]:
    """``>>LANG<<`` of a model with several target languages; none of others."""
    known = [match[1] for symbol in vocabulary.symbols if (match := MARIAN_LANGUAGE.fullmatch(symbol))]
    if not known:
        return ()
    if target not in known:
        raise ConfigError(f"--target-lang: must be one of the model's languages ({_some(known)}), got {target}")
    index = vocabulary.number(f">>{target}<<")
    assert index is not None
    return (index,)


def _token(vocabulary: Vocabulary, side: str, language: str) -> tuple[int, ...]:
    """The token of a language of M2M100, ``__en__``, or NLLB, ``eng_Latn``."""
    for symbol in (f"__{language}__", language):
        if LANGUAGE.fullmatch(symbol) and (index := vocabulary.number(symbol)) is not None:
            return (index,)
    matches = [LANGUAGE.fullmatch(symbol) for symbol in vocabulary.symbols]
    known = [match[1] or match[2] for match in matches if match]
    if not known:
        raise DataError(
            f"{vocabulary.origin.parent}: must have the tokens of the languages, in tokenizer.json, "
            "tokenizer_config.json, special_tokens_map.json or added_tokens.json"
        )
    raise ConfigError(f"{flag(f'{side}_lang')}: must be one of the model's languages ({_some(known)}), got {language}")


def _some(languages: list[str]) -> str:
    more = f" and {len(languages) - SHOWN} more" if len(languages) > SHOWN else ""
    return ", ".join(languages[:SHOWN]) + more


def _check_pieces(vocabularies: tuple[Vocabulary, Vocabulary], files: tuple[PathLike, PathLike | None]) -> None:
    """Refuse SentencePiece models of another vocabulary, as every verb would."""
    segmenter = Segmentation(*files).open()
    entries = [Entries(each.ordered(), [1] * len(each.ordered())) for each in vocabularies]
    if files[1] is not None and vocabularies[0] is vocabularies[1]:
        found = [(files[0], joint_mismatch(entries[0], segmenter, segmenter.target))]
    else:
        own = zip((files[0], files[1] or files[0]), entries, (segmenter, segmenter.target), strict=True)
        found = [(file, mismatch(listed, model)) for file, listed, model in own]
    for file, problem in found:
        if problem:
            raise DataError(f"{file}: does not belong to {vocabularies[0].origin}: {problem}")
