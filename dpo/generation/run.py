"""Runs the generation, from sources to pairs on disk: read, plan, answer, write, count.

rows -> PromptReader -> plan_batches -> PairMaker -> Output
         a row or prompt that gives no pair is a Drop, counted by its reason
"""

__all__ = ["Generated", "generate"]

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dpo.data.config import DataConfig
from dpo.data.pipeline import check_columns_are_read, code_fingerprint
from dpo.data.reading.opening import open_source
from dpo.data.reading.source import Source, parse_source
from dpo.data.rendering.encoding import PairEncoder, load_known_template
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.data.report import DataReport
from dpo.errors import ConfigError, DataError
from dpo.generation.chat import ChatEncoder
from dpo.generation.config import DATA_FLAGS, GenerationConfig
from dpo.generation.limits import read_limits
from dpo.generation.output import BatchRecord, Output, open_output
from dpo.generation.pairs import PairMaker
from dpo.generation.prompts import Prompt, PromptReader, plan_batches
from dpo.hub import weights_state
from dpo.models.locating import ADAPTER_CONFIG, LocatedModel, locate
from dpo.records import Drop


@dataclass(frozen=True, kw_only=True)
class Generated:
    """The result of a run."""

    report: DataReport
    num_tokens: int
    """Number of tokens that this run generated, without those of an earlier run that it resumed."""
    seconds: float
    """Seconds spent on generation, without loading and scoring."""


def generate(config: GenerationConfig, data: DataConfig, file: Path, *, overwrite: bool = False) -> Generated:
    """Write a pair for each row of the sources that gives one, or resume a run that was stopped.

    Args:
        config: How to generate and pair answers.
        data: What to read.
        file: File of the pairs, in JSONL for the adapter triplets.
        overwrite: Whether to start the file again.

    Returns:
        The data report, and the speed of the generation.

    Raises:
        DPOError: if a source, the template or a model cannot be used, the file cannot be resumed, or no pair was made.
    """
    located = locate(config.model, revision=config.model_revision)
    tokenizer = load_tokenizer(
        located.tokenizer, revision=located.tokenizer_revision, trust_remote_code=config.trust_remote_code
    )
    encoder = make_encoder(tokenizer, data)
    limits = read_limits(located)
    if limits.context is not None and config.max_new_tokens >= limits.context:
        raise ConfigError(
            f"--max_new_tokens {config.max_new_tokens}: the model's context is {limits.context} tokens for prompt and "
            "answer together.\n  Pass a smaller value."
        )
    sources = [parse_source(spec, tuple(map(Path, data.adapter))) for spec in data.datasets]
    check_columns_are_read(data, sources)
    reward_chat = None
    if config.reward_model is not None:
        reward_chat = ChatEncoder.of_reward_model(config.reward_model, trust_remote_code=config.trust_remote_code)
    assert encoder.end_of_turn_id is not None
    reader = PromptReader(data=data, config=config, encoder=encoder, limits=limits, reward_chat=reward_chat)
    maker = PairMaker(
        config=config,
        located=located,
        encoder=encoder,
        end_ids=list(dict.fromkeys([encoder.end_of_turn_id, *limits.end_ids])),
        seed=data.seed,
        reward_chat=reward_chat,
    )
    settings = settings_of(config, data, sources, encoder, located)
    if overwrite:
        maker.load()  # delete the earlier pairs only after the models are loaded
    with open_output(file, settings, overwrite=overwrite) as output:
        report = write_pairs(reader, maker, output, sources)
    report.save(file.with_name(f"{file.name}.report"))
    if not report.pairs["written"]:
        raise DataError(
            f"no pair was made from {report.total().rows:,} rows:\n{report.table()}\n"
            "  Fix the rows or the flags behind these reasons. docs/reference/reasons.md explains each reason."
        )
    return Generated(report=report, num_tokens=maker.num_tokens, seconds=maker.seconds)


def make_encoder(tokenizer: Tokenizer, data: DataConfig) -> PairEncoder:
    """Build the encoder that renders prompts in the same way as training.

    Raises:
        TemplateError: if the template is unknown, or the tokenizer lacks its control tokens.
    """
    template = load_known_template(data.template, tokenizer)
    return PairEncoder(template, tokenizer, special_tokens_in_text=data.special_tokens_in_text)


def settings_of(
    config: GenerationConfig,
    data: DataConfig,
    sources: Sequence[Source],
    encoder: PairEncoder,
    located: LocatedModel,
) -> dict[str, Any]:
    """Return what the pairs depend on, by names that the user knows."""
    flags = config.model_dump(mode="json") | data.model_dump(mode="json", include=set(DATA_FLAGS))
    return {f"--{name}": value for name, value in flags.items()} | {
        "the version of the code that reads rows": short(code_fingerprint(sources)),
        "the template's text": short(hashlib.sha256(encoder.template.source.encode()).hexdigest()),
        "the tokenizer": short(encoder.tokenizer.fingerprint()),
        **{f"the state of {model}": short(state) for model, state in states_of(located, config.reward_model).items()},
        **{f"the state of {source.spec}": short(source.fingerprint()) for source in sources},
    }


def states_of(located: LocatedModel, reward_model: str | None) -> dict[str, str]:
    """Return the state of each model's weights, by model name. It changes when the weights of a name change."""
    models = [(located.base, "config.json", located.base_revision)]
    if located.adapter is not None:
        models.append((located.adapter, ADAPTER_CONFIG, located.adapter_revision))
    if reward_model is not None:
        models.append((reward_model, "config.json", None))
    return {model: weights_state(model, name, revision) for model, name, revision in models}


def short(fingerprint: str) -> str:
    return fingerprint[-16:]


def write_pairs(reader: PromptReader, maker: PairMaker, output: Output, sources: Sequence[Source]) -> DataReport:
    """Answer the batches that are not finished yet, and count the results of all batches."""
    report = DataReport()
    num_batches = 0
    with tqdm(total=count_rows(sources, reader), unit=" rows") as bar:
        for batch in plan_batches(reader.read(sources, report), reader.config.batch_size):
            if num_batches < len(output.finished):
                record = output.finished[num_batches]
                if record.rows != [prompt.preference.row for prompt in batch]:
                    raise rows_changed()
            else:
                pairs, record = maker.make(batch)
                output.append(pairs, record)
            num_batches += 1
            count(batch, record, report)
            done = report.total()
            bar.update(done.kept + done.dropped.total() - bar.n)
            if maker.seconds:
                bar.set_postfix_str(f"{maker.num_tokens / maker.seconds:,.0f} tokens/s")
    if num_batches < len(output.finished):
        raise rows_changed()
    whole = report.total()
    report.pairs = {"written": whole.kept}
    if whole.dropped["unfinished"]:
        report.notes.append(
            f"unfinished: no answer ended within --max_new_tokens {reader.config.max_new_tokens} "
            "(--keep_unfinished accepts answers that were cut off)"
        )
    report.check()
    return report


def count_rows(sources: Sequence[Source], reader: PromptReader) -> int:
    columns = reader.data.adapter_options().columns
    return sum(1 for source in sources for _ in islice(open_source(source, columns, pairs=False), reader.config.limit))


def count(batch: Sequence[Prompt], record: BatchRecord, report: DataReport) -> None:
    for place, prompt in enumerate(batch):
        counts = report.sources[prompt.preference.source]
        if place in record.dropped:
            counts.drop(Drop(*record.dropped[place]), prompt.preference.row)
        else:
            counts.keep()


def rows_changed() -> DataError:
    return DataError(
        "--output: the file was started with other rows than the sources contain now.\n"
        "  Pass --overwrite to start again."
    )
