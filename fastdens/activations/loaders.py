"""Some of the batches of a loader, by their numbers, without the work that the others take where that can be saved."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, SequentialSampler


class NumberedBatches:
    """The batches of a loader, numbered from 0.

    Of a ``DataLoader`` that takes the rows of its data set in their order, only the rows of the batches that are asked
    for are read, by as many workers. Any other loader is walked through from its beginning.

    Parameters
    ----------
    loader : iterable

    Attributes
    ----------
    n_batches : int or None
        How many there are; None before a loader of another kind was walked through to its end.
    batch_size : int or None
        Examples of a batch, where the loader says so.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        self._in_order = _in_order(loader)
        self.n_batches = None if self._in_order is None else len(self._in_order)
        self.batch_size: int | None = getattr(loader, "batch_size", None)
        self._is_spent = False

    def take(self, numbers: Iterator[int]) -> Iterator[tuple[int, Any]]:
        """Batches with their numbers.

        Parameters
        ----------
        numbers : iterator of int
            Ascending; those past the end give nothing. With workers, it is asked for numbers before their batches are
            needed.

        Raises
        ------
        ValueError
            If the loader is an iterator that was walked through before.
        """
        return self._walk(numbers) if self._in_order is None else _read(self._in_order, numbers)

    def _walk(self, numbers: Iterator[int]) -> Iterator[tuple[int, Any]]:
        batches = iter(self._loader)
        if batches is self._loader and self._is_spent:
            raise ValueError(
                "another process has left batches that the loader, an iterator, does not yield again: call again, or "
                "pass a loader that can be iterated more than once."
            )
        self._is_spent = True
        number, wanted = -1, next(numbers, None)
        for number, batch in enumerate(batches):
            if number == wanted:
                yield number, batch
                wanted = next(numbers, None)
            if wanted is None and self.n_batches is not None:
                return
        self.n_batches = number + 1


class _InOrder:
    """A ``DataLoader`` that takes the rows of its data set in their order."""

    def __init__(self, loader: DataLoader[Any], sampler: BatchSampler, n_rows: int) -> None:
        self.loader, self._n_rows = loader, n_rows
        self._batch_size, self._n_batches = sampler.batch_size, len(sampler)

    def __len__(self) -> int:
        return self._n_batches

    def rows(self, number: int) -> list[int]:
        """The rows of a batch."""
        begin = number * self._batch_size
        return list(range(begin, min(begin + self._batch_size, self._n_rows)))


def _in_order(loader: Iterable[Any]) -> _InOrder | None:
    # A class of its own may do more than its attributes say.
    if type(loader) is DataLoader and type(loader.batch_sampler) is BatchSampler:
        rows = loader.batch_sampler.sampler
        if type(rows) is SequentialSampler:
            return _InOrder(loader, loader.batch_sampler, len(rows))
    return None


def _read(batches: _InOrder, numbers: Iterator[int]) -> Iterator[tuple[int, Any]]:
    """The batches of some numbers, by a loader like the one given."""
    asked: deque[int] = deque()

    def rows() -> Iterator[list[int]]:
        for number in numbers:
            if number < len(batches):
                asked.append(number)
                yield batches.rows(number)

    given = batches.loader
    loader: DataLoader[Any] = DataLoader(
        given.dataset,
        batch_sampler=rows(),
        num_workers=given.num_workers,
        collate_fn=given.collate_fn,
        pin_memory=given.pin_memory,
        timeout=given.timeout,
        worker_init_fn=given.worker_init_fn,
        multiprocessing_context=given.multiprocessing_context,
        generator=given.generator,
        prefetch_factor=given.prefetch_factor,
    )
    for batch in loader:
        yield asked.popleft(), batch
