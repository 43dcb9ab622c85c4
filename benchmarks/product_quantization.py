"""Product quantization of one matrix relative to fairseq's (``fairseq.modules.quantization.pq``): time and error.

    python benchmarks/product_quantization.py [--shape 512 2048] [--block 8] [--centroids 256]

Both quantize the same random matrix, from the weights to the reconstructed matrix, with their default number of k-means
iterations: 30 here, 20 in fairseq. This package runs several times before and after the one run of fairseq; its median
counts. Exits with status 1 below 100 times fairseq's speed, or with a larger squared error.
"""

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Callable

import torch
from fairseq.modules.quantization.pq.pq import PQ
from measure import header
from torch import Tensor

from fairseq_compress.functional.quantization.codes import reconstruct
from fairseq_compress.functional.quantization.product import product_quantize

MARK = 100


def timed(work: Callable[[], Tensor], cpu_time: bool) -> tuple[float, Tensor]:
    clock = time.process_time if cpu_time else time.perf_counter
    begin = clock()
    result = work()
    return clock() - begin, result


def fairseq_matrix(weight: Tensor, options: argparse.Namespace) -> Tensor:
    quantizer = PQ(
        weight, options.block, n_centroids=options.centroids, n_iter=options.fairseq_iterations, verbose=False
    )
    quantizer.encode()
    matrix: Tensor = quantizer.decode()
    return matrix


def squared_error(weight: Tensor, found: Tensor) -> float:
    return (weight.double() - found.double()).square().sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=2, default=[512, 2048], metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--centroids", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=30, help="rounds of ours")
    parser.add_argument("--fairseq-iterations", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5, help="of ours, before and after fairseq's")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work, at one thread")
    options = parser.parse_args()
    logging.disable(logging.INFO)  # of fairseq's imports
    torch.manual_seed(1)
    weight = torch.randn(options.shape)

    def ours() -> Tensor:
        codes = product_quantize(weight, options.block, options.centroids, iterations=options.iterations)
        return reconstruct(codes)

    text = f"{options.shape[0]} x {options.shape[1]}, blocks of {options.block}, {options.centroids} centroids, "
    text += f"{options.iterations} and {options.fairseq_iterations} rounds"
    print(header(text, 2 * options.runs, options.cpu_time), flush=True)
    ours()  # warms up
    runs = [timed(ours, options.cpu_time) for _ in range(options.runs)]
    theirs, their_matrix = timed(lambda: fairseq_matrix(weight, options), options.cpu_time)
    runs += [timed(ours, options.cpu_time) for _ in range(options.runs)]
    seconds, error = statistics.median(run[0] for run in runs), squared_error(weight, runs[0][1])
    their_error = squared_error(weight, their_matrix)
    print(f"  ours     {seconds:9.3f} s   squared error {error:.1f}")
    print(f"  fairseq  {theirs:9.3f} s   squared error {their_error:.1f}")
    print(f"  fairseq / ours: time {theirs / seconds:.1f} (mark {MARK})")
    print(f"  ours / fairseq: error {error / their_error:.5f} (mark 1.00000)")
    if theirs < MARK * seconds or error > their_error:
        sys.exit(1)


if __name__ == "__main__":
    main()
