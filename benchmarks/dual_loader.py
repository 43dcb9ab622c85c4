"""Throughput of the data loader of dual-vocabulary training, relative to fairseq's loader and to a training step.

    python benchmarks/dual_loader.py --text data/raw/multi30k/train [--workers 2] [--runs 3]

Sentences and tokens a second. Both loaders go through fairseq's EpochBatchIterator, over the same sentences in batches
of the same size; fairseq's is a LanguagePairDataset of the student's segmentation. The training step is forward and
backward of the smallest student (width 64, 3+1 layers) with its teacher (transformer_small), without the optimizer, on
all cores. Processor time is the sum of this process and its workers, with their start; ``--repeat`` makes the text
longer, so that the start counts less.
"""

import argparse
import functools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fairseq import options, tasks
from fairseq.data import Dictionary, LanguagePairDataset, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder
from fairseq.data.iterators import EpochBatchIterator
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import fairseq_compress
from fairseq_compress.corpus.dual_text import EOS, DualText, Sizes
from fairseq_compress.corpus.encode_dual import VocabularyFiles, encode_dual
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary
from fairseq_compress.datasets.dual_vocabulary import DualVocabularyDataset
from fairseq_compress.work.files import read_lines

LANGUAGES = ("en", "cs")
WIDTHS = {"embed-dim": 64, "ffn-embed-dim": 256}


def prepare(folder: Path, text: str, lines: int, repeat: int, sizes: list[int]) -> list[DualText]:
    """Vocabularies of the text, and the text encoded by them."""
    for language in LANGUAGES:
        part = list(read_lines(f"{text}.{language}"))[:lines]
        (folder / f"train.{language}").write_text("".join(f"{line}\n" for line in part * repeat), encoding="utf-8")
    vocabularies = []
    for name, size in zip(("teacher", "student"), sizes, strict=True):
        inputs = [folder / f"train.{language}" for language in LANGUAGES]
        build_vocabulary(inputs, str(folder / name), VocabularySettings(size))
        vocabularies.append(VocabularyFiles(folder / f"{name}.model", folder / f"{name}.dict.txt"))
    begin = time.perf_counter()
    encode_dual({"train": str(folder / "train")}, LANGUAGES, *vocabularies, folder / "dual")
    print(f"  encoded once in {time.perf_counter() - begin:.1f} s")
    return [DualText(folder / "dual", "train", language) for language in LANGUAGES]


def plain(folder: Path, texts: list[DualText]) -> LanguagePairDataset:
    """What fairseq makes of the student's segmentation."""
    dictionary = Dictionary.load(str(folder / "dual" / "dict.student.txt"))
    sides = []
    for text in texts:
        prefix = str(folder / text.language)
        builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
        for index in range(len(text)):
            builder.add_item(torch.tensor([*text.student(text.word_types(index))[0].tolist(), EOS]))
        builder.finalize(f"{prefix}.idx")
        side = data_utils.load_indexed_dataset(prefix, dictionary)
        sides += [side, side.sizes, dictionary]
    return LanguagePairDataset(*sides)


def epoch(dataset: DualVocabularyDataset | LanguagePairDataset, max_tokens: int, workers: int) -> tuple[float, int]:
    """Fetch all batches once: processor seconds, and target tokens of the student."""
    before = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    with data_utils.numpy_seed(1):
        batches = dataset.batch_by_size(dataset.ordered_indices(), max_tokens=max_tokens)
    iterator = EpochBatchIterator(
        dataset, dataset.collater, batches, num_workers=workers, buffer_size=10, persistent_workers=False
    )
    tokens = sum(batch["ntokens"] for batch in iterator.next_epoch_itr())
    del iterator  # whose workers count when they have ended
    after = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return after - before, tokens


def training(folder: Path, dataset: DualVocabularyDataset, max_tokens: int, steps: int) -> tuple[float, int]:
    """Train on a few batches that are there: seconds, and target tokens of the student."""
    sizes = [f"--{side}-{name}={size}" for side in ("encoder", "decoder") for name, size in WIDTHS.items()]
    words = [
        str(folder / "dual"), "--task", "dual_vocab_translation", "--dual-teacher-arch", "transformer_small",
        "--arch", "transformer_student_tiny", "--encoder-layers", "3", "--decoder-layers", "1", *sizes,
        "--criterion", "dual_vocab_kd",
    ]  # fmt: skip
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words))
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model).train()
    criterion = task.build_criterion(cfg.criterion)
    with data_utils.numpy_seed(1):
        batches = dataset.batch_by_size(dataset.ordered_indices(), max_tokens=max_tokens)
    chosen = [batches[int(place)] for place in np.linspace(0, len(batches) - 1, steps)]
    samples = [dataset.collater(dataset.__getitems__(list(indices))) for indices in chosen]
    criterion(model, samples[0])[0].backward()  # warm up
    begin = time.perf_counter()
    for sample in samples:
        criterion(model, sample)[0].backward()
    return time.perf_counter() - begin, sum(sample["ntokens"] for sample in samples)


def report(name: str, run: Callable[[], tuple[float, int]], runs: int, sentences: int) -> float:
    """Print a line, and return the target tokens a second of the clock."""
    clock, processor, tokens = [], [], 0
    for _ in range(runs):
        begin = time.perf_counter()
        seconds, tokens = run()
        clock.append(time.perf_counter() - begin)
        processor.append(seconds)
    speeds = [statistics.median(seconds) for seconds in (clock, processor)]
    text = ", ".join(
        f"{sentences / seconds:9,.0f} sentences and {tokens / seconds:11,.0f} target tokens a second of {kind}"
        for seconds, kind in zip(speeds, ("the clock", "processor time"), strict=True)
    )
    print(f"  {name:<6}{text}")
    return tokens / speeds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="prefix of a .en and a .cs file")
    parser.add_argument("--lines", type=int, default=29000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--vocab-sizes", type=int, nargs=2, default=[8000, 1000], metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--max-tokens", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="batches of training, each run")
    arguments = parser.parse_args()
    fairseq_compress.register()
    cores, _ = torch.get_num_threads(), torch.set_num_threads(1)
    print(f"one epoch, {arguments.workers} workers, --max-tokens {arguments.max_tokens}, median of {arguments.runs}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = prepare(folder, arguments.text, arguments.lines, arguments.repeat, arguments.vocab_sizes)
        dual = DualVocabularyDataset(*texts, p_mix=0.5, seed=1)
        delivered = {}
        for kind, dataset in {"plain": plain(folder, texts), "dual": dual}.items():
            run = functools.partial(epoch, dataset, arguments.max_tokens, arguments.workers)
            delivered[kind] = report(kind, run, arguments.runs, len(dataset))
        means = {kind: np.concatenate([getattr(text.sizes, kind) for text in texts]).mean() for kind in Sizes._fields}
        print("  means a sentence: " + ", ".join(f"{size:.1f} {kind}" for kind, size in means.items()))
        torch.set_num_threads(cores)
        speeds = []
        for _ in range(arguments.runs):
            seconds, tokens = training(folder, dual, arguments.max_tokens, arguments.steps)
            speeds.append(tokens / seconds)
        taken = statistics.median(speeds)
        ratio = delivered["dual"] / taken
        print(f"  training takes {taken:,.0f} target tokens a second; delivered: {ratio:.1f} times that")


if __name__ == "__main__":
    main()
