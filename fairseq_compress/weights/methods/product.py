"""``product``: product quantization with faiss."""

from dataclasses import dataclass
from functools import partial

from fairseq_compress.functional.quantization.product import METHODS, codebook_count, product_problems, product_quantize
from fairseq_compress.functional.quantization.rotation import default_rotation_size
from fairseq_compress.options import option
from fairseq_compress.weights.centroids import Codebook, CodesRule, Quantize
from fairseq_compress.weights.rules import method


@method("product")
@dataclass(frozen=True)
class ProductRule(CodesRule):
    """Blocks of weights as indices into codebooks."""

    block: int = option(8, "neighbours in a row that are looked up together", range="[1, inf)")
    centroids: int = option(256, "in each codebook", range="[2, 65536]")
    algorithm: str = option("kmeans", "how the centroids are found", choices=METHODS)
    codebooks: int = option(0, "with residual and lsq; 0: 2 of these", range="[0, inf)")

    def problems(self) -> list[str]:
        return [] if self.algorithm not in METHODS else self._problems()

    def _problems(self, blocks: int | None = None) -> list[str]:
        return product_problems(self.algorithm, self.centroids, self.codebooks or None, blocks)

    def transform(self, rows: int, columns: int, name: str = "") -> Codebook:
        made = super().transform(rows, columns)
        if found := self._problems(rows * (columns // self.block)):
            raise ValueError("; ".join(found))
        return made

    def quantize(self) -> Quantize:
        return partial(
            product_quantize, block=self.block, centroids=self.centroids, method=self.algorithm,
            codebooks=self.codebooks or None, seed=self.seed,
        )  # fmt: skip

    def sizes(self) -> tuple[int, int]:
        return codebook_count(self.algorithm, self.codebooks), self.centroids

    def rotation_size(self, rows: int, columns: int) -> int:
        return default_rotation_size(rows, columns, self.block) if self.algorithm == "opq" else 0
