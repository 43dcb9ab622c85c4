"""Verification of an exported model: its translations of a text compared with those of the checkpoint."""

from functools import cached_property
from itertools import islice
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress.corpus.bleu_tokenizer import Tokenizer, bleu_tokenizer
from fairseq_compress.corpus.vocabulary_match import warn_of_unknown
from fairseq_compress.errors import CheckError
from fairseq_compress.export.options import CheckOptions
from fairseq_compress.runtimes.opened import OpenedModel
from fairseq_compress.work.files import check_parallel, read_lines

LEAST_BLEU = 1.0  # of the checkpoint; below it a loss of BLEU proves nothing
ENOUGH_SENTENCES = 1000  # of which a difference of some tenths of BLEU is not mostly chance


class SelfCheck:
    """A text and its translation by the checkpoint ``original``, computed once for all exports."""

    def __init__(self, original: OpenedModel, options: CheckOptions) -> None:
        assert options.source is not None
        assert options.reference is not None
        check_parallel(options.source, options.reference)
        self._options, self._original = options, original
        self._references = list(islice(read_lines(options.reference), options.check_sentences))
        self._source = list(islice(read_lines(options.source), options.check_sentences))
        self._tokenizer: Tokenizer = bleu_tokenizer(original.languages[1])
        subwords = [subword for sentence in self.subwords() for subword in sentence]
        unknown = sum(subword not in original.source_entries for subword in subwords)
        warn_of_unknown(str(options.source), unknown, len(subwords))

    @property
    def source(self) -> list[str]:
        """The lines of the text."""
        return self._source

    @property
    def references(self) -> list[str]:
        """Their reference translations."""
        return self._references

    def metrics(self) -> dict[str, Any]:
        """The metrics of translations by name."""
        return {"bleu": BLEU(tokenize=self._tokenizer.name), "chrf2": CHRF()}

    def compare(self, exported: OpenedModel, quantization: str) -> dict[str, Any]:
        """Translate the text with the exported model too.

        Returns:
            the number of sentences, the fraction with equal output, BLEU and chrF2 of both, their differences (exported
            minus original) and the signatures; ``cautions``: why the check proves nothing, if so, a line each.
        """
        allowed = self._options.allowed(quantization)
        outputs = [self._expected, self._translate(exported)]
        equal = sum(one == two for one, two in zip(*outputs, strict=True))
        count = len(self._references)
        result: dict[str, Any] = {"sentences": count, "equal": round(equal / count, 4), "max_bleu_loss": allowed}
        for name, metric in self.metrics().items():
            before, after = (metric.corpus_score(output, [self._references]).score for output in outputs)
            result[name] = {
                "checkpoint": round(before, 3), "exported": round(after, 3), "difference": round(after - before, 3),
                "signature": str(metric.get_signature()),
            }  # fmt: skip
        bleu = result["bleu"]
        if not bleu["difference"] >= -allowed:
            raise CheckError(
                f"the exported model loses {-bleu['difference']:.3f} BLEU ({bleu['exported']:.2f}, the checkpoint "
                f"{bleu['checkpoint']:.2f}; {result['equal']:.1%} of {count} outputs are equal), more "
                f"than --max-bleu-loss {allowed:g}; nothing was written{self._advice(count)}"
            )
        return result | {"cautions": self._cautions(bleu["checkpoint"], equal)}

    def _advice(self, sentences: int) -> str:
        """What helps where the text is too small for the limit."""
        if sentences >= ENOUGH_SENTENCES:
            return ""
        return f"; with {sentences} sentences much of the difference is chance: give {ENOUGH_SENTENCES:,} or more"

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

    def subwords(self) -> list[list[str]]:
        """The nonempty sentences of the text."""
        assert self._original.segmenter is not None
        return [cut for sentence in self._original.segmenter.encode(self._source) if (cut := sentence.split())]

    @cached_property
    def _expected(self) -> list[str]:
        return self._translate(self._original)

    def _translate(self, model: OpenedModel) -> list[str]:
        lines = (line.encode() for line in self._source)
        return [found.hypotheses[0].text for found in model.translate(lines, longest=model.translator.longest)]
