"""Weight compression: rules of a plan, chains of transforms on shared weights, and their packed forms."""

import fairseq_compress.weights.methods  # noqa: F401 - registers the methods
