"""Folders of transformers: small MarianMT, M2M100 and NLLB models with random weights and trained subwords."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_compress.corpus.vocabulary import VocabularySettings, train_model

NAMES = ["anna", "ben", "carla", "david", "emma", "felix"]
LINES = {
    "en": [f"{name} sees the {animal} near the {place} ." for name in NAMES for animal in ("dog", "cat", "old horse")
           for place in ("river", "house", "small mill")],
    "cs": [f"{name} vidí {animal} blízko {place} ." for name in NAMES for animal in ("psa", "kočku", "starého koně")
           for place in ("řeky", "domu", "mlýna")],
}  # fmt: skip
SIZES = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 32, "max_position_embeddings": 40,
}  # fmt: skip
CODES = ("ces_Latn", "deu_Latn", "eng_Latn")


def transformers() -> Any:
    """The package, without torchaudio, which it would import; the test is skipped where it is missing."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("requires transformers: pip install transformers")
    sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]
    import transformers

    transformers.utils.import_utils.is_torchaudio_available.cache_clear()  # CTranslate2's converters asked before
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def write_sentencepiece(path: Path, lines: list[str], size: int, model_type: str = "bpe") -> list[str]:
    """Train a model of subwords and return its pieces."""
    import sentencepiece

    path.write_bytes(train_model(lines, VocabularySettings(size=size, model_type=model_type)))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(number) for number in range(3, len(processor))]


def randomized(model: Any, seed: int, end: int, ending: float = 5.0) -> Any:
    """A model with random weights, larger than for training so that outputs differ.

    ``end``, the number of ``</s>``, has a logit of about ``ending``, so that translations end.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if "layer_norm" in name:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(noise * (0.4 if parameter.dim() > 1 else 0.1))
        decoder = model.model.decoder
        bias = getattr(decoder, "layer_norm", decoder.layers[-1].final_layer_norm).bias
        model.get_output_embeddings().weight[end] += ending * bias / (bias @ bias)
    return model.eval()


def write_marian(folder: Path, seed: int = 1, languages: tuple[str, ...] = (), **config: Any) -> Any:
    """A folder with MarianMT as OPUS-MT has it, and the model; ``languages``: of the target, as ``>>LANG<<``."""
    package = transformers()
    folder.mkdir()
    pieces = [write_sentencepiece(folder / f"{side}.spm", LINES[language], 330)
              for side, language in (("source", "en"), ("target", "cs"))]  # fmt: skip
    separate = config.get("share_encoder_decoder_embeddings") is False
    codes = [f">>{each}<<" for each in languages]
    tables = [pieces[0] + codes, pieces[1]] if separate else [pieces[0] + pieces[1] + codes] * 2
    lists = [list(dict.fromkeys(["</s>", "<unk>", *table])) for table in tables]
    pad = max(map(len, lists))  # one number for both sides
    for name, entries in zip(("vocab.json", "target_vocab.json"), lists if separate else lists[:1], strict=False):
        whole = [*entries, *(f"<filler{number}>" for number in range(pad - len(entries))), "<pad>"]
        (folder / name).write_text(json.dumps({entry: number for number, entry in enumerate(whole)}))
    settings = SIZES | {
        "vocab_size": pad + 1, "decoder_vocab_size": pad + 1, "pad_token_id": pad, "eos_token_id": 0,
        "decoder_start_token_id": pad, "bad_words_ids": [[pad]], "scale_embedding": True, "forced_eos_token_id": 0,
        "activation_function": "swish", "normalize_before": False, "static_position_embeddings": True,
    } | config  # fmt: skip
    model = randomized(package.MarianMTModel(package.MarianConfig(**settings)), seed, 0)
    model.final_logits_bias.copy_(torch.randn(1, pad + 1, generator=torch.Generator().manual_seed(seed)))
    model.final_logits_bias[0, 0] += 3  # so that translations end
    model.save_pretrained(folder)
    tokenizer = {"source_lang": "en", "target_lang": "cs", "tokenizer_class": "MarianTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return model


def joint_entries(folder: Path) -> list[str]:
    """Make a folder with a SentencePiece model of both languages; the entries of its dictionary."""
    folder.mkdir()
    pieces = write_sentencepiece(folder / "sentencepiece.bpe.model", LINES["en"] + LINES["cs"], 340)
    return ["<s>", "<pad>", "</s>", "<unk>", *pieces]


def write_m2m100(folder: Path, seed: int = 1, **config: Any) -> Any:
    """A folder with M2M100 as it is published."""
    package, entries = transformers(), joint_entries(folder)
    (folder / "vocab.json").write_text(json.dumps({entry: number for number, entry in enumerate(entries)}))
    languages = [f"__{code}__" for code in ("cs", "de", "en")]
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": languages}))
    rows = len(entries) + len(languages) + 8  # transformers has eight more
    settings = SIZES | {"vocab_size": rows, "activation_function": "relu", "scale_embedding": True} | config
    model = randomized(package.M2M100ForConditionalGeneration(package.M2M100Config(**settings)), seed, 2)
    model.save_pretrained(folder)
    return model


def write_nllb(folder: Path, seed: int = 1, **config: Any) -> Any:
    """A folder with NLLB as it is published, with ``tokenizer.json``."""
    package, entries = transformers(), joint_entries(folder)
    added = [{"id": len(entries) + place, "content": code} for place, code in enumerate((*CODES, "<mask>"))]
    table = {
        "model": {"type": "BPE", "vocab": {entry: row for row, entry in enumerate(entries)}},
        "added_tokens": added,
    }
    (folder / "tokenizer.json").write_text(json.dumps(table))
    rows = len(entries) + len(added)
    settings = SIZES | {"vocab_size": rows, "activation_function": "relu", "scale_embedding": True} | config
    model = randomized(package.M2M100ForConditionalGeneration(package.M2M100Config(**settings)), seed, 2)
    model.save_pretrained(folder)
    return model
