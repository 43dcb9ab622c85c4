r"""Choosing what a student is trained on out of a teacher's n-best list.

``best``: the first hypothesis (sequence-level distillation, Kim and Rush 2016, arXiv:1606.07947, section 3.2).
``k-best``: the first K, for the criterion ``sequence_level_kd``.
``interpolate``: of the first K the one that is most like the reference y,

    argmax_k sim(y_k, y),   sim = sentence-BLEU (on the words of the target language, see bleu_tokenizer) or chrF

(section 3.3 there). Equal similarities: the better model score, then the first.

Before that, hypotheses without text and those whose text was there already (with a score at least as good) leave the
list. Equal is what reads equal: with a sentencepiece model, pieces are joined to text first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer
from fairseq_compress.corpus.cleaning import PIECE_SPACE
from fairseq_compress.corpus.nbest import NBestEntry, NBestList
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import PathLike

MODES = ("best", "k-best", "interpolate")
METRICS = ("bleu", "chrf")


@dataclass(frozen=True)
class SelectionRules:
    """What is chosen and what is dropped.

    Raises:
        ConfigError: values are out of their ranges or contradict each other; all such are named at once.
    """

    mode: str  # of MODES
    k: int | None = None  # hypotheses of a source that are looked at; None is all
    metric: str | None = None  # of METRICS, with interpolate
    drop_worst: float = 0.0  # fraction of the chosen pairs that a reverse model finds least likely
    keep_duplicates: bool = False  # of pairs; equal hypotheses of one source never stay
    target_lang: str | None = None  # of the hypotheses, for the tokenizer of sentence-BLEU

    def __post_init__(self) -> None:
        interpolate = self.mode == "interpolate"
        checks = (
            (self.mode in MODES, f"--mode: must be one of {', '.join(MODES)}, got {self.mode}"),
            (self.k is None or self.k >= 1, f"--k: must be at least 1, got {self.k}"),
            (self.k is None or self.mode != "best", "--k: requires --mode k-best or interpolate, best takes one"),
            (interpolate or self.metric is None, f"--metric: requires --mode interpolate, got --mode {self.mode}"),
            (not interpolate or self.metric in METRICS, f"--metric: must be one of {', '.join(METRICS)}"),
            (0 <= self.drop_worst < 1, f"--drop-worst: must be in [0, 1), got {self.drop_worst}"),
        )
        problems = [message for holds, message in checks if not holds]
        if problems:
            raise ConfigError("; ".join(problems))


class Task(NamedTuple):
    """One source with its list."""

    nbest: NBestList
    source: str
    reference: str | None
    """Where one is needed."""
    reverse: list[float] | None
    """A reverse model's score of each hypothesis, where one is needed."""


class Choice(NamedTuple):
    """What was chosen of one list; ``reason`` tells why nothing was."""

    reason: str | None
    """``untranslated``, ``empty_source``, ``empty_hypothesis`` or None."""
    picked: list[int]
    """Places in the list, best first."""
    empty: int
    """Hypotheses without text."""
    repeated: int
    """Hypotheses whose text was there already."""
    key: str
    """Text of the first that was picked."""
    similarity: float
    """To the reference, of the one that was picked; 0 where none was asked for."""
    similarity_of_best: float
    """To the reference, of the hypothesis with the best score."""
    other_than_best: bool
    """The reference preferred another hypothesis than the score."""


class Chooser:
    """Chooses from one list after the other. It can be sent to another process.

    Args:
        decode_model: a sentencepiece model, when the hypotheses are pieces.

    Raises:
        DataError: the model is missing or none; from the call: a reference holds pieces where text is needed.
    """

    def __init__(self, rules: SelectionRules, decode_model: PathLike | None = None) -> None:
        self.rules = rules
        self.decode_model = decode_model
        self._segmenter = None if decode_model is None else Segmenter(decode_model)
        self._metric: BLEU | CHRF | None = None
        if rules.metric == "bleu":
            self._metric = BLEU(effective_order=True, tokenize=bleu_tokenizer(rules.target_lang).name)
        elif rules.metric == "chrf":
            self._metric = CHRF()

    def __reduce__(self) -> tuple[type["Chooser"], tuple[SelectionRules, PathLike | None]]:
        return Chooser, (self.rules, self.decode_model)  # the model is loaded again, in the other process

    def __call__(self, task: Task) -> Choice:
        nothing = Choice(None, [], 0, 0, "", 0.0, 0.0, False)
        if not task.nbest.translated:
            return nothing._replace(reason="untranslated")
        if not task.source.strip():
            return nothing._replace(reason="empty_source")
        texts = self._texts(task.nbest.hypotheses)
        places, empty, repeated = _distinct(texts)
        if not places:
            return nothing._replace(reason="empty_hypothesis", empty=empty)
        places = places[: 1 if self.rules.mode == "best" else self.rules.k]
        choice = nothing._replace(picked=places, empty=empty, repeated=repeated, key=texts[places[0]])
        return choice if self._metric is None else self._interpolate(choice, texts, task)

    def _interpolate(self, choice: Choice, texts: Sequence[str], task: Task) -> Choice:
        similarities = [self._similarity(texts[place], task) for place in choice.picked]
        # The list comes best first, so that the first of equal similarities is the one of the best score.
        best = max(range(len(similarities)), key=similarities.__getitem__)
        place = choice.picked[best]
        return choice._replace(
            picked=[place],
            key=texts[place],
            similarity=similarities[best],
            similarity_of_best=similarities[0],
            other_than_best=best != 0,
        )

    def _similarity(self, text: str, task: Task) -> float:
        if self._metric is None or task.reference is None:
            raise ConfigError("--reference: is needed with --mode interpolate")
        if self._segmenter is not None and PIECE_SPACE in task.reference:
            raise DataError(
                f"--reference, line {task.nbest.index + 1}: must be text where --decode-model joins the hypotheses, "
                f"got pieces ({task.reference[:60]!r})"
            )
        if self._segmenter is None and PIECE_SPACE in text and PIECE_SPACE not in task.reference and task.reference:
            raise ConfigError(
                f"--decode-model: is needed, the hypotheses are pieces ({text[:60]!r}) and the reference is text "
                f"({task.reference[:60]!r})"
            )
        score: float = self._metric.sentence_score(text, [task.reference]).score
        return score

    def _texts(self, hypotheses: Sequence[NBestEntry]) -> list[str]:
        texts = [hypothesis.text for hypothesis in hypotheses]
        return texts if self._segmenter is None else list(self._segmenter.decode(texts))

    @property
    def signature(self) -> str | None:
        """sacreBLEU's signature of the similarity; known once something was scored."""
        return None if self._metric is None else _signature(self._metric)


def _signature(metric: BLEU | CHRF) -> str:
    metric.sentence_score("a", ["a"])  # sacreBLEU learns the number of references from a score
    text: str = metric.get_signature().format()
    return text


def _distinct(texts: Sequence[str]) -> tuple[list[int], int, int]:
    """Places of the first of each text, how many are empty, and how many repeat one."""
    first: dict[str, int] = {}
    empty = 0
    for place, text in enumerate(texts):
        if text.strip():
            first.setdefault(text, place)
        else:
            empty += 1
    return list(first.values()), empty, len(texts) - empty - len(first)
