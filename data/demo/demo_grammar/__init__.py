"""A small bilingual grammar: sentence trees, and their words in English and in Czech.

Floors, from the bottom: ``inflection`` (Czech endings) and ``features`` (names of the grammatical categories); the
``lexicon_*`` tables; ``lexicon`` (all tables as objects); ``determiners`` and ``prepositions`` (closed classes);
``trees`` (what a sentence says); ``english`` and ``czech`` (how each language says it); ``sampler`` (random trees).
"""
