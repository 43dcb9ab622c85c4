"""A small bilingual grammar: sentence trees, and their words in English and in Czech.

Floors, from the bottom: ``inflection`` (Czech endings) and ``features`` (names of the grammatical categories); the
``lexicon_*`` tables; ``lexicon`` (all tables as objects); ``determiners`` and ``prepositions`` (closed classes);
``trees`` (what a sentence says); ``english``, ``english_verbs``, ``czech`` and ``czech_verbs`` (how each language says
it); ``sampler``, ``phrases``, ``clauses`` and ``sentences`` (random trees).
"""
