"""Runs a model with vLLM, on a GPU. Written according to vLLM's documentation; the tests use a stand-in for vLLM."""

__all__ = ["VllmBackend"]

from collections.abc import Sequence

from dpo.errors import ConfigError, ModelError
from dpo.generation.backends.base import Answer, cut_at
from dpo.generation.config import GenerationConfig
from dpo.models.device import choose_device, resolve_dtype
from dpo.models.locating import LocatedModel

MEMORY_BESIDE_REWARD_MODEL = 0.6
"""Fraction of the GPU's memory for vLLM if there is a reward model, which needs the rest. vLLM's default leaves 0.1."""


class VllmBackend:
    """A Backend that uses vLLM."""

    def __init__(self, located: LocatedModel, config: GenerationConfig, *, end_ids: Sequence[int]) -> None:
        try:
            import vllm
        except ImportError as error:
            raise ConfigError(
                f"--backend vllm: vLLM cannot be imported: {error}\n"
                "  Run: pip install vllm   (in a separate environment, because vLLM pins its own version of torch).\n"
                "  Or leave out --backend."
            ) from error
        if located.adapter is not None:
            raise ModelError(
                f"--backend vllm: {located.adapter} is an adapter, expected full weights.\n"
                "  Merge it into its base model first with `dpo merge`, or leave out --backend."
            )
        self.config = config
        self.end_ids = list(end_ids)
        self.sampling = vllm.SamplingParams
        memory = {} if config.reward_model is None else {"gpu_memory_utilization": MEMORY_BESIDE_REWARD_MODEL}
        try:
            self.engine = vllm.LLM(
                model=located.base,
                tokenizer=located.tokenizer,
                revision=located.base_revision,
                tokenizer_revision=located.tokenizer_revision,
                trust_remote_code=config.trust_remote_code,
                # vLLM's own "auto" uses the dtype in which the weights are stored.
                dtype=str(resolve_dtype(config.dtype, choose_device())).removeprefix("torch."),
                **memory,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(f"model {located.base}: vLLM cannot load it: {error}") from error

    def answer(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
        """Generate one answer to each prompt, in order."""
        outputs = self.engine.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [
                self.sampling(
                    temperature=self.config.temperature,
                    top_p=self.config.top_p if self.config.temperature > 0 else 1.0,
                    max_tokens=self.config.max_new_tokens,
                    stop_token_ids=self.end_ids,
                    seed=seed,
                    detokenize=False,
                )
                for seed in seeds
            ],
            use_tqdm=False,
        )
        answers = [output.outputs[0] for output in outputs]
        return [
            Answer(ids=cut_at(answer.token_ids, self.end_ids).ids, ended=answer.finish_reason == "stop")
            for answer in answers
        ]
