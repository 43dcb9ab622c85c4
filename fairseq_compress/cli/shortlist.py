"""``fairseq-compress shortlist``: parallel text and alignments -> a lexical shortlist for export."""

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.options import option

ALIGNERS = ("file", "eflomal", "attention")
HELP = (
    "Make a lexical shortlist: for each source subword the target subwords that translate it most often. With export "
    "--shortlist a model computes its output for these only: the first N by frequency and the best M of each subword "
    "of the sentence."
)
EXAMPLES = (
    "student.pt en-cs.shortlist --source train.en --target train.cs --sentencepiece-model spm.model "
    "--aligner attention",
    "student.pt en-cs.shortlist --source encoded/train.en --target encoded/train.cs --alignments train.links",
)
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("the model that is exported, for its dictionaries and its attention")
    output: str = common.output("the shortlist")
    source: str = common.source("parallel text, raw or as subwords: the source")
    target: str = option(help="its translation", metavar="FILE")
    data: str | None = common.data()
    aligner: str = option(
        "file", "where links between subwords come from: file: --alignments; eflomal: the package of this name; "
        "attention: the attention of the checkpoint to the source", choices=ALIGNERS,
    )  # fmt: skip
    alignments: str | None = option(
        None, "links as 0-0 1-2 ... (Pharaoh), between the subwords of the model, a line for each sentence pair",
        metavar="FILE",
    )  # fmt: skip
    alignment_layer: int | None = option(
        None, "decoder layer of the attention, from 0; default: that of --guided-alignment-weight, else the last",
        range="[0, inf)", needs="aligner=attention", metavar="N",
    )  # fmt: skip
    alignment_heads: int | None = option(
        None, "mean of its first N heads; default: those of --guided-alignment-weight, else all", range="[1, inf)",
        needs="aligner=attention", metavar="N",
    )  # fmt: skip
    first: int = option(100, "most frequent target subwords, for all sentences", range="[0, inf)", metavar="N")
    best: int = option(100, "target subwords for each source subword", range="[1, inf)", metavar="M")
    max_tokens: int = common.number(4000, "subwords in a batch of --aligner attention on the longer side")
    segmentation: common.SegmentationOptions = part(
        common.SegmentationOptions, "segmentation (with it: both texts are raw; without: subwords)"
    )

    def problems(self) -> Iterator[str]:
        if (self.alignments is None) == (self.aligner == "file"):
            yield "--alignments: must be given, or --aligner eflomal or attention, and not both"


def run(args: Options) -> None:
    register()
    from fairseq_compress.jobs.aligners import Aligner
    from fairseq_compress.jobs.aligners.attention import AttentionAligner, trained_attention
    from fairseq_compress.jobs.aligners.eflomal import eflomal_links
    from fairseq_compress.jobs.shortlist import ParallelText, links_of_file, make_shortlist
    from fairseq_compress.teachers.loading import load_models
    from fairseq_compress.work.files import check_distinct, check_parallel

    inputs = [args.checkpoint, args.source, args.target, *([args.alignments] if args.alignments else [])]
    check_distinct(inputs, [args.output])
    models = load_models(args.checkpoint, args.data)
    segmentation = args.segmentation.given()
    text = ParallelText(args.source, args.target, models.open_segmenter(segmentation) if segmentation else None)
    attention = None
    if args.aligner == "attention":
        trained = trained_attention(args.checkpoint)
        attention = AttentionAligner(models, args.alignment_layer, args.alignment_heads, trained, args.max_tokens)
    align: Aligner = attention or eflomal_links
    if args.alignments is not None:
        check_parallel(args.source, args.alignments)
        align = links_of_file(args.alignments)
    header = make_shortlist(args.output, models, text, align, args.first, args.best)
    if attention is not None and attention.skipped:
        common.tell(f"warning: {attention.skipped:,} sentence pairs are empty or too long for the model: not counted")
    common.tell(
        f"{args.output}: {header.links:,} links; {header.always} subwords for all sentences, {header.entries:,} for "
        f"{header.source_entries:,} source subwords"
    )
