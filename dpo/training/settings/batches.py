"""How many pairs a step, a device and a micro-batch take."""

__all__ = ["DEFAULT_GLOBAL_BATCH_SIZE", "LARGEST_DEFAULT_MICRO_BATCH", "check_sizes", "derive_batches"]

from dpo.errors import ConfigError

DEFAULT_GLOBAL_BATCH_SIZE = 32
LARGEST_DEFAULT_MICRO_BATCH = 4


def check_sizes(global_batch_size: int | None, per_device: int | None, accumulation: int | None) -> None:
    """Refuse what is no number of pairs or micro-batches, on however many devices.

    Raises:
        ConfigError: naming the flag.
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
    """Fill in what is left open of: global_batch_size = per_device x world_size x accumulation.

    Returns:
        (global_batch_size, per_device, accumulation). 32 over 2 devices, nothing else given: (32, 4, 4).

    Raises:
        ConfigError: the numbers do not go together; the message names the nearest that do.
    """
    check_sizes(global_batch_size, per_device, accumulation)
    if global_batch_size is None and accumulation is not None:
        per_device = per_device or 1
        return per_device * world_size * accumulation, per_device, accumulation
    given = world_size * (per_device or 1) * (accumulation or 1)
    # Nobody asked for 32: on 3 devices it is 33.
    wanted = global_batch_size or max(1, round(DEFAULT_GLOBAL_BATCH_SIZE / given)) * given
    if wanted % given or (per_device and accumulation and wanted != given):
        parts = [f"{world_size} device(s)"]
        parts += [f"--per_device_train_batch_size {per_device}"] if per_device else []
        parts += [f"--gradient_accumulation_steps {accumulation}"] if accumulation else []
        if per_device and accumulation:
            ways_out, those = f"these make {given}", "it"
        else:
            below, above = wanted // given * given, (wanted // given + 1) * given
            ways_out, those = f"the nearest is {above}", "it"
            if below:
                ways_out, those = f"the nearest sizes that do are {below} and {above}", "one of them"
        raise ConfigError(
            f"global batch size {wanted} does not divide into {' x '.join(parts)}: {ways_out}.\n"
            f"  Pass {those} as --global_batch_size, or change the other numbers."
        )
    share = wanted // given
    if per_device is None:
        per_device = (
            max(size for size in range(1, LARGEST_DEFAULT_MICRO_BATCH + 1) if share % size == 0)
            if accumulation is None
            else share
        )
    return wanted, per_device, accumulation or wanted // (world_size * per_device)
