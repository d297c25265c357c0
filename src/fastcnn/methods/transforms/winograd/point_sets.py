"""The sets of interpolation points that can be chosen from candidates, as tuples of their numbers.

A set is chosen in blocks: single points, or pairs c and -c that always stand together. Turning the signs of all
points turns signs in the matrices and nothing else, so that a set and its mirror image are one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from math import comb, prod

import numpy as np

Block = tuple[int, ...]
Chosen = tuple[tuple[Block, ...], ...]
"""Blocks of each group."""


class PointSets:
    """Sets of ``count`` points out of candidates.

    Parameters
    ----------
    candidates : tuple of distinct Fraction
    count : int
        Points of a set, at least 1.
    pairs : bool
        Choose pairs c and -c, and 0 where ``count`` is odd.

    Raises
    ------
    ValueError
        If a candidate is repeated, or there are too few for one set.
    """

    def __init__(self, candidates: tuple[Fraction, ...], count: int, pairs: bool) -> None:
        if len(set(candidates)) != len(candidates):
            twice = sorted({str(c) for c in candidates if candidates.count(c) > 1})
            raise ValueError(f"candidates must be distinct, got {', '.join(twice)} more than once")
        self.candidates = candidates
        self.values = np.array([float(c) for c in candidates])
        number = {c: i for i, c in enumerate(candidates)}
        self._mirror = [number.get(-c) for c in candidates]
        self._groups: list[tuple[int, list[Block]]]
        if not pairs:
            if len(candidates) < count:
                raise ValueError(f"candidates has {len(candidates)} points and a set needs {count}: give more")
            self._groups = [(count, [(i,) for i in range(len(candidates))])]
            return
        mates: list[Block] = [(number[c], number[-c]) for c in candidates if c > 0 and -c in number]
        zero: list[Block] = [(number[c],) for c in candidates if c == 0]
        if len(mates) < count // 2 or len(zero) < count % 2:
            raise ValueError(
                f"pairs=True needs {count // 2} pairs c, -c{' and 0' if count % 2 else ''} among the candidates, got "
                f"{len(mates)} pairs {'and 0' if zero else 'without 0'}: give more, or pairs=False"
            )
        self._groups = [(count % 2, zero), (count // 2, mates)]

    def __len__(self) -> int:
        """Sets there are at most; mirror images count as two."""
        return prod(comb(len(pool), size) for size, pool in self._groups)

    def all(self) -> Iterator[Block]:
        """Every set, one of each two mirror images."""
        for chosen in itertools.product(*(itertools.combinations(pool, size) for size, pool in self._groups)):
            made = _members(chosen)
            if len(set(made)) == len(made) and self.canonical(made) == made:
                yield made

    def random(self, rng: np.random.Generator) -> Chosen:
        """One set, as the blocks chosen of each group."""
        chosen: list[tuple[Block, ...]] = []
        for size, pool in self._groups:
            taken = {i for group in chosen for block in group for i in block}
            free = [block for block in pool if taken.isdisjoint(block)]
            chosen.append(tuple(free[int(i)] for i in rng.choice(len(free), size, replace=False)))
        return tuple(chosen)

    def neighbours(self, chosen: Chosen) -> list[Chosen]:
        """Sets that differ in one block."""
        made = []
        for g, (size, pool) in enumerate(self._groups):
            for k in range(size):
                rest = chosen[g][:k] + chosen[g][k + 1 :]
                others = (*chosen[:g], rest, *chosen[g + 1 :])
                taken = {i for group in others for block in group for i in block}
                made += [
                    (*chosen[:g], (*rest, block), *chosen[g + 1 :])
                    for block in pool
                    if block != chosen[g][k] and taken.isdisjoint(block)
                ]
        return made

    def canonical(self, members: Block) -> Block:
        """The members in order: of two mirror images the one whose numbers come first."""
        mirror = [self._mirror[i] for i in members]
        ordered = tuple(sorted(members))
        turned = tuple(sorted(i for i in mirror if i is not None))
        return min(ordered, turned) if len(turned) == len(ordered) else ordered

    def canonical_of(self, chosen: Chosen) -> Block:
        """The same of the blocks of a set."""
        return self.canonical(_members(chosen))

    def points(self, members: Block) -> tuple[Fraction, ...]:
        """Points by number."""
        return tuple(self.candidates[i] for i in members)


def _members(chosen: Chosen) -> Block:
    return tuple(sorted(i for group in chosen for block in group for i in block))
