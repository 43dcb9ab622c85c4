"""Which layers share their parameters (orders: arXiv:2104.06022)."""

from fairseq_compress.errors import ConfigError

ORDERS = ("sequence", "cycle", "cycle_rev")


def sharing_leaders(count: int, groups: int, order: str = "sequence") -> list[int]:
    """For each of ``count`` layers the first layer that has its parameters, of ``groups`` that have their own.

    ``sequence`` AABBCC: layer i has the parameters number i · G // N. ``cycle`` ABCABC: i mod G. ``cycle_rev`` ABCCBA:
    as cycle, but in the last min(G, N - G) layers backwards from G - 1; ABCDDC for N = 6, G = 4.
    """
    if order not in ORDERS:
        raise ConfigError(f"--layer-sharing: must be one of {', '.join(ORDERS)}, got {order!r}")
    if not 1 <= groups <= count:
        raise ConfigError(f"layer groups: must be in [1, {count}], the number of layers, got {groups}")
    numbers = [i * groups // count if order == "sequence" else i % groups for i in range(count)]
    if order == "cycle_rev":
        start = count - min(groups, count - groups)
        numbers[start:] = [groups - 1 - i for i in range(count - start)]
    return [numbers.index(number) for number in numbers]
