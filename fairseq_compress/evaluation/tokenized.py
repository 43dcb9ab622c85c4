"""BLEU on Moses tokens, for comparison with papers that scored tokenized text. Detokenized sacreBLEU is the rule."""

import os
from typing import Any

from sacrebleu.metrics import BLEU
from sacremoses import MosesTokenizer

from fairseq_compress.languages import base_language
from fairseq_compress.work.files import check_parallel, read_lines

PathLike = str | os.PathLike[str]


def tokenized_bleu(hypothesis: PathLike, reference: PathLike, language: str) -> dict[str, Any]:
    """Cased BLEU of Moses-tokenized text (no escapes, aggressive dash splitting off).

    Depends on the tokenizer of ``language``, so compare it only with scores of the same tokenizer.

    Returns:
        ``score`` (0 to 100), sacreBLEU's ``signature`` (``tok:none``), and ``tokenizer``, what cut the text.
    """
    check_parallel(hypothesis, reference)
    moses = MosesTokenizer(lang=base_language(language))
    texts = [
        [moses.tokenize(line, escape=False, return_str=True) for line in read_lines(path)]
        for path in (hypothesis, reference)
    ]
    metric = BLEU(tokenize="none", force=True)  # force: sacreBLEU warns of tokenized text, which is what we want here
    score = metric.corpus_score(texts[0], [texts[1]]).score
    return {"score": score, "signature": metric.get_signature().format(), "tokenizer": f"sacremoses:{language}"}
