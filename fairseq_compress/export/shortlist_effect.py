"""What a lexical shortlist changes: translations of a text with and without it, and how much of them it covers."""

from collections.abc import Iterable
from typing import Any

from sacrebleu.metrics import CHRF

from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_model import SubwordTranslator
from fairseq_compress.export.self_check import SelfCheck
from fairseq_compress.runtimes.opened import OpenedModel

MAX_BLEU_LOSS = 0.1  # above it a warning
MOST_LINES = 100  # whose numbers are in the metadata


class _Recorder:
    """Translates with a model and keeps sentences and best translations."""

    def __init__(self, model: SubwordTranslator) -> None:
        self._model, self.longest = model, model.longest
        self.pairs: list[tuple[list[str], list[str]]] = []

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis[list[str]]]]:
        found = self._model.translate(sentences)
        self.pairs += [(sentence, best[0].output) for sentence, best in zip(sentences, found, strict=True)]
        return found


def compare_without(exported: OpenedModel, check: SelfCheck) -> dict[str, Any]:
    """Translate the text of the check with and without the shortlist of an exported model.

    Returns:
        the fractions of the subwords of the reference, and of the translations without the shortlist, that the
        shortlists of their sentences have; the number of translations that change and the numbers of the lines that
        get worse by chrF2; the differences of BLEU and chrF2 (with minus without).
    """
    model: Any = exported.translator
    recorder = _Recorder(model.without_shortlist())
    outputs = [_translate(exported, check.source, each) for each in (model, recorder)]
    scores = [[m.corpus_score(texts, [check.references]).score for texts in outputs] for m in check.metrics().values()]
    bleu, chrf = (round(with_it - without, 3) for with_it, without in scores)
    changed = [line for line, (one, two) in enumerate(zip(*outputs, strict=True)) if one != two]
    assert exported.segmenter is not None
    sources, references = (
        [line.split() for line in segmenter.encode(lines)]
        for segmenter, lines in ((exported.segmenter, check.source), (exported.segmenter.target, check.references))
    )
    sizes = [len(model.choices(source)) for source, _ in recorder.pairs]
    return {
        "mean_entries": round(sum(sizes) / max(len(sizes), 1), 1),
        "coverage": {
            "reference": _coverage(model, zip(sources, references, strict=True)),
            "output": _coverage(model, recorder.pairs),
        },
        "changed": len(changed),
        "worse_lines": [line + 1 for line in changed if _is_worse(line, outputs, check.references)][:MOST_LINES],
        "bleu_difference": bleu,
        "chrf2_difference": chrf,
    }


def cautions(effect: dict[str, Any]) -> list[str]:
    """A line if the shortlist costs more than a tenth of BLEU."""
    loss = -effect["bleu_difference"]
    if loss <= MAX_BLEU_LOSS:
        return []
    return [
        f"the shortlist costs {loss:.2f} BLEU, more than {MAX_BLEU_LOSS}: export without --shortlist, or make one with "
        "a larger --first and --best, or of more text"
    ]


def _translate(exported: OpenedModel, lines: list[str], translator: SubwordTranslator) -> list[str]:
    found = exported.translate((line.encode() for line in lines), translator=translator, longest=translator.longest)
    return [each.hypotheses[0].text for each in found]


def _coverage(model: Any, pairs: Iterable[tuple[list[str], list[str]]]) -> float:
    """The fraction of the subwords of translations that the shortlists of their sources have."""
    covered = total = 0
    for source, target in pairs:
        choices = set(model.choices(source))
        covered += sum(subword in choices for subword in target)
        total += len(target)
    return round(covered / total, 6) if total else 1.0


def _is_worse(line: int, outputs: list[list[str]], references: list[str]) -> bool:
    with_it, without = (CHRF().sentence_score(texts[line], [references[line]]).score for texts in outputs)
    return bool(with_it < without)
