"""``fairseq-compress kd-data select``: n-best file -> training data of a student."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.corpus.selection_rules import SelectionRules
from fairseq_compress.options import option

HELP = (
    "Select training data for a student from a teacher's n-best file: the best hypothesis, the first K, or the one of "
    "the first K that is most similar to the reference. Drops untranslated sources and repeated pairs, and with "
    "--drop-worst the pairs with the lowest reverse scores. A report counts what was dropped and why."
)
EXAMPLES = (
    "--mode best --nbest train.nbest --source train.en --output-source kd/train.en --output-target kd/train.cs",
    "--mode interpolate --nbest train.nbest --source train.en --reference train.cs --output-source kd/train.en "
    "--output-target kd/train.cs --report kd/report.json",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    nbest: str = common.nbest()
    source: str = common.source()
    reference: str | None = common.reference("reference translations, as text, for --mode interpolate", required=False)
    reverse_scores: str | None = option(None, "output of kd-data score, for --drop-worst", metavar="FILE")
    output_source: str = common.output("the kept sources")
    output_target: str = common.output("the (best) chosen hypothesis of each")
    output_nbest: str | None = option(None, "n-best file of all chosen hypotheses, for --mode k-best", metavar="FILE")
    report: str | None = option(None, "counts and examples of what was dropped, as JSON", metavar="FILE")
    processes: int = common.number(1, "processes that compute similarities")
    segmentation: common.SegmentationOptions = part(
        common.SegmentationOptions, "subwords, to join hypotheses before they are compared; default: they are text"
    )
    rules: SelectionRules = part(SelectionRules, "selection")


def run(args: Options) -> None:
    from fairseq_compress.corpus.kd_data_files import Inputs, Outputs, select_corpus

    inputs = Inputs(args.nbest, args.source, args.reference, args.segmentation.given(), args.reverse_scores)
    outputs = Outputs(args.output_source, args.output_target, args.output_nbest, args.report)
    common.tell(select_corpus(inputs, outputs, args.rules, args.processes).table())
