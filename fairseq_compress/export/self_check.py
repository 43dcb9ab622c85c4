"""Does an exported model translate as the checkpoint does? The same sentences through both, and what differs."""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress.corpus.bleu_tokenizer import Tokenizer, bleu_tokenizer
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.decoding.translation_lines import LineOptions, PieceTranslator, translate_lines
from fairseq_compress.errors import CheckError, ConfigError
from fairseq_compress.work.files import check_parallel, read_lines

MAX_BLEU_LOSS = {"float32": 0.05}  # of the quantizations that lose nothing
MAX_BLEU_LOSS_QUANTIZED = 0.3
LEAST_BLEU = 1.0  # of the checkpoint: under it a loss of BLEU says nothing


@dataclass(frozen=True)
class CheckOptions:
    """What is translated and what may be lost.

    Raises:
        ConfigError: a value is out of its range.
    """

    source: Path
    reference: Path
    sentences: int = 1000
    max_bleu_loss: float | None = None
    """None: as :data:`MAX_BLEU_LOSS` says for the quantization."""

    def __post_init__(self) -> None:
        if self.sentences < 1:
            raise ConfigError(f"--check-sentences: must be at least 1, got {self.sentences}")
        if self.max_bleu_loss is not None and not self.max_bleu_loss >= 0:
            raise ConfigError(f"--max-bleu-loss: must not be negative, got {self.max_bleu_loss}")

    def allowed(self, quantization: str) -> float:
        """BLEU that may be lost."""
        if self.max_bleu_loss is not None:
            return self.max_bleu_loss
        return MAX_BLEU_LOSS.get(quantization, MAX_BLEU_LOSS_QUANTIZED)


class SelfCheck:
    """A text, and how the checkpoint translates it, which is found out once for all exports.

    Args:
        original: the checkpoint.
        target_lang: of the reference, for the tokenizer of BLEU.

    Raises:
        DataError: source and reference are missing or of different length.
    """

    def __init__(
        self, original: PieceTranslator, segmenter: Segmenter, options: CheckOptions, target_lang: str | None = None
    ) -> None:
        check_parallel(options.source, options.reference)
        self.options, self._original, self._segmenter = options, original, segmenter
        self._references = list(islice(read_lines(options.reference), options.sentences))
        self._source = list(islice(read_lines(options.source), options.sentences))
        self._tokenizer: Tokenizer = bleu_tokenizer(target_lang)

    def compare(self, exported: PieceTranslator, quantization: str) -> dict[str, Any]:
        """Translate the text with the exported model too.

        Returns:
            the number of sentences, the share with equal output, BLEU and chrF2 of both, their differences (exported
            minus original) and the signatures; ``cautions``: why the check proves nothing, if so, a line each.

        Raises:
            CheckError: the exported model loses more BLEU than it may.
        """
        allowed = self.options.allowed(quantization)
        outputs = [self._expected, self._translate(exported)]
        equal = sum(one == two for one, two in zip(*outputs, strict=True))
        result: dict[str, Any] = {
            "sentences": len(self._references),
            "equal": round(equal / len(self._references), 4),
            "max_bleu_loss": allowed,
        }
        for name, metric in (("bleu", BLEU(tokenize=self._tokenizer.name)), ("chrf2", CHRF())):
            before, after = (metric.corpus_score(output, [self._references]).score for output in outputs)
            result[name] = {
                "checkpoint": round(before, 3),
                "exported": round(after, 3),
                "difference": round(after - before, 3),
                "signature": str(metric.get_signature()),
            }
        bleu = result["bleu"]
        if not bleu["difference"] >= -allowed:
            raise CheckError(
                f"the exported model loses {-bleu['difference']:.3f} BLEU ({bleu['exported']:.2f}, the checkpoint "
                f"{bleu['checkpoint']:.2f}; {result['equal']:.1%} of {len(self._references)} outputs are equal), more "
                f"than --max-bleu-loss {allowed:g}; nothing was written"
            )
        return result | {"cautions": self._cautions(bleu["checkpoint"], equal)}

    def _cautions(self, bleu: float, equal: int) -> list[str]:
        found = [self._tokenizer.caution] if self._tokenizer.caution is not None else []
        if bleu < LEAST_BLEU:
            found.append(
                f"the loss of BLEU proves nothing: the checkpoint itself has a BLEU of {bleu:.2f}; is the reference "
                "the translation of the source, and the model trained?"
            )
        if equal == 0:
            found.append(
                f"the check proves little: of {len(self._references)} outputs none is equal to the checkpoint's; "
                "compare both translations"
            )
        return found

    def pieces(self) -> list[list[str]]:
        """The sentences of the text that are not empty, cut."""
        return [cut for sentence in self._segmenter.encode(self._source) if (cut := sentence.split())]

    @cached_property
    def _expected(self) -> list[str]:
        return self._translate(self._original)

    def _translate(self, model: PieceTranslator) -> list[str]:
        lines = (line.encode() for line in self._source)
        found = translate_lines(lines, model, self._segmenter, LineOptions(longest=model.longest), lambda message: None)
        return [translation.hypotheses[0][1] for translation in found]
