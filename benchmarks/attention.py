"""Time of the package's attention and model relative to fairseq's, as ratios: below 1, this package is faster.

    python benchmarks/attention.py [--rounds N] [--threads N]

The two sides of a pair take turns within one process, so that other load on the machine disturbs both alike. A line
gives the median times and the median ratio of the rounds. With equal weights both compute the same numbers
(tests/unit/test_attention.py). The text is random and nothing is trained: translation quality is not measured.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from fairseq import models
from fairseq.data import Dictionary
from fairseq.modules import MultiheadAttention
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn

from fairseq_compress.models.presets import PRESETS
from fairseq_compress.modules.attention import HookableMultiheadAttention, mark_causal

VOCABULARY = 6000
LENGTH, BATCH = 30, 80  # 2,400 tokens, an update of configs/multi30k-en-cs.env
SMALL = PRESETS["transformer_small"]


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> None:
    """Print one line of the table: both median times in ms, and the median ratio ours / fairseq."""
    times: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        first = number % 2  # who goes first alternates: caches favour the second
        pair = [0.0, 0.0]
        for side in (first, 1 - first):
            start = time.perf_counter()
            (ours, theirs)[side]()
            pair[side] = (time.perf_counter() - start) * 1e3
        times.append((pair[0], pair[1]))
    del times[0]  # warm-up
    own, other = (statistics.median(side) for side in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    print(f"{name:<52}{own:>10.1f}{other:>12.1f}{ratio:>8.2f}", flush=True)


def attention_pass(module: nn.Module, kind: str, width: int) -> Callable[[], None]:
    """Forward and backward of one attention module at a training shape."""
    torch.manual_seed(0)
    x = torch.randn(LENGTH, BATCH, width, requires_grad=True)
    padding = torch.arange(LENGTH) >= torch.randint(LENGTH // 2, LENGTH + 1, (BATCH, 1))
    options = {
        "encoder self-attention": {"key_padding_mask": padding},
        "decoder self-attention": {"attn_mask": mark_causal(torch.full((LENGTH, LENGTH), -torch.inf).triu(1))},
        "cross-attention": {"key_padding_mask": padding, "static_kv": True},
    }[kind]

    def run() -> None:
        for _ in range(2):
            output, _ = module(x, x, x, need_weights=False, **options)
            output.sum().backward()

    return run


def build(architecture: str, dictionary: Dictionary) -> nn.Module:
    """A model of the shape of ``transformer_small``."""

    class Task:
        source_dictionary = target_dictionary = dictionary

    args = argparse.Namespace(arch=architecture, dropout=0.1)
    SMALL.apply(args)
    torch.manual_seed(0)
    return models.build_model(args, Task)


def training_step(model: nn.Module, autocast: bool) -> Callable[[], None]:
    """Forward, cross-entropy and backward of one batch, a fifth of it padding."""
    torch.manual_seed(0)
    source = torch.randint(4, VOCABULARY, (BATCH, LENGTH))
    target = torch.randint(4, VOCABULARY, (BATCH, LENGTH))
    lengths = torch.randint(LENGTH * 3 // 5, LENGTH + 1, (BATCH, 1))
    source[torch.arange(LENGTH).flip(0) >= lengths] = 1  # left, as fairseq pads a source
    target[torch.arange(LENGTH) >= lengths] = 1

    def run() -> None:
        model.train().zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(source, lengths.squeeze(1), target)[0]
        F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=1).backward()

    return run


def beam_search(model: nn.Module, dictionary: Dictionary, sentences: int, autocast: bool) -> Callable[[], object]:
    """Beam 5, exactly 25 words for each sentence: random weights would end where they like."""
    torch.manual_seed(0)
    source: Tensor = torch.randint(4, VOCABULARY, (sentences, 20))
    model.make_generation_fast_()
    generator = SequenceGenerator([model], dictionary, beam_size=5, min_len=25, max_len_a=0, max_len_b=25)
    sample = {"net_input": {"src_tokens": source, "src_lengths": torch.full((sentences,), 20)}}

    def run() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return generator.generate([model], sample)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each pair, after one of warm-up")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.disable(logging.INFO)  # of fairseq's imports
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")  # of fairseq's attention
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, median of {options.rounds} interleaved rounds")
    print(f"{'':<52}{'ours, ms':>10}{'fairseq, ms':>12}{'ratio':>8}")

    for width, heads in ((256, 4), (512, 8)):
        for kind in ("encoder self-attention", "decoder self-attention", "cross-attention"):
            role = {"encoder_decoder_attention": True} if kind == "cross-attention" else {"self_attention": True}
            pair = [cls(width, heads, **role) for cls in (HookableMultiheadAttention, MultiheadAttention)]
            passes = [attention_pass(module, kind, width) for module in pair]
            compare(f"{kind}, width {width}, 2 x fwd+bwd", *passes, options.rounds)

    dictionary = Dictionary()
    for number in range(VOCABULARY - len(dictionary)):
        dictionary.add_symbol(str(number))
    pair = [build(name, dictionary) for name in ("compressed_transformer", "transformer")]
    for autocast, name in ((False, "float32"), (True, "bfloat16 autocast")):
        compare(f"training step, 3+3, {name}", *[training_step(model, autocast) for model in pair], options.rounds)
    for sentences, autocast, name in ((1, False, "float32"), (16, False, "float32"), (16, True, "bfloat16 autocast")):
        searches = [beam_search(model, dictionary, sentences, autocast) for model in pair]
        compare(f"beam search, 3+3, batch {sentences}, {name}", *searches, options.rounds)


if __name__ == "__main__":
    main()
