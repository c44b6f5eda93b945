"""Batch sizes: pairs per optimizer step, per device and per micro-batch."""

__all__ = ["DEFAULT_GLOBAL_BATCH_SIZE", "LARGEST_DEFAULT_MICRO_BATCH", "check_sizes", "derive_batches"]

from dpo.errors import ConfigError

DEFAULT_GLOBAL_BATCH_SIZE = 32
LARGEST_DEFAULT_MICRO_BATCH = 4


def check_sizes(global_batch_size: int | None, per_device: int | None, accumulation: int | None) -> None:
    """Check the batch flags one by one, without knowing the number of devices.

    Args:
        global_batch_size: Pairs per optimizer step, over all devices. None if it is not given, here and below.
        per_device: Pairs that a device processes at once.
        accumulation: Micro-batches per optimizer step.

    Raises:
        ConfigError: if a value is below 1.
    """
    for name, value in (
        ("global_batch_size", global_batch_size),
        ("per_device_train_batch_size", per_device),
        ("gradient_accumulation_steps", accumulation),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: expected at least 1")


def derive_batches(
    *, global_batch_size: int | None, per_device: int | None, accumulation: int | None, world_size: int
) -> tuple[int, int, int]:
    """Derive the missing values in global_batch_size = per_device x world_size x accumulation.

    Args:
        global_batch_size: Pairs per optimizer step, over all devices. None if it is not given, here and below.
        per_device: Pairs that a device processes at once.
        accumulation: Micro-batches per optimizer step.
        world_size: Number of devices.

    Returns:
        (global_batch_size, per_device, accumulation). A global batch size of 32 on 2 devices gives (32, 4, 4).

    Raises:
        ConfigError: if the values contradict each other. The message names the nearest values that do not.
    """
    check_sizes(global_batch_size, per_device, accumulation)
    if global_batch_size is None and accumulation is not None:
        per_device = per_device or 1
        return per_device * world_size * accumulation, per_device, accumulation
    given = world_size * (per_device or 1) * (accumulation or 1)
    # The default of 32 may be adjusted: on 3 devices it becomes 33.
    wanted = global_batch_size or max(1, round(DEFAULT_GLOBAL_BATCH_SIZE / given)) * given
    if wanted % given or (per_device and accumulation and wanted != given):
        parts = [f"{world_size} device(s)"]
        parts += [f"--per_device_train_batch_size {per_device}"] if per_device else []
        parts += [f"--gradient_accumulation_steps {accumulation}"] if accumulation else []
        if per_device and accumulation:
            possible, choice = f"the product is {given}", "it"
        else:
            below, above = wanted // given * given, (wanted // given + 1) * given
            possible, choice = f"the nearest possible size is {above}", "it"
            if below:
                possible, choice = f"the nearest possible sizes are {below} and {above}", "one of them"
        raise ConfigError(
            f"--global_batch_size {wanted} does not match {' x '.join(parts)}: {possible}.\n"
            f"  Pass {choice} as --global_batch_size, or change the other numbers."
        )
    share = wanted // given
    if per_device is None:
        per_device = (
            max(size for size in range(1, LARGEST_DEFAULT_MICRO_BATCH + 1) if share % size == 0)
            if accumulation is None
            else share
        )
    return wanted, per_device, accumulation or wanted // (world_size * per_device)
