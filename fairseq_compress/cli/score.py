"""``fairseq-compress score``: a detokenized translation and its reference -> the scores of one system, as JSON."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.options import option

HELP = "Score the translation of one system with sacreBLEU and write a JSON record, the input of report."
EXAMPLES = (
    "--hypothesis out.cs --reference test.cs --source-lang en --target-lang cs --output student.json",
    "--hypothesis out.cs --reference test.cs --target-lang cs --output student.json --checkpoint student-int8 "
    "--baseline teacher.cs --set seed=1 role=student",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    hypothesis: str = option(
        help="detokenized translation, one sentence a line; or subwords, with their segmentation", metavar="FILE"
    )
    reference: str = common.reference("reference translation, one sentence a line")
    output: str = common.output("the JSON record", "SCORES.json")
    source_lang: str | None = common.language("source language, such as en")
    target_lang: str | None = common.language(
        "target language, such as cs, zh_CN or zho_Hans; it selects the tokenizer of BLEU; default: 13a"
    )
    source: str | None = common.source("source text; its line count is compared, too", required=False)
    name: str | None = option(
        None, "name of the system in a report; default: the name of the hypothesis file", metavar="NAME"
    )
    checkpoint: str | None = common.checkpoint(
        "the model (checkpoint, packed file or exported directory): records parameters, bytes and layers",
        "C.pt|DIR",
        required=False,
    )
    cost_tokens: int | None = option(
        None, "record the multiply-adds of the model for N source and N target tokens with beam 1",
        needs="checkpoint", metavar="N",
    )  # fmt: skip
    translation_seconds: tuple[float, ...] | None = option(
        None, "durations of the translation in seconds, three or more", metavar="S"
    )
    timed_sentences: int | None = option(
        None, "number of sentences in each timing; default: all", needs="translation_seconds", metavar="N"
    )
    baseline: str | None = option(
        None, "translation of a baseline system: adds a paired bootstrap test against it", metavar="FILE"
    )
    tokenized: bool = option(False, "add BLEU on Moses tokens, for comparison with older papers", needs="target_lang")
    set: tuple[str, ...] = option(
        (), "metadata, such as hardware, seed, updates; role=teacher marks the system that report compares with",
        metavar="KEY=VALUE",
    )  # fmt: skip
    segmentation: common.SegmentationOptions = part(
        common.SegmentationOptions, "subwords, to join the hypothesis before it is scored; default: it is text"
    )


def run(args: Options) -> None:
    from fairseq_compress.work.files import check_distinct

    inputs = (args.hypothesis, args.reference, args.source, args.baseline, args.checkpoint)
    check_distinct([path for path in inputs if path is not None], [args.output])
    if (segmentation := args.segmentation.given()) is None:
        _score(args)
        return
    from fairseq_compress.corpus.segmentation.text_files import decode_file

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, Path(args.hypothesis).name)
        decode_file(segmentation.target_side().of_one_language(args.target_lang), args.hypothesis, text)
        _score(replace(args, name=args.name or text.stem, hypothesis=str(text)))


def _score(args: Options) -> None:
    from fairseq_compress.evaluation.scores import parse_facts, system_record, tokenized_bleu, write_record

    record = system_record(
        args.hypothesis, args.reference, args.source_lang, args.target_lang, name=args.name, source=args.source,
        baseline=args.baseline, checkpoint=args.checkpoint, cost_tokens=args.cost_tokens,
        translation_seconds=args.translation_seconds, timed_sentences=args.timed_sentences,
        facts=parse_facts(args.set),
    )  # fmt: skip
    if args.tokenized and args.target_lang is not None:
        record["bleu_tokenized"] = tokenized_bleu(args.hypothesis, args.reference, args.target_lang)
    write_record(record, args.output)
    for caution in record["cautions"]:
        common.tell(f"fairseq-compress score: caution: {caution}")
    scores = f"BLEU {record['bleu']['score']:.2f}, lowercase {record['bleu_lowercase']['score']:.2f}"
    print(f"{record['name']}: {scores}, chrF2 {record['chrf2']['score']:.2f}")
    if (test := record.get("paired_bootstrap")) is not None:
        found = test["bleu"]
        print(f"BLEU {found['difference']:+.2f} against {args.baseline}, p = {found['p_value']:.4f} (paired bootstrap)")
