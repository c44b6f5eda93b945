"""What runs a model: one contract, two libraries, chosen by --backend."""

__all__ = ["open_backend"]

from collections.abc import Sequence

from dpo.generation.backends.base import Backend
from dpo.generation.config import GenerationConfig
from dpo.models.locating import LocatedModel


def open_backend(located: LocatedModel, config: GenerationConfig, *, end_ids: Sequence[int]) -> Backend:
    """The library that --backend names, with the model loaded.

    Raises:
        DPOError: it is not installed, or cannot load the model.
    """
    if config.backend == "vllm":
        from dpo.generation.backends.vllm import VllmBackend

        return VllmBackend(located, config, end_ids=end_ids)
    from dpo.generation.backends.transformers import TransformersBackend

    return TransformersBackend(located, config, end_ids=end_ids)
