"""``fairseq-compress score``: a detokenized translation and its reference -> the scores of one system, as JSON."""

import argparse
import sys

HELP = "score a translation with sacreBLEU and write one JSON record"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--hypothesis", required=True, metavar="F", help="detokenized translation, one sentence a line")
    parser.add_argument("--reference", required=True, metavar="F", help="its reference, line by line")
    parser.add_argument("--output", required=True, metavar="SCORES.json", help="where the record is written")
    parser.add_argument("--source-lang", metavar="LANG", help="such as en")
    parser.add_argument(
        "--target-lang", metavar="LANG", help="such as cs, zh_CN or zho_Hans: what BLEU takes for a word (default: 13a)"
    )
    parser.add_argument("--source", metavar="F", help="the translated text; its line count is checked too")
    parser.add_argument("--name", metavar="NAME", help="what the report calls the system (the name of the hypothesis)")
    parser.add_argument(
        "--checkpoint", metavar="C.pt|DIR", help="the model, packed, exported or not: its parameters, bytes and layers"
    )
    parser.add_argument(
        "--cost-tokens", type=int, metavar="N",
        help="with --checkpoint: adds its multiply-adds for a sentence of N tokens into N, with a beam of 1",
    )  # fmt: skip
    parser.add_argument(
        "--translation-seconds", type=float, nargs="+", metavar="S", help="what translating took, three times or more"
    )
    parser.add_argument(
        "--timed-sentences", type=int, metavar="N", help="sentences that were translated each time (all of them)"
    )
    parser.add_argument("--baseline", metavar="F", help="another translation: adds a paired bootstrap test against it")
    parser.add_argument(
        "--tokenized", action="store_true", help="adds BLEU on Moses tokens, for comparison with older papers"
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="facts to keep, such as hardware, seed, updates; role=teacher marks what the report compares with",
    )


def run(args: argparse.Namespace) -> int:
    """Score, write the record and print the three scores."""
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.evaluation.scores import parse_facts, system_record, write_record
    from fairseq_compress.work.files import check_distinct

    if args.tokenized and args.target_lang is None:
        raise ConfigError("--tokenized: requires --target-lang, got none")
    inputs = (args.hypothesis, args.reference, args.source, args.baseline, args.checkpoint)
    check_distinct([path for path in inputs if path is not None], [args.output])
    record = system_record(
        args.hypothesis,
        args.reference,
        args.source_lang,
        args.target_lang,
        name=args.name,
        source=args.source,
        baseline=args.baseline,
        checkpoint=args.checkpoint,
        cost_tokens=args.cost_tokens,
        translation_seconds=args.translation_seconds,
        timed_sentences=args.timed_sentences,
        facts=parse_facts(args.set),
    )
    if args.tokenized:
        from fairseq_compress.evaluation.tokenized import tokenized_bleu

        record["bleu_tokenized"] = tokenized_bleu(args.hypothesis, args.reference, args.target_lang)
    write_record(record, args.output)
    for caution in record["cautions"]:
        print(f"fairseq-compress score: caution: {caution}", file=sys.stderr)
    scores = f"BLEU {record['bleu']['score']:.2f}, lowercase {record['bleu_lowercase']['score']:.2f}"
    print(f"{record['name']}: {scores}, chrF2 {record['chrf2']['score']:.2f}")
    return 0
