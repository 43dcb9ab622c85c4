"""Seeds of draws that must not depend on each other."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """A seed of 63 bits that differs for every list of parts, and is the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
