"""Noise that depends on what it is asked for and on nothing else.

Each value is a hash of (seed, purpose, entity, tick), so that a fleet cut into any steps, or played on any
machine, gives the same bytes; a sequential random generator would not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(words: Words) -> Words:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit moves every output bit."""
    words = (words ^ (words >> np.uint64(30))) * _M1
    words = (words ^ (words >> np.uint64(27))) * _M2
    return words ^ (words >> np.uint64(31))


def _salt(*parts: int) -> np.uint64:
    word = 0
    for part in parts:
        word = (word * 0x100000001B3 + part + 1) * _GOLDEN & _MASK
    return np.uint64(word)


def uniform(entities: Words, seed: int, purpose: int, tick: int = 0) -> Floats:
    """One number in [0, 1) for each entity."""
    words = mix(entities * np.uint64(_GOLDEN) + _salt(seed, purpose, tick))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def drift(entities: Words, seed: int, purpose: int, second: float, every: int) -> Floats:
    """Numbers in [0, 1) that wander: a new goal each `every` seconds, reached in a straight line."""
    knot, within = divmod(second, every)
    here = uniform(entities, seed, purpose, int(knot))
    return here + (uniform(entities, seed, purpose, int(knot) + 1) - here) * (within / every)
