"""Text before and after the model: cleaning, subwords, hypotheses. Needs neither torch nor fairseq.

Files that are missing, damaged or do not belong together raise DataError; options out of range raise ConfigError.
"""
