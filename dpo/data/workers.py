"""Conversion of batches of rows on all cores."""

__all__ = ["Workers"]

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Self

from dpo.data.config import DataConfig
from dpo.data.conversion import Converted, Converter
from dpo.data.reading.source import Source, parse_source
from dpo.data.rendering.tokenization import Tokenizer
from dpo.errors import DataError

Batch = list[tuple[int, Any]]

BATCHES_ALONE = 4
"""A source with at most this many batches is converted in this process, which is faster than starting others."""
BATCHES_AHEAD = 2
"""Number of batches to read ahead for each process, so that no process waits and memory stays limited."""


class Workers:
    """Converts batches of rows: in this process if a source has few of them, otherwise in other processes.

    The other processes are forked from a new process, because the threads and devices of a training process do not work
    after a fork.

    Args:
        config: The data flags. num_proc is the number of processes.
        tokenizer: The model's tokenizer.
    """

    def __init__(self, config: DataConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.processes = config.num_proc or len(os.sched_getaffinity(0))
        self.converter = Converter(config, tokenizer)
        self._pool: ProcessPoolExecutor | None = None

    def convert(self, source: Source, batches: Iterator[Batch]) -> Iterator[Converted]:
        """Convert batches and yield the results in order.

        Raises:
            DPOError: as raised by Converter.convert.
            DataError: if a process was killed.
        """
        first = list(islice(batches, BATCHES_ALONE + 1))
        if len(first) <= BATCHES_ALONE or self.processes == 1:
            yield from (self.converter.convert(source, batch) for batch in chain(first, batches))
            return
        try:
            yield from self._convert_elsewhere(source, chain(first, batches))
        except BrokenProcessPool as error:
            raise DataError(
                f"{source.spec}: a process that prepares rows was killed or could not start.\n"
                "  If it was killed, the usual cause is too little memory: pass --num_proc with less than "
                f"{self.processes}, or 1 to start no other process.\n"
                "  If it could not start: a script that prepares data needs `if __name__ == '__main__':`."
            ) from error

    def _convert_elsewhere(self, source: Source, batches: Iterable[Batch]) -> Iterator[Converted]:
        under_way: deque[Future[Converted]] = deque()
        for batch in batches:
            under_way.append(self._started_pool().submit(convert, source.spec, batch))
            if len(under_way) > BATCHES_AHEAD * self.processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _started_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._pool = ProcessPoolExecutor(self.processes, context, start, (self.config, self.tokenizer))
            self._pool.submit(os.getpid)  # any task starts the processes
            import datasets  # noqa: F401 - needed later; importing takes a second, in which the processes start
        return self._pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class State:
    """Data that a process keeps between batches. `start` sets it, because the pool passes only batches to `convert`."""

    converter: Converter
    sources: dict[str, Source]


def start(config: DataConfig, tokenizer: Tokenizer) -> None:
    """Initialize a new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process, and the parent process reports it
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each core already has a process
    State.converter = Converter(config, tokenizer)
    adapter_files = tuple(map(Path, config.adapter))
    State.sources = {spec: parse_source(spec, adapter_files) for spec in (*config.datasets, *config.eval_datasets)}


def end_with_parent() -> None:
    """End this process when its parent ends. A killed parent cannot close the pool."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def convert(spec: str, batch: Batch) -> Converted:
    return State.converter.convert(State.sources[spec], batch)
