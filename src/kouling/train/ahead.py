"""Scenes of later epochs, rendered in other processes while training goes on: a GPU has learnt from an epoch's scenes
in seconds, and one core needs a minute to render them."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

from kouling.train.recipe import Recipe
from kouling.train.scenes import Batches, SceneMaker

_maker: SceneMaker | None = None  # of a worker


@contextmanager
def drawn_ahead(
    maker: SceneMaker, folders: Sequence[Path], cache: Path, folder: Path, workers: int, last: int, keep: bool
) -> Iterator[Callable[[int], list[Batches]]]:
    """`SceneMaker.epoch` as a function of the seed, for seeds that follow one another: the next `workers` are being
    drawn meanwhile, in as many processes, into the folder.

    maker: of the same recordings, so that all of them are in the cache. last: seed that the run ends with. keep: leave
    what was drawn in the folder. Raises (the function): OSError on a full disk, or where a process was killed.
    """
    # Not forked: a process that has computed with threads, or on a GPU, is not to be copied.
    begin = (maker.recipe, maker.units, list(folders), cache)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, begin)
    drawn: dict[int, Future[None]] = {}

    def epoch(seed: int) -> list[Batches]:
        for wanted in range(seed, min(seed + workers, last) + 1):
            if wanted not in drawn:
                drawn[wanted] = pool.submit(_draw, wanted, folder)
        try:
            drawn[seed].result()
        except BrokenProcessPool:
            raise OSError(
                "a process that draws scenes was ended, for want of memory perhaps; try fewer --workers"
            ) from None
        batches = maker.epoch(seed, folder)
        if not keep:
            maker.path(seed, folder).unlink()
        return batches

    try:
        yield epoch
    finally:
        pool.shutdown(cancel_futures=True)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _begin(recipe: Recipe, units: Sequence[str], folders: Sequence[Path], cache: Path) -> None:
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run itself
    torch.set_num_threads(1)
    _maker = SceneMaker(recipe, units, folders, cache)


def _draw(seed: int, folder: Path) -> None:
    assert _maker is not None
    if not _maker.path(seed, folder).exists():  # else it would be read here for nothing
        _maker.epoch(seed, folder)
