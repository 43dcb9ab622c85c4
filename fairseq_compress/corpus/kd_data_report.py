"""Report of a selection: counts, and examples of what was dropped."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fairseq_compress.corpus.kd_data import Candidates, Choice
from fairseq_compress.corpus.selection_rules import SelectionRules

REASONS = {
    "untranslated": "the decoder left the source out",
    "empty_source": "the source line has no text",
    "empty_hypothesis": "no hypothesis has text",
    "duplicate": "source and chosen hypothesis occurred before",
    "worst_reverse_score": "the reverse model finds the source too unlikely",
}
COUNTS = ("read", "written", "empty", "repeated", "not_chosen", "of_dropped_sources")
EXAMPLES = 3  # of each reason
EXAMPLE_CHARACTERS = 200
TABLE_CHARACTERS = 60


@dataclass
class SelectionReport:
    """``sources == kept + sum(dropped.values())``, and ``hypotheses["read"]`` is the sum of the other hypotheses."""

    rules: SelectionRules
    sources: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    hypotheses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    other_than_best: int = 0
    """Kept sources whose chosen hypothesis is not the best of the distinct ones."""
    similarity: float = 0.0
    """Sum over kept sources, of the chosen hypothesis."""
    similarity_of_best: float = 0.0
    """Sum over kept sources, of the hypothesis with the best score."""
    signature: str | None = None
    caution: str | None = None
    reverse_threshold: float | None = None
    """The best dropped reverse score, in nats."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def drop(self, reason: str, item: Candidates, choice: Choice) -> None:
        """Count a dropped source."""
        self._read(item)
        self.dropped[reason] += 1
        self.hypotheses["of_dropped_sources"] += len(item.nbest.hypotheses)
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(_example(item, choice))

    def keep(self, item: Candidates, choice: Choice) -> None:
        """Count a kept source."""
        self._read(item)
        self.kept += 1
        counts = {"written": len(choice.picked), "empty": choice.empty, "repeated": choice.repeated}
        counts["not_chosen"] = len(item.nbest.hypotheses) - sum(counts.values())
        for name, count in counts.items():
            self.hypotheses[name] += count
        self.similarity += choice.similarity
        self.similarity_of_best += choice.similarity_of_best
        self.other_than_best += choice.other_than_best

    def _read(self, item: Candidates) -> None:
        self.sources += 1
        self.hypotheses["read"] += len(item.nbest.hypotheses)

    def _means(self) -> tuple[float, float]:
        """Mean similarity of the chosen hypotheses, and of those with the best scores."""
        return self.similarity / max(1, self.kept), self.similarity_of_best / max(1, self.kept)

    def as_json(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The report file; ``facts`` are the checksums of inputs and outputs."""
        names = ("sources", "kept", "dropped", "hypotheses")
        content = {name: getattr(self, name) for name in names} | {"rules": asdict(self.rules)}
        if self.signature is not None:
            chosen, best = self._means()
            content["similarity"] = {
                "signature": self.signature, "mean_of_chosen": chosen, "mean_of_best": best,
                "chosen_other_than_best": self.other_than_best,
            }  # fmt: skip
        if self.reverse_threshold is not None:
            content["best_reverse_score_dropped"] = _finite(self.reverse_threshold)
        return {**content, "examples": self.examples, "files": dict(facts)}

    def table(self) -> str:
        """For people: counts, then examples of what was dropped."""
        details = ""
        if self.signature is not None:
            chosen, best = self._means()
            details = (
                f"similarity to the reference {chosen:.2f} on average (best scores: {best:.2f}), "
                f"{self.other_than_best:,} times not the best score"
            )
        rows = [("sources read", self.sources, ""), ("kept", self.kept, details)]
        rows += [(f"dropped: {reason}", self.dropped[reason], REASONS[reason]) for reason in REASONS]
        rows += [(f"hypotheses {name}".replace("_", " "), count, "") for name, count in self.hypotheses.items()]
        lines = [f"{name:<32}{count:>12,}  {note}".rstrip() for name, count, note in rows]
        lines += [f"caution: {self.caution}"] if self.caution else []
        return "\n".join([*lines, *self._example_lines()])

    def _example_lines(self) -> Iterator[str]:
        for reason in REASONS:
            for example in self.examples.get(reason, []):
                source, hypothesis = (_shorten(example[side], TABLE_CHARACTERS) for side in ("source", "hypothesis"))
                yield f"  {reason}, line {example['line']}: {source!r} -> {hypothesis!r}"


def _example(item: Candidates, choice: Choice) -> dict[str, Any]:
    place = choice.picked[0] if choice.picked else 0
    entry = item.nbest.hypotheses[place]
    example: dict[str, Any] = {
        "line": item.nbest.index + 1,
        "source": _shorten(item.source, EXAMPLE_CHARACTERS),
        "hypothesis": _shorten(entry.text, EXAMPLE_CHARACTERS),
        "score": _finite(entry.score),
    }
    return example if item.reverse is None else example | {"reverse_score": _finite(item.reverse[place])}


def _finite(score: float) -> float | None:
    """JSON knows no infinity."""
    return score if math.isfinite(score) else None


def _shorten(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
