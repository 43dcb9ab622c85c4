"""``fairseq-compress score-nbest``: what a reverse model thinks of each hypothesis of an n-best file."""

import argparse
import sys

from fairseq_compress.cli.local_ranks import add_processes_argument, die_with_parent, run_processes
from fairseq_compress.cli.sentencepiece_models import add_sentencepiece_arguments, given_models

HELP = (
    "Score each hypothesis of an n-best file by the log-probability that a reverse model gives to its source, divided "
    "by the length of the source, in nats. select-hypotheses --drop-worst uses the scores. Run it in several processes "
    "(--processes, torchrun, srun, or RANK and WORLD_SIZE) to share the work; on a CPU each uses one core. Killed, it "
    "continues where it stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--nbest", required=True, metavar="FILE", help="n-best file, with FILE.json beside it")
    parser.add_argument("--source", required=True, metavar="FILE", help="the text that was translated")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="R.pt[:S.pt]",
        help="a model from the language of the hypotheses to that of the source, over the same pieces; or an ensemble",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="scores, one a hypothesis, and FILE.json")
    parser.add_argument("--data", metavar="DIR", help="folder with the model's dict.LANG.txt (beside the checkpoint)")
    add_sentencepiece_arguments(parser, "the n-best file and the source are text: cut it into pieces")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="type of the weights")
    parser.add_argument("--max-tokens", type=int, default=4000, metavar="N", help="of a batch, padding counted")
    parser.add_argument("--max-sentences", type=int, metavar="N", help="of a batch")
    parser.add_argument(
        "--window", type=int, default=65_536, metavar="N", help="hypotheses that are sorted by length at a time"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    add_processes_argument(parser)
    parser.add_argument("--join-only", action="store_true", help="score nothing, only join what all processes wrote")


def run(args: argparse.Namespace) -> int:
    """Score this process's share, and join the shares when all are there."""
    if args.processes != 1 and not args.join_only:
        return run_processes("score-nbest", args)
    die_with_parent()
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq
    import torch

    import fairseq_compress
    from fairseq_compress.jobs.reverse_scores import ForcedOptions, ReverseScoresJob
    from fairseq_compress.teachers.loading import load_models, pick_device
    from fairseq_compress.work.files import check_distinct, file_sha256
    from fairseq_compress.work.manifest import sidecar_path
    from fairseq_compress.work.sharded import run_job, shard_from_environment
    from fairseq_compress.work.windows import check_limits

    fairseq_compress.register()
    # With more threads the last digit depends on their number (also with MKL_CBWR), and one a process is faster.
    torch.set_num_threads(1)
    check_limits(args.max_tokens, args.max_sentences, args.window)
    inputs = [args.nbest, sidecar_path(args.nbest), args.source, *args.checkpoint.split(":")]
    check_distinct(inputs, [args.output, sidecar_path(args.output)])
    models = load_models(args.checkpoint, args.data, precision=args.precision, device=pick_device(args.device))
    files = given_models(args)
    pieces = ",".join(file_sha256(path) for path in files if path) if files else None
    options = ForcedOptions(args.precision, args.max_tokens, args.max_sentences, args.window, pieces)
    segmenter = models.open_segmenter(*files) if files else None
    job = ReverseScoresJob(args.output, args.nbest, args.source, models, options, segmenter)
    counts = run_job(job, shard_from_environment(), args.join_only)
    if counts is None:
        return 0
    note = f", {counts.unscored:,} without a score (untranslated or too long)" if counts.unscored else ""
    print(f"{args.output}: {counts.records:,} scores{note}", file=sys.stderr)
    return 0
