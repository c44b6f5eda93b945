"""The libraries that run a model. --backend chooses one of them; both have the same interface."""

__all__ = ["open_backend"]

from collections.abc import Sequence

from dpo.generation.backends.base import Backend
from dpo.generation.config import GenerationConfig
from dpo.models.locating import LocatedModel


def open_backend(located: LocatedModel, config: GenerationConfig, *, end_ids: Sequence[int]) -> Backend:
    """Load the model with the library that --backend names.

    Args:
        located: Folder or Hub id of the model.
        config: How to generate answers.
        end_ids: Token ids that end an answer. The template's end-of-turn token is first.

    Raises:
        DPOError: if the library is not installed, or cannot load the model.
    """
    if config.backend == "vllm":
        from dpo.generation.backends.vllm import VllmBackend

        return VllmBackend(located, config, end_ids=end_ids)
    from dpo.generation.backends.transformers import TransformersBackend

    return TransformersBackend(located, config, end_ids=end_ids)
