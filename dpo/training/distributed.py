"""Helpers for runs with several processes: setup, ranks, FSDP between CPUs, and work that one process does first."""

__all__ = ["finish", "is_fsdp", "is_main_process", "local_main_first", "say", "set_up", "shard_between_cpus"]

import os
import socket
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from transformers import TrainingArguments

from dpo.errors import DPOError
from dpo.models.memory import keep_freed_memory

Result = TypeVar("Result")

PATIENCE = timedelta(days=7)
"""How long ranks wait for the data. The default timeout of a process group is minutes, too short to prepare data."""


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print on the main process only."""
    if is_main_process():
        print(text, flush=True)


def is_fsdp(args: TrainingArguments) -> bool:
    """Whether the run shards the model with FSDP: accelerate's launcher or --fsdp turns it on, and there are ranks."""
    is_requested = bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return is_requested and PartialState().distributed_type not in (DistributedType.NO, DistributedType.DEEPSPEED)


def shard_between_cpus(accelerator: Accelerator, args: TrainingArguments) -> None:
    """Turn on FSDP between CPU ranks.

    FSDP can shard over gloo, but accelerate (1.15) turns it on only for certain devices. CPUs are not among them, so
    accelerate would silently use DDP.
    """
    plugin = FullyShardedDataParallelPlugin(**(args.fsdp_plugin_args or {}))
    state = accelerator.state
    if state.mixed_precision != "no":
        plugin.set_mixed_precision(state.mixed_precision)
    state.fsdp_plugin = plugin
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def set_up(*, deepspeed: bool, spread: bool = False) -> None:
    """Set up the environment before the libraries read it.

    Without a launcher, there is one process. It uses the first GPU, or all GPUs if the model is spread over them. On a
    CPU, the ranks share the cores, and DeepSpeed's communication is started here, because zero.Init would otherwise
    see only one rank.

    Args:
        deepspeed: Whether the run uses DeepSpeed.
        spread: Whether --device_map spreads the model over the devices of this process.
    """
    # The libraries warn each other about deprecated names, several times per rank. Users cannot fix that.
    warnings.filterwarnings("ignore", category=FutureWarning)
    launched = "LOCAL_RANK" in os.environ
    if not launched and not spread:
        # With several visible GPUs, transformers would use nn.DataParallel.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if not launched and deepspeed:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    if torch.accelerator.is_available():
        return
    keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1")
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
    if deepspeed and not dist.is_initialized():
        from deepspeed import init_distributed
        from deepspeed.ops import __compatible_ops__ as compiled_at_first_use

        # DeepSpeed would compile its own all-reduce at the first start, silently and for minutes. gloo has one.
        compiled_at_first_use["deepspeed_shm_comm"] = False
        init_distributed(dist_backend="gloo", verbose=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def local_main_first(work: Callable[[], Result]) -> Result:
    """Do work on the first process of each machine, then on the other processes. The others wait up to PATIENCE.

    Args:
        work: Function to call, once on each process.

    Returns:
        The result of work on this process.

    Raises:
        DPOError: on every process, if the work of a first process raised one.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return work()
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    error: DPOError | None = None
    if is_first:
        try:
            result = work()
        except DPOError as found:
            error = found
    errors: list[DPOError | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, error, group=dist.new_group(backend="gloo", timeout=PATIENCE))
    if first_error := next((found for found in errors if found is not None), None):
        raise first_error
    return result if is_first else work()


def finish() -> None:
    """Close the process group, because a process that exits with an open one may abort."""
    if dist.is_initialized():
        dist.destroy_process_group()
