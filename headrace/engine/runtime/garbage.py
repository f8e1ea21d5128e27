"""Python's cyclic garbage collector, tuned for batches."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: How much rarer the collections of the older generations are than those of the youngest.
OLDER_GENERATIONS = (20, 50)


@contextmanager
def rare_collections(new_objects: int) -> Iterator[None]:
    """Let the collector run only after `new_objects` more containers were made than freed.

    Records live for a batch and die by reference count. At Python's default of 700 the collector walks each of them
    several times first, which made decoding Kafka's records three to four times as slow (`docs/decisions/0010`). What
    exists already, modules above all, is not walked any more either.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(new_objects, *OLDER_GENERATIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
