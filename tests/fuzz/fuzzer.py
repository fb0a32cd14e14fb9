"""Fuzzing of every parser that strangers' bytes reach.

    python -m tests.fuzz [-seconds 120] [target…]

Mutates the cases in `corpus/<target>/` (files in hex, one case each; the checked-in seeds are valid
messages and old finds) and keeps those that reach new lines. Stops at the first case that raises an
error that the target does not allow, takes too long, or breaks a promise of the target. The case is
printed and written to `found/<target>/<hash>.hex`: move it into the corpus with the fix. It is not
written there at once, because tests that run at the same time read the corpus.

Coverage comes from sys.settrace, of the parsers' own modules alone. With the same `-seed` the same
cases come in the same order. The budget is shared by the targets; each gets at least a second.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path(__file__).parent / "found"
MAX_CASE = 100_000
SLOW_S = 1.0


@dataclass(frozen=True)
class Finding:
    """A case that breaks a target."""

    target: str
    case: bytes
    error: BaseException

    def __str__(self) -> str:
        more = "…" if len(self.case) > 200 else ""
        case = f"{self.case[:200].hex()}{more}"
        return f"{self.target}: {type(self.error).__name__}: {self.error}\n  case {case}"


class Coverage:
    """Which lines of some files have run, ever; `run` says whether a call reached new ones."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = frozenset(files)
        self.seen: set[tuple[str, int, int]] = set()
        self._last: dict[str, int] = {}

    def run(self, call: Callable[[bytes], Any], case: bytes) -> bool:
        before = len(self.seen)
        self._last.clear()
        other = sys.gettrace()  # a debugger, or who measures the tests' own coverage
        sys.settrace(self._enter)
        try:
            call(case)
        finally:
            sys.settrace(other)
        return len(self.seen) > before

    def _enter(self, frame: FrameType, event: str, _arg: object) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":  # the pair of lines, so that a branch taken differently counts
            name, line = frame.f_code.co_filename, frame.f_lineno
            self.seen.add((name, self._last.get(name, 0), line))
            self._last[name] = line
        return self._line


def seeds_of(target: str) -> list[bytes]:
    """Return the checked-in cases."""
    return [bytes.fromhex(path.read_text()) for path in sorted((CORPUS / target).glob("*.hex"))]


def mutate(rng: random.Random, case: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return a neighbour of a case.

    Bits are turned, bytes set, pieces cut, doubled, swapped for words or for pieces of other cases.
    """
    data = bytearray(case)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(8)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif how == 1 and data:
            data[at % len(data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 2:
            del data[at : at + rng.randrange(1, 33)]
        elif how == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 17))
        elif how == 4:
            data[at:at] = data[at : at + rng.randrange(1, 65)] * rng.randrange(1, 5)
        elif how == 5:
            word = rng.choice(words)
            data[at : at + (len(word) if rng.random() < 0.5 else 0)] = word
        elif how == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at:] = other[start:]
        else:  # a length field of some width
            width = rng.choice((1, 2, 4))
            data[at : at + width] = rng.choice(
                (0, 1, 125, 126, 127, 65535, 65568, 2 ** (8 * width) - 1)
            ).to_bytes(8, "big")[-width:]
    return bytes(data[:MAX_CASE])


def fuzz(target: Target, seconds: float, seed: int) -> tuple[int, int, Finding | None]:
    """Run one target for `seconds` of processor time, which others cannot take from it.

    Returns (cases, lines reached, the finding if there is one).
    """
    rng = random.Random(seed)
    coverage = Coverage(target.files)
    corpus = seeds_of(target.name) or [b""]
    cases = 0
    for case in _cases(rng, corpus, target.words, time.process_time() + seconds):
        cases += 1
        began = time.process_time()
        try:
            new = coverage.run(target.call, case)
            if time.process_time() - began > SLOW_S:
                raise TimeoutError(f"took {time.process_time() - began:.1f} s")
        except target.allowed:
            new = False
        except Exception as e:
            return cases, len(coverage.seen), Finding(target.name, case, e)
        if new and len(corpus) < 2000:
            corpus.append(case)
    return cases, len(coverage.seen), None


def _cases(
    rng: random.Random, corpus: list[bytes], words: Sequence[bytes], deadline: float
) -> Iterator[bytes]:
    yield from list(corpus)
    while time.process_time() < deadline:
        yield mutate(rng, rng.choice(corpus), corpus, words)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the parsers of others' data."
    )
    parser.add_argument("targets", nargs="*", metavar="target", help=f"some of: {' '.join(TARGETS)} (all)")
    parser.add_argument(
        "-seconds", type=float, default=120.0,
        help="of processor time, for all targets together (default %(default)s)",
    )
    parser.add_argument("-seed", type=int, default=None, help="repeat a run")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.targets) - set(TARGETS))
    if unknown:
        parser.error(f"no such target: {' '.join(unknown)}")
    names = options.targets or list(TARGETS)
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}")
    failed = 0
    for name in names:
        cases, lines, finding = fuzz(TARGETS[name], max(options.seconds / len(names), 1.0), seed)
        print(
            f"{name:14} {cases:8,} cases, {lines:4} line pairs" + ("" if finding is None else "  FAILED"),
            flush=True,
        )
        if finding:
            failed = 1
            path = FOUND / name / f"{hashlib.sha256(finding.case).hexdigest()[:12]}.hex"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(finding.case.hex() + "\n")
            kept = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            print(f"{finding}\n  kept as {kept}")
    return failed
