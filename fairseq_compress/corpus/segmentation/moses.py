"""The tokenizer and detokenizer of Moses in Python, as ``--tokenizer moses`` of fairseq-interactive calls them."""

from sacremoses import MosesDetokenizer, MosesTokenizer

from fairseq_compress.languages import base_language


class Moses:
    """Moses tokenization of one language.

    Args:
        language: a code in any form, for the abbreviations and apostrophes of the language.
        escape: write ``&``, ``|``, ``<``, ``>``, ``'``, ``"`` and brackets as ``&amp;`` and so on.
        dash_splits: ``well-known`` becomes ``well @-@ known``.
    """

    def __init__(self, language: str, escape: bool = True, dash_splits: bool = True) -> None:
        code = base_language(language)
        self._tokenizer, self._detokenizer = MosesTokenizer(code), MosesDetokenizer(code)
        self._escape, self._dash_splits = escape, dash_splits

    def tokenize(self, text: str) -> str:
        tokens: str = self._tokenizer.tokenize(
            text, aggressive_dash_splits=self._dash_splits, return_str=True, escape=self._escape
        )
        return tokens

    def detokenize(self, tokens: str) -> str:
        text: str = self._detokenizer.detokenize(tokens.split())
        return text
