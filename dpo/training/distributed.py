"""One process or many: who is who, and who goes first."""

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
"""How long ranks wait for data to be prepared. A process group's own limit is minutes, and kills long preparations."""


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print, once for all ranks."""
    if is_main_process():
        print(text, flush=True)


def is_fsdp(args: TrainingArguments) -> bool:
    """Whether the ranks shard the model by FSDP: accelerate's launcher or --fsdp asks for it, and there are ranks."""
    is_asked = bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return is_asked and PartialState().distributed_type not in (DistributedType.NO, DistributedType.DEEPSPEED)


def shard_between_cpus(accelerator: Accelerator, args: TrainingArguments) -> None:
    """Turn on the FSDP that was asked for between CPU ranks.

    FSDP shards over gloo as well, but accelerate (1.15) lists the devices that it turns it on for, leaves CPUs out, and
    trains them as DDP without a word.
    """
    plugin = FullyShardedDataParallelPlugin(**(args.fsdp_plugin_args or {}))
    state = accelerator.state
    if state.mixed_precision != "no":
        plugin.set_mixed_precision(state.mixed_precision)
    state.fsdp_plugin = plugin
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def set_up(*, deepspeed: bool, spread: bool = False) -> None:
    """Make the environment what the libraries expect, before they look at it.

    Without a launcher: one process, on the first GPU, or on all where the model is spread over them. On a CPU: the
    cores shared among the ranks, and DeepSpeed's communication started, since zero.Init would count one rank otherwise.
    """
    # The libraries' notes to each other on names they will drop, several a rank, none of them a user's to mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    launched = "LOCAL_RANK" in os.environ
    if not launched and not spread:
        # Several visible GPUs would make transformers choose nn.DataParallel.
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

        # An all-reduce of its own that it would compile at the first start, minutes without a word. gloo has one.
        compiled_at_first_use["deepspeed_shm_comm"] = False
        init_distributed(dist_backend="gloo", verbose=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def local_main_first(work: Callable[[], Result]) -> Result:
    """Do the work on each machine's first process, then on the others, however long the first one takes.

    Raises:
        DPOError: on every process, where one of the first processes met it.
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
    """End the process group; a process that exits with an open one may abort."""
    if dist.is_initialized():
        dist.destroy_process_group()
