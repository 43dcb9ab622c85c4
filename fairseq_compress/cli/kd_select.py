"""``fairseq-compress kd-data select``: n-best file -> training data of a student."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.corpus.selection_rules import SelectionRules
from fairseq_compress.options import option

HELP = (
    "Choose what a student is trained on from a teacher's n-best file: the best hypothesis, the first K, or of the "
    "first K the one most similar to the reference. Drops untranslated sources and repeated pairs, and on request the "
    "pairs that a reverse model finds least likely. A report counts what was dropped and why."
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
    reference: str | None = common.reference("of --mode interpolate: text, not subwords", required=False)
    sentencepiece_model: str | None = common.sentencepiece_model(
        "the hypotheses are subwords of this model: they are joined to text to compare them", required=False
    )
    reverse_scores: str | None = option(None, "scores of a reverse model, from kd-data score", metavar="FILE")
    output_source: str = common.output("sources that stay, unchanged")
    output_target: str = common.output("their (best) chosen hypotheses")
    output_nbest: str | None = option(None, "all their chosen hypotheses with scores, as n-best file", metavar="FILE")
    report: str | None = option(None, "counts and examples of what was dropped, as JSON", metavar="FILE")
    processes: int = common.number(1, "compute similarities in N processes")
    rules: SelectionRules = part(SelectionRules, "rules")


def run(args: Options) -> None:
    from fairseq_compress.corpus.kd_data_files import Inputs, Outputs, select_corpus

    inputs = Inputs(args.nbest, args.source, args.reference, args.sentencepiece_model, args.reverse_scores)
    outputs = Outputs(args.output_source, args.output_target, args.output_nbest, args.report)
    common.tell(select_corpus(inputs, outputs, args.rules, args.processes).table())
