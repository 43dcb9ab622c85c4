"""What was chosen, what was dropped and why: counts that add up, and examples."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fairseq_compress.corpus.kd_data import Choice, SelectionRules, Task

REASONS = {
    "untranslated": "the decoder left the source out",
    "empty_source": "the source line has no text",
    "empty_hypothesis": "no hypothesis has text",
    "duplicate": "source and chosen hypothesis were there before",
    "worst_reverse_score": "the reverse model finds the source too unlikely",
}
EXAMPLES = 3  # of each reason
EXAMPLE_CHARACTERS = 200
TABLE_CHARACTERS = 60


@dataclass
class SelectionReport:
    """``sources == kept + sum(dropped.values())`` and ``hypotheses["read"]`` is the sum of the other hypotheses."""

    rules: SelectionRules
    sources: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    hypotheses: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("read", "written", "empty", "repeated", "not_chosen", "of_dropped_sources"), 0
        )
    )
    other_than_best: int = 0
    """Kept sources whose chosen hypothesis is not the best of the distinct ones."""
    similarity: float = 0.0
    """Sum over kept sources, of the chosen hypothesis."""
    similarity_of_best: float = 0.0
    """Sum over kept sources, of the hypothesis with the best score."""
    signature: str | None = None
    """sacreBLEU's, of the similarity."""
    caution: str | None = None
    """About the tokenizer of sentence-BLEU."""
    reverse_threshold: float | None = None
    """The best reverse score among those that were dropped, in nats."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def drop(self, reason: str, task: Task, choice: Choice) -> None:
        """Count a source that does not stay."""
        self._read(task)
        self.dropped[reason] += 1
        self.hypotheses["of_dropped_sources"] += len(task.nbest.hypotheses)
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(_example(task, choice))

    def keep(self, task: Task, choice: Choice) -> None:
        """Count a source that stays."""
        self._read(task)
        self.kept += 1
        counts = {"written": len(choice.picked), "empty": choice.empty, "repeated": choice.repeated}
        for name, count in counts.items():
            self.hypotheses[name] += count
        self.hypotheses["not_chosen"] += len(task.nbest.hypotheses) - sum(counts.values())
        self.similarity += choice.similarity
        self.similarity_of_best += choice.similarity_of_best
        self.other_than_best += choice.other_than_best

    def _read(self, task: Task) -> None:
        self.sources += 1
        self.hypotheses["read"] += len(task.nbest.hypotheses)

    def as_json(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Everything, as the report file has it."""
        content: dict[str, Any] = {
            "sources": self.sources,
            "kept": self.kept,
            "dropped": self.dropped,
            "hypotheses": self.hypotheses,
            "rules": asdict(self.rules),
        }
        if self.signature is not None:
            content["similarity"] = {
                "signature": self.signature,
                "mean_of_chosen": self.similarity / max(1, self.kept),
                "mean_of_best": self.similarity_of_best / max(1, self.kept),
                "chosen_other_than_best": self.other_than_best,
            }
        if self.reverse_threshold is not None:
            content["best_reverse_score_dropped"] = _finite(self.reverse_threshold)
        return {**content, "examples": self.examples, "files": dict(facts)}

    def table(self) -> str:
        """For people: counts, then examples of what was dropped."""
        rows = [("sources read", self.sources, ""), ("kept", self.kept, self._details())]
        rows += [(f"dropped: {reason}", self.dropped[reason], REASONS[reason]) for reason in REASONS]
        rows += [(f"hypotheses {name}".replace("_", " "), count, "") for name, count in self.hypotheses.items()]
        lines = [f"{name:<32}{count:>12,}  {note}".rstrip() for name, count, note in rows]
        if self.caution is not None:
            lines.append(f"caution: {self.caution}")
        return "\n".join([*lines, *self._example_lines()])

    def _details(self) -> str:
        if self.signature is None:
            return ""
        chosen, best = (total / max(1, self.kept) for total in (self.similarity, self.similarity_of_best))
        return (
            f"similarity to the reference {chosen:.2f} on average (best scores: {best:.2f}), "
            f"{self.other_than_best:,} times not the best score"
        )

    def _example_lines(self) -> Iterator[str]:
        for reason in REASONS:
            for example in self.examples.get(reason, []):
                source, hypothesis = (_shorten(example[side], TABLE_CHARACTERS) for side in ("source", "hypothesis"))
                yield f"  {reason}, line {example['line']}: {source!r} -> {hypothesis!r}"


def _example(task: Task, choice: Choice) -> dict[str, Any]:
    place = choice.picked[0] if choice.picked else 0
    hypothesis = task.nbest.hypotheses[place]
    example: dict[str, Any] = {
        "line": task.nbest.index + 1,
        "source": _shorten(task.source, EXAMPLE_CHARACTERS),
        "hypothesis": _shorten(hypothesis.text, EXAMPLE_CHARACTERS),
        "score": _finite(hypothesis.score),
    }
    if task.reverse is not None:
        example["reverse_score"] = _finite(task.reverse[place])
    return example


def _finite(score: float) -> float | None:
    """JSON knows no infinity."""
    return score if math.isfinite(score) else None


def _shorten(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
