r"""Selection of a student's training data from a teacher's n-best lists.

``best``: the first hypothesis (sequence-level distillation, Kim and Rush 2016, arXiv:1606.07947, section 3.2).
``k-best``: the first K, for the criterion ``sequence_level_kd``.
``interpolate``: of the first K the one most similar to the reference y (section 3.3 there),

    argmax_k sim(y_k, y),   sim = sentence-BLEU (on the words of the target language, see bleu_tokenizer) or chrF

Ties: the better model score, then the first. Hypotheses without text and repeated ones (the better score stays) are
removed before. With a segmentation, subwords are joined first.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer
from fairseq_compress.corpus.nbest import NBestList
from fairseq_compress.corpus.normalization import PIECE_SPACE
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.selection_rules import SelectionRules
from fairseq_compress.errors import ConfigError, DataError


class Candidates(NamedTuple):
    """One source with its list."""

    nbest: NBestList
    source: str
    reference: str | None
    reverse: list[float] | None
    """A reverse model's score of each hypothesis."""


class Choice(NamedTuple):
    """The selection from one list."""

    reason: str | None = None
    """Of an empty selection: ``untranslated``, ``empty_source`` or ``empty_hypothesis``."""
    picked: Sequence[int] = ()
    """Indices in the list, best first."""
    empty: int = 0
    """Number of hypotheses without text."""
    repeated: int = 0
    """Number of repeated hypotheses."""
    key: str = ""
    """Text of the first picked one."""
    similarity: float = 0.0
    """Of the picked one to the reference, with ``interpolate``."""
    similarity_of_best: float = 0.0
    """Of the hypothesis with the best score to the reference."""
    other_than_best: bool = False
    """Whether the picked one is not the one with the best score."""


class Chooser:
    """Selects from one list after the other; ``segmentation``: of hypotheses in subwords."""

    def __init__(self, rules: SelectionRules, segmentation: Segmentation | None = None) -> None:
        self.rules = rules
        self.segmentation = segmentation
        self._segmenter = (
            None if segmentation is None else segmentation.target_side().of_one_language(rules.target_lang)
        )
        self._metric: BLEU | CHRF | None = None
        if rules.metric == "bleu":
            self._metric = BLEU(effective_order=True, tokenize=bleu_tokenizer(rules.target_lang).name)
        elif rules.metric == "chrf":
            self._metric = CHRF()

    def __reduce__(self) -> tuple[type["Chooser"], tuple[SelectionRules, Segmentation | None]]:
        return Chooser, (self.rules, self.segmentation)  # a worker process loads the model itself

    def __call__(self, item: Candidates) -> Choice:
        if not item.nbest.translated:
            return Choice("untranslated")
        if not item.source.strip():
            return Choice("empty_source")
        texts = [entry.text for entry in item.nbest.hypotheses]
        texts = texts if self._segmenter is None else list(self._segmenter.decode(texts))
        first: dict[str, int] = {}  # place of the first of each text
        for place, text in enumerate(texts):
            if text.strip():
                first.setdefault(text, place)
        empty = sum(not text.strip() for text in texts)
        if not first:
            return Choice("empty_hypothesis", empty=empty)
        places = list(first.values())[: 1 if self.rules.mode == "best" else self.rules.k]
        choice = Choice(None, places, empty, len(texts) - empty - len(first), texts[places[0]])
        return choice if self._metric is None else self._interpolate(choice, texts, item)

    def _interpolate(self, choice: Choice, texts: Sequence[str], item: Candidates) -> Choice:
        similarities = [self._similarity(texts[place], item) for place in choice.picked]
        # The list is best first, so the first of equal similarities has the best score.
        best = max(range(len(similarities)), key=similarities.__getitem__)
        place = choice.picked[best]
        return choice._replace(
            picked=[place], key=texts[place], similarity=similarities[best], similarity_of_best=similarities[0],
            other_than_best=best != 0,
        )  # fmt: skip

    def _similarity(self, text: str, item: Candidates) -> float:
        reference = item.reference
        if self._metric is None or reference is None:
            raise ConfigError("--reference: required by --mode interpolate")
        if self._segmenter is not None and PIECE_SPACE in reference:
            raise DataError(
                f"--reference, line {item.nbest.index + 1}: must be text where --sentencepiece-model joins the "
                f"hypotheses, got subwords ({reference[:60]!r})"
            )
        if self._segmenter is None and PIECE_SPACE in text and PIECE_SPACE not in reference and reference:
            raise ConfigError(
                f"--sentencepiece-model: required, the hypotheses are pieces ({text[:60]!r}) and the reference is text "
                f"({reference[:60]!r})"
            )
        score: float = self._metric.sentence_score(text, [reference]).score
        return score

    @property
    def signature(self) -> str | None:
        """sacreBLEU's signature of the similarity."""
        if self._metric is None:
            return None
        self._metric.sentence_score("a", ["a"])  # sacreBLEU learns the number of references from a score
        text: str = self._metric.get_signature().format()
        return text
