"""The command ``fairseq-compress``: one module a verb, each with ``HELP``, ``add_arguments`` and ``run``."""
