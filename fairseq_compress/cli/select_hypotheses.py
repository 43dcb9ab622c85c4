"""``fairseq-compress select-hypotheses``: n-best file -> training data of a student."""

import argparse
import sys

HELP = (
    "Choose what a student is trained on out of a teacher's n-best file: the best hypothesis, the first K, or of the "
    "first K the one that is most like the reference. Drops what has no translation and what was there already, and "
    "on request the pairs that a reverse model finds least likely. A report tells what was dropped and why."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--nbest", required=True, metavar="FILE", help="n-best file, with FILE.json beside it")
    parser.add_argument("--source", required=True, metavar="FILE", help="the text that was translated")
    parser.add_argument("--reference", metavar="FILE", help="its references, for interpolate: text, not pieces")
    parser.add_argument("--mode", required=True, choices=("best", "k-best", "interpolate"), help="what is chosen")
    parser.add_argument("--k", type=int, metavar="K", help="look at the first K distinct hypotheses (all)")
    parser.add_argument("--metric", choices=("bleu", "chrf"), help="similarity for interpolate (bleu)")
    parser.add_argument(
        "--target-lang", metavar="LANG", help="of the hypotheses, for the words of bleu (what the n-best file says)"
    )
    parser.add_argument(
        "--decode-model", metavar="P.model", help="the hypotheses are pieces: join them to text to compare them"
    )
    parser.add_argument("--output-source", required=True, metavar="FILE", help="sources that stay, as they were")
    parser.add_argument("--output-target", required=True, metavar="FILE", help="their (best) chosen hypotheses")
    parser.add_argument(
        "--output-nbest", metavar="FILE", help="all their chosen hypotheses with scores, as n-best file"
    )
    parser.add_argument("--reverse-scores", metavar="FILE", help="scores of a reverse model, written by score-nbest")
    parser.add_argument(
        "--drop-worst", type=float, default=0.0, metavar="P", help="drop this fraction of the pairs by reverse score"
    )
    parser.add_argument("--keep-duplicates", action="store_true", help="keep pairs that were there before")
    parser.add_argument("--report", metavar="FILE", help="counts and examples of what was dropped, as JSON")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="compute similarities in N processes")


def run(args: argparse.Namespace) -> int:
    """Select, write and print the report on the standard error."""
    from fairseq_compress.corpus.kd_data_files import Inputs, Outputs, select_corpus
    from fairseq_compress.corpus.selection_rules import SelectionRules

    rules = SelectionRules(
        mode=args.mode,
        k=args.k,
        metric=args.metric or ("bleu" if args.mode == "interpolate" else None),
        drop_worst=args.drop_worst,
        keep_duplicates=args.keep_duplicates,
        target_lang=args.target_lang,
    )
    inputs = Inputs(args.nbest, args.source, args.reference, args.decode_model, args.reverse_scores)
    outputs = Outputs(args.output_source, args.output_target, args.output_nbest, args.report)
    print(select_corpus(inputs, outputs, rules, args.processes).table(), file=sys.stderr)
    return 0
