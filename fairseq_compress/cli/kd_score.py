"""``fairseq-compress kd-data score``: scores of a reverse model for each hypothesis of an n-best file."""

from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.cli.local_ranks import die_with_parent, run_processes
from fairseq_compress.cli.parser import flat_values, part

HELP = (
    "Score each hypothesis of an n-best file with a reverse model, for kd-data select --drop-worst: the "
    "log-probability of the source given the hypothesis, divided by the length of the source, in nats. Run it in "
    "several processes (--processes, torchrun, srun, or RANK and WORLD_SIZE) to share the work; on a CPU each uses one "
    "core. Killed, it resumes where it stopped."
)
EXAMPLES = (
    "--checkpoint cs-en.pt --nbest train.nbest --source train.en --sentencepiece-model spm.model --output train.scores",
    "--checkpoint a.pt:b.pt --data data-bin/en-cs --nbest subwords/train.nbest --source subwords/train.en "
    "--output train.scores --processes 4",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint(
        "model of the reverse direction (target to source), with the same subwords; or several as an ensemble",
        "R.pt[:S.pt]",
    )
    nbest: str = common.nbest()
    source: str = common.source()
    output: str = common.output("one score for each hypothesis, and FILE.json")
    data: str | None = common.data()
    precision: str = common.precision("of the weights")
    max_tokens: int = common.number(4000, "tokens in a batch on the longer side, padding included")
    max_sentences: int | None = common.number(None, "sentences in a batch")
    window: int = common.window("hypotheses")
    device: str = common.device()
    processes: int = common.processes()
    join_only: bool = common.join_only()
    segmentation: common.SegmentationOptions = part(
        common.SegmentationOptions,
        "segmentation (with it: n-best file and source are text; without: subwords)",
    )


def run(args: Options) -> int:
    if args.processes != 1 and not args.join_only:
        return run_processes("kd-data score", args.processes, flat_values(args))
    die_with_parent()
    import torch

    register()
    from fairseq_compress.jobs.reverse_scores import ForcedOptions, ReverseScoresJob
    from fairseq_compress.teachers.loading import load_models, pick_device
    from fairseq_compress.work.files import check_distinct
    from fairseq_compress.work.manifest import sidecar_path
    from fairseq_compress.work.sharded import run_job, shard_from_environment

    # With more threads the last digit depends on their number (also with MKL_CBWR), and one a process is faster.
    torch.set_num_threads(1)
    inputs = [args.nbest, args.source, *args.checkpoint.split(":")]
    check_distinct([*inputs, sidecar_path(args.nbest)], [args.output, sidecar_path(args.output)])
    models = load_models(args.checkpoint, args.data, precision=args.precision, device=pick_device(args.device))
    segmentation = args.segmentation.given()
    identity = segmentation.identity() if segmentation else None
    options = ForcedOptions(args.precision, args.max_tokens, args.max_sentences, args.window, identity)
    segmenter = models.open_segmenter(segmentation) if segmentation else None
    job = ReverseScoresJob(args.output, args.nbest, args.source, models, options, segmenter)
    counts = run_job(job, shard_from_environment(), args.join_only)
    if counts is None:
        return 0
    note = f", {counts.unscored:,} without a score (untranslated or too long)" if counts.unscored else ""
    common.tell(f"{args.output}: {counts.records:,} scores{note}")
    return 0
