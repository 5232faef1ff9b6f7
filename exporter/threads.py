"""Threads for what takes CPU for long, apart from those in which asyncio looks names up."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_POOL: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="work")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns, without holding the event loop.

    Unlike with `asyncio.to_thread`, names that can't be looked up do not delay it: each look-up holds one of asyncio's
    few threads for as long as the resolver tries, even when nobody waits for it any more.
    """
    return await asyncio.get_running_loop().run_in_executor(_POOL, partial(function, *args, **kwargs))
