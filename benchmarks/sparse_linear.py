"""Sparse matrix products relative to the dense product of the same weight.

    python benchmarks/sparse_linear.py [--shapes 256x1536 512x2048] [--rows 1 16 512] [--runs 15] [--cpu-time]

Microseconds of ``nn.Linear``, and ratios to it: below 1, the sparse product is faster. csr and bsr are torch's sparse
formats, blocks is :func:`block_product`; float32, weights converted beforehand, random support. The layer is
:class:`SparseLinear` in generation; a star marks the kernel that :func:`sparse_is_faster` selects, and without a star
it is the dense product.
"""

import argparse
import warnings
from collections.abc import Callable

import torch
from measure import header, medians
from torch import Tensor, nn

from fairseq_compress.functional.layers.supports import BLOCKS
from fairseq_compress.modules.sparse_linear import (
    BLOCK_PRODUCT,
    SparseLinear,
    block_product,
    compressed,
    sparse_is_faster,
)

COLUMNS = ("csr", "bsr", "blocks", "layer")


def products(layer: SparseLinear, rows: int) -> dict[str, Callable[[], Tensor]]:
    """Every kernel that there is for the size of the blocks, on the same input; all give the same numbers."""
    x, weight, bias = torch.randn(rows, layer.in_features), layer.dense_weight(), layer.bias
    dense, csr = nn.Linear(layer.in_features, layer.out_features), weight.to_sparse_csr()
    dense.load_state_dict({"weight": weight, "bias": bias})
    found = {"dense": lambda: dense(x), "csr": lambda: (csr @ x.t()).t() + bias}
    if layer.block > 1:
        bsr = compressed(layer.values, layer.places, layer.dense_shape)
        transposed = layer.values.transpose(1, 2).contiguous()
        found["bsr"] = lambda: (bsr @ x.t()).t() + bias
        found["blocks"] = lambda: block_product(x, transposed, layer.places, layer.out_features) + bias
    found["layer"] = lambda: layer(x)
    for product in found.values():
        torch.testing.assert_close(product(), found["dense"](), atol=1e-4, rtol=1e-4)
    return found


def chosen(layer: SparseLinear, rows: int, sparsity: float) -> str:
    if not sparse_is_faster(layer.dense_shape, rows, sparsity, layer.block):
        return "dense"
    return "blocks" if layer.block >= BLOCK_PRODUCT else "csr" if layer.block == 1 else "bsr"


def line(layer: SparseLinear, rows: int, sparsity: float, options: argparse.Namespace) -> str:
    seconds = medians(products(layer, rows), options.runs, options.cpu_time)
    taken = chosen(layer, rows, sparsity)
    text = f"{layer.out_features:5d} x {layer.in_features:<5d}{layer.block:5d}{sparsity:9.2f}{rows:6d}"
    text += f"{seconds['dense'] * 1e6:10.0f}"
    for kernel in COLUMNS:
        ratio = f"{seconds[kernel] / seconds['dense']:.2f}" if kernel in seconds else "-"
        text += f"{ratio:>9}{'*' if kernel == taken else ' '}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["256x1536", "512x2048"], help="outputs x inputs")
    parser.add_argument("--blocks", type=int, nargs="+", default=list(BLOCKS), choices=BLOCKS)
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.8, 0.9, 0.95])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 512])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Sparse")  # torch calls them beta
    print(header("linear layers, float32", options.runs, options.cpu_time))
    titles = "".join(f"{name:>9} " for name in COLUMNS)
    print(f"{'outputs x inputs':<16}{'b':>2}{'sparsity':>9}{'rows':>6}{'dense us':>10}{titles}")
    torch.manual_seed(1)
    with torch.no_grad():
        for shape in options.shapes:
            outputs, inputs = map(int, shape.split("x"))
            for block in options.blocks:
                for sparsity in options.sparsity:
                    layer = SparseLinear(inputs, outputs, sparsity=sparsity, block=block).eval()
                    layer.make_generation_fast_()
                    for rows in options.rows:
                        print(line(layer, rows, sparsity, options), flush=True)


if __name__ == "__main__":
    main()
