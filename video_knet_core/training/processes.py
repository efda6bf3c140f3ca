"""One process or many, by torch.distributed.

    torchrun --nproc-per-node 8 -m video_knet_core.cli train CONFIG --data DATA --out RUN

What torchrun did not start is one process, number 0 of 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

Value = TypeVar("Value")


def number() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Sum of `values` over all processes, which must all call."""
    if count() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values


def gathered(value: Value) -> list[Value]:
    """The values of all processes in their order, which must all call; they go by pickle."""
    values = [value] * count()
    if count() > 1:
        distributed.all_gather_object(values, value)
    return values


def agree(module: nn.Module) -> None:
    """All processes get what only the first keeps right: batch norm statistics, and averages."""
    if count() > 1:
        for value in module.state_dict().values():
            distributed.broadcast(value, 0)


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        distributed.barrier()


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Within the block, the processes that torchrun started work together.

    Returns:
        The device of this process: with "cuda" its own GPU of this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield device
    # not after a fault: the other processes would be waited for, and the reason never reported
    distributed.destroy_process_group()
