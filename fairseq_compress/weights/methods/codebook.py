"""``codebook``: 2^bits values, or short vectors, for the single weights of a matrix."""

from dataclasses import dataclass
from functools import partial

from fairseq_compress.functional.quantization.codebooks import kmeans_codebook, percentile_codebook
from fairseq_compress.options import option
from fairseq_compress.weights.centroids import CodesRule, Quantize
from fairseq_compress.weights.rules import method


@method("codebook")
@dataclass(frozen=True)
class CodebookRule(CodesRule):
    """Weights as indices into a codebook."""

    bits: int = option(4, "2^bits entries", range="[1, 16]")
    algorithm: str = option("kmeans", "how the entries are found", choices=("kmeans", "percentile"))

    def problems(self) -> list[str]:
        if self.block > 1 and self.algorithm == "percentile":
            return [f"block: must be 1 with percentile, got {self.block}"]
        return []

    def quantize(self) -> Quantize:
        if self.algorithm == "percentile":
            return partial(percentile_codebook, bits=self.bits)
        return partial(kmeans_codebook, bits=self.bits, block=self.block, seed=self.seed)

    def sizes(self) -> tuple[int, int]:
        return 1, 2**self.bits
