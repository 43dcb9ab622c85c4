"""Does an exported model translate as the checkpoint does? The same sentences through both, and what differs."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress.corpus.files import PathLike, check_parallel, read_lines
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.errors import CheckError, ConfigError
from fairseq_compress.inference.translation_lines import LineOptions, PieceTranslator, translate_lines

MAX_BLEU_LOSS = {"float32": 0.05}  # of the quantizations that lose nothing
MAX_BLEU_LOSS_QUANTIZED = 0.3


@dataclass(frozen=True)
class CheckOptions:
    """What is translated and what may be lost.

    Raises:
        ConfigError: a value is out of its range.
    """

    source: Path
    reference: Path
    sentences: int = 1000
    max_bleu_loss: float = 0.05

    def __post_init__(self) -> None:
        if self.sentences < 1:
            raise ConfigError(f"--check-sentences: must be at least 1, got {self.sentences}")
        if self.max_bleu_loss < 0:
            raise ConfigError(f"--max-bleu-loss: must not be negative, got {self.max_bleu_loss}")


def compare_models(
    original: PieceTranslator, exported: PieceTranslator, segmenter: Segmenter, options: CheckOptions
) -> dict[str, Any]:
    """Translate the first sentences of the source with both.

    Returns:
        the number of sentences, the share with equal output, BLEU and chrF2 of both, their differences (exported minus
        original) and the signatures.

    Raises:
        CheckError: the exported model loses more BLEU than it may.
        DataError: source and reference are missing or of different length.
    """
    check_parallel(options.source, options.reference)
    references = list(islice(read_lines(options.reference), options.sentences))
    outputs = [_translate(model, segmenter, options.source, options.sentences) for model in (original, exported)]
    equal = sum(one == two for one, two in zip(*outputs, strict=True))
    result: dict[str, Any] = {
        "sentences": len(references),
        "equal": round(equal / len(references), 4),
        "max_bleu_loss": options.max_bleu_loss,
    }
    for name, metric in (("bleu", BLEU()), ("chrf2", CHRF())):
        before, after = (metric.corpus_score(output, [references]).score for output in outputs)
        result[name] = {
            "checkpoint": round(before, 3),
            "exported": round(after, 3),
            "difference": round(after - before, 3),
            "signature": str(metric.get_signature()),
        }
    if not result["bleu"]["difference"] >= -options.max_bleu_loss:
        raise CheckError(
            f"the exported model loses {-result['bleu']['difference']:.3f} BLEU ({result['bleu']['exported']:.2f}, the "
            f"checkpoint {result['bleu']['checkpoint']:.2f}; {result['equal']:.1%} of {len(references)} outputs are "
            f"equal), more than --max-bleu-loss {options.max_bleu_loss:g}; nothing was written"
        )
    return result


def _translate(model: PieceTranslator, segmenter: Segmenter, source: PathLike, sentences: int) -> list[str]:
    lines = (line.encode() for line in islice(read_lines(source), sentences))
    found = translate_lines(lines, model, segmenter, LineOptions(longest=model.longest), lambda message: None)
    return [translation.hypotheses[0][1] for translation in found]
