"""One process or many, by torch.distributed.

    torchrun --nproc-per-node 8 -m video_knet_core.cli train CONFIG --data DATA --out RUN

What torchrun did not start is one process, number 0 of 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, distributed, nn


def number() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Sum of `values` over all processes, which must all ask for it."""
    if count() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values


def gathered(text: str, device: torch.device) -> list[str]:
    """The texts of all processes in their order, which must all call; memory of `device` is used.

    Sums of bytes: torch's own exchange of objects is by pickle.
    """
    if count() == 1:
        return [text]
    data = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy()).to(device)
    lengths = torch.zeros(count(), dtype=torch.int64, device=device)
    lengths[number()] = len(data)
    lengths = total(lengths)
    rows = torch.zeros(count(), int(lengths.max()), dtype=torch.uint8, device=device)
    rows[number(), : len(data)] = data
    pairs = zip(total(rows).cpu(), lengths.tolist(), strict=True)
    return [bytes(row[:length].numpy()).decode() for row, length in pairs]


def share(values: Tensor) -> Tensor:
    """What one process has of the sum of `values` over all, at least 1 together: a normaliser.

    The gradients of all processes are averaged. A sum that is divided by the share has the same
    gradient as if one process had seen everything.
    """
    return total(values).clamp(min=1) / count()


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
    # not after a fault: the others would be waited for, and the reason not be told
    distributed.destroy_process_group()
