"""``fairseq-compress import``: a model of another toolkit -> a checkpoint with its dictionaries."""

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress.checkpoint.imports import FORMATS, ImportRequest
from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.options import option

HELP = (
    "Convert a trained model of another toolkit to a folder that every verb takes: model.pt, dict.LANG.txt of both "
    "languages and the SentencePiece models. No file is unpickled and no code of the model is run."
)
EXAMPLES = (
    "model.intgemm.alphas.bin imported --sentencepiece-model vocab.spm --source-lang en --target-lang cs",
    "model.npz imported --sentencepiece-model vocab.spm --source-lang en --target-lang cs",
)
POSITIONAL = ("model", "output")


@dataclass(frozen=True)
class SentencePieceModels:
    """One SentencePiece model for both languages, or one for each."""

    sentencepiece_model: str | None = option(None, "SentencePiece model of both languages", metavar="M.model")
    source_sentencepiece_model: str | None = option(
        None, "SentencePiece model of the source, if each language has its own", metavar="M.model"
    )
    target_sentencepiece_model: str | None = option(
        None, "SentencePiece model of the target, if each language has its own", metavar="M.model"
    )

    def given(self) -> tuple[str, str | None] | None:
        """The model of the source, and that of the target, None if it is the same; None without models."""
        source, target = self._both()
        return None if source is None else (source, None if target == source else target)

    def problems(self) -> Iterator[str]:
        source, target = self._both()
        if (source is None) != (target is None):
            side = "source" if source is None else "target"
            yield f"--{side}-sentencepiece-model: must be given too, or --sentencepiece-model for both sides"

    def _both(self) -> tuple[str | None, str | None]:
        both = self.sentencepiece_model
        return self.source_sentencepiece_model or both, self.target_sentencepiece_model or both


@dataclass(frozen=True, kw_only=True)
class Options:
    model: str = option(help="a file or folder of the other toolkit", metavar="MODEL")
    output: str = common.output("the new folder, which must not exist", "DIR")
    format: str | None = option(None, "format of the model; default: found in the file", choices=tuple(FORMATS))
    source_lang: str | None = common.language("source language; default: as the model says")
    target_lang: str | None = common.language("target language; default: as the model says")
    sentencepiece: SentencePieceModels = part(SentencePieceModels, "subwords, where they are not next to the model")

    def problems(self) -> Iterator[str]:
        if self.source_lang is not None and self.source_lang == self.target_lang:
            yield f"--target-lang: must differ from --source-lang, got {self.target_lang}"


def run(args: Options) -> None:
    from fairseq_compress.checkpoint.average import count_parameters
    from fairseq_compress.checkpoint.imports import import_model
    from fairseq_compress.checkpoint.imports.imported import write_imported

    request = ImportRequest((args.source_lang, args.target_lang), args.sentencepiece.given())
    model = import_model(args.model, args.format, request)
    state = write_imported(model, args.output)
    source, target = model.languages
    common.tell(
        f"{args.output}: {model.title}, {source} to {target}, {len(model.symbols[0]):,} and {len(model.symbols[1]):,} "
        f"subwords, {count_parameters(state['model']):,} parameters"
    )
