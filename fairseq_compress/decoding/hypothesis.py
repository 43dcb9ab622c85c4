"""A translation with its score, as token ids, as subwords or as text."""

from typing import Generic, NamedTuple, TypeVar

Output = TypeVar("Output")


class Hypothesis(NamedTuple, Generic[Output]):
    """One translation."""

    score: float  # log-probability / length**lenpen in nats, EOS counted; higher is better
    output: Output  # token ids or subwords, without EOS; or text, one line

    @property
    def text(self) -> Output:
        """The output of a model that gives text."""
        return self.output
