"""Translation speed of different decoder layers on a CPU, with fairseq's sequence generator.

    python benchmarks/decoder_speed.py [--sentences 64] [--length 25] [--beams 1 4] [--rounds 5] [--threads 1]

The models have the same width and random weights: a shallow decoder with SSRUs (or average attention, on request), a
shallow one with self-attention, and a deep one with self-attention. Every translation has LENGTH tokens (min_len =
max_len = LENGTH) and a forced EOS, so that all models take equally many steps; this is checked. The sources are
random tokens, batched before the clock starts. The table has all sentences in one batch, and some of them one by one.
Figures are medians of rounds in which the models take turns; the last column is for the decoder layers alone, relative
to self-attention 6+2. Translation quality is not measured.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from fairseq import models
from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator
from measure import header, medians
from torch import nn

import fairseq_compress
from fairseq_compress.models.compressed_transformer import MODEL_NAME

SHALLOW, DEEP = "attention 6+2", "attention 6+6"
MODELS = {  # decoder_self_attention, decoder_layers
    "SSRU 6+2": ("ssru", 2),
    "average 6+2": ("average", 2),
    SHALLOW: ("attention", 2),
    DEEP: ("attention", 6),
}
ENCODER_LAYERS = 6
Batch = dict[str, dict[str, torch.Tensor]]


class Task:
    """What a model takes of a task."""

    def __init__(self, entries: int) -> None:
        dictionary = Dictionary()
        for number in range(entries - len(dictionary)):
            dictionary.add_symbol(str(number))
        self.source_dictionary = self.target_dictionary = dictionary


def build(name: str, options: argparse.Namespace, task: Task) -> nn.Module:
    unit, layers = MODELS[name]
    args = argparse.Namespace(
        arch=MODEL_NAME, encoder_layers=ENCODER_LAYERS, decoder_layers=layers, decoder_self_attention=unit,
        encoder_embed_dim=options.width, encoder_ffn_embed_dim=options.ffn, encoder_attention_heads=options.heads,
        decoder_attention_heads=options.heads, share_all_embeddings=True,
    )  # fmt: skip
    models.ARCH_CONFIG_REGISTRY[MODEL_NAME](args)
    torch.manual_seed(options.seed)
    model: Any = models.build_model(args, task)
    own = type(model.decoder.layers[0].self_attn).__name__
    if (own == "HookableMultiheadAttention") != (unit == "attention"):
        raise SystemExit(f"{name}: the decoder has {own} in place of self-attention")
    model.make_generation_fast_(need_attn=False)
    return model


def batch(sentences: int, options: argparse.Namespace) -> Batch:
    """Sources of half of the length to the whole, padded on the left as fairseq does."""
    draw = torch.Generator().manual_seed(options.seed)
    length = options.source_length
    tokens = torch.randint(4, options.vocabulary, (sentences, length), generator=draw)
    lengths = torch.randint((length + 1) // 2, length + 1, (sentences,), generator=draw)
    lengths[0] = length
    tokens[:, -1] = 2
    tokens[torch.arange(length).flip(0) >= lengths[:, None]] = 1
    return {"net_input": {"src_tokens": tokens, "src_lengths": lengths}}


def alone(whole: Batch, row: int) -> Batch:
    """A sentence without padding."""
    tokens, lengths = whole["net_input"].values()
    return {"net_input": {"src_tokens": tokens[row : row + 1, -int(lengths[row]) :], "src_lengths": lengths[[row]]}}


def translation(
    generator: SequenceGenerator, model: nn.Module, batches: list[Batch], steps: int, clock: "Clock"
) -> Callable[[], None]:
    def run() -> None:
        clock.seconds.append(0.0)
        for each in batches:
            for hypotheses in generator.generate([model], each):
                if len(hypotheses[0]["tokens"]) != steps:
                    raise SystemExit(f"a translation must have {steps} tokens, got {len(hypotheses[0]['tokens'])}")

    return run


def table(seconds: dict[str, float], sentences: int, decoders: dict[str, float]) -> None:
    for name, value in seconds.items():
        print(
            f"    {name:<16}{sentences / value:>12.1f}{1000 * value / sentences:>14.2f}"
            f"{seconds[SHALLOW] / value:>10.2f}{seconds[DEEP] / value:>12.2f}"
            f"{decoders[SHALLOW] / decoders[name]:>14.2f}",
            flush=True,
        )


class Clock:
    """Adds up the time of a decoder and the reordering of its state, without the output layer and the search."""

    def __init__(self, model: Any) -> None:
        self.seconds: list[float] = []
        decoder = model.decoder
        for name in ("extract_features", "reorder_incremental_state_scripting"):
            setattr(decoder, name, self._timed(getattr(decoder, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[-1] += time.perf_counter() - start
            return result

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--ffn", type=int, default=1536)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=6000)
    parser.add_argument("--source-length", type=int, default=25, help="with EOS")
    parser.add_argument("--length", type=int, default=25, help="of the translations, without EOS")
    parser.add_argument("--sentences", type=int, default=64, help="in a batch")
    parser.add_argument("--single-sentences", type=int, default=8, help="of them one at a time")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--average", action="store_true", help="time average attention too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work, at one thread")
    options = parser.parse_args()
    logging.disable(logging.INFO)  # of fairseq's imports
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")  # of fairseq's attention
    fairseq_compress.register()
    torch.set_num_threads(options.threads)
    task = Task(options.vocabulary)
    built = {name: build(name, options, task) for name in MODELS if "average" not in name or options.average}
    shape = f"width {options.width}, FFN {options.ffn}, {options.heads} heads, V={options.vocabulary}, float32"
    print(header(f"{options.length} tokens a sentence, {shape}", options.rounds, options.cpu_time))
    print(f"    {'':<16}{'sentences/s':>12}{'ms/sentence':>14}{'vs 6+2':>10}{'vs 6+6':>12}{'decoder alone':>14}")
    clocks = {name: Clock(model) for name, model in built.items()}
    whole = batch(options.sentences, options)
    singles = [alone(whole, row) for row in range(min(options.single_sentences, options.sentences))]
    for beam in options.beams:
        generators = {  # a generator tells its beam size to its model: those of another beam would be wrong by then
            name: SequenceGenerator(
                [model], task.target_dictionary, beam_size=beam, max_len_a=0, max_len_b=options.length,
                min_len=options.length,
            )
            for name, model in built.items()
        }  # fmt: skip
        for title, batches in ((f"batches of {options.sentences}", [whole]), ("one at a time", singles)):
            print(f"  beam {beam}, {title}")
            variants = {
                name: translation(generators[name], model, batches, options.length + 1, clocks[name])
                for name, model in built.items()
            }
            sentences = sum(len(each["net_input"]["src_lengths"]) for each in batches)
            seconds = medians(variants, options.rounds, options.cpu_time)
            decoders = {name: median(clock.seconds[-options.rounds :]) for name, clock in clocks.items()}
            table(seconds, sentences, decoders)


if __name__ == "__main__":
    main()
