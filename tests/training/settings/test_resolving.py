"""Flags: defaults, YAML, derived batch sizes, errors."""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
import yaml

from dpo.errors import ConfigError
from dpo.training.reports.summary import describe_loss
from dpo.training.settings.batches import derive_batches
from dpo.training.settings.flags import parse_flags, resolved_flags
from dpo.training.settings.resolving import TrainingConfig
from tests.builders import put_on_hub

REQUIRED = ["--datasets", "nectar", "--model_name_or_path", "m", "--output_dir", "out"]


def training_config(*flags: str) -> TrainingConfig:
    return TrainingConfig(**parse_flags([*REQUIRED, *flags])[1])


@pytest.mark.parametrize(
    ("given", "world_size", "expected"),
    [
        ({}, 1, (32, 4, 8)),
        ({}, 2, (32, 4, 4)),
        ({}, 16, (32, 2, 1)),
        ({"global_batch_size": 64}, 8, (64, 4, 2)),
        ({"global_batch_size": 6}, 2, (6, 3, 1)),
        ({"global_batch_size": 64, "per_device": 1}, 8, (64, 1, 8)),
        ({"global_batch_size": 64, "accumulation": 2}, 8, (64, 4, 2)),
        ({"per_device": 1, "accumulation": 4}, 1, (4, 1, 4)),
        ({"accumulation": 4}, 2, (8, 1, 4)),
        ({"per_device": 8}, 1, (32, 8, 4)),
        ({}, 3, (33, 1, 11)),
        ({}, 64, (64, 1, 1)),
    ],
)
def test_missing_batch_sizes_are_derived(given, world_size, expected):
    arguments = {"global_batch_size": None, "per_device": None, "accumulation": None} | given
    assert derive_batches(**arguments, world_size=world_size) == expected


@pytest.mark.parametrize(
    ("given", "world_size", "nearest"),
    [
        ({"global_batch_size": 32}, 3, "30 and 33"),
        ({"global_batch_size": 10, "per_device": 4}, 1, "8 and 12"),
        ({"global_batch_size": 2}, 4, "is 4"),
    ],
)
def test_a_batch_size_that_does_not_divide_names_the_nearest_sizes_that_do(given, world_size, nearest):
    arguments = {"global_batch_size": None, "per_device": None, "accumulation": None} | given
    with pytest.raises(ConfigError, match=nearest):
        derive_batches(**arguments, world_size=world_size)


def test_three_numbers_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="the product is 8"):
        derive_batches(global_batch_size=16, per_device=4, accumulation=2, world_size=1)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        derive_batches(global_batch_size=0, per_device=None, accumulation=None, world_size=1)


def test_defaults(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    data, _ = parse_flags(REQUIRED)
    config = training_config()
    assert data.max_length == 2048 and data.template == "chatml"
    assert (config.beta, config.learning_rate, config.num_train_epochs) == (0.1, 1e-6, 1.0)
    assert config.lr_scheduler_type == "linear" and config.get_warmup_steps(200) == 20
    assert config.global_batch_size == 32
    assert config.report_to == []
    assert config.max_length is None, "TRL must not truncate"
    assert config.bf16 is False and str(config.dtype) == "torch.float32", "this machine has no bfloat16 device"


def test_a_yaml_file_has_the_same_flags_and_the_command_line_overrides_it(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "datasets: [nectar, orca_dpo_pairs@0.5]\nlearning_rate: 1e-6\nbeta: 0.3\ngradient_checkpointing: false\n"
        "model_name_or_path: m\noutput_dir: out\nmax_prompt_length: null\n"
    )
    data, flags = parse_flags(["--config", str(file), "--beta", "0.2", "--datasets", "triplets"])
    assert data.datasets == ("triplets",)
    assert flags["learning_rate"] == 1e-6
    assert flags["beta"] == 0.2
    assert flags["gradient_checkpointing"] is False


@pytest.mark.parametrize("of_objective", [["--loss", "ipo", "sft:0.2", "--logp_reduction", "sum"], ["--stage", "sft"]])
def test_the_resolved_configuration_resolves_to_itself(of_objective, tmp_path):
    of_data = ["--max_prompt_length", "100", "--validation_split", "0.1"]
    of_training = ["--global_batch_size", "8", *of_objective]
    data, flags = parse_flags([*REQUIRED, *of_data, *of_training])
    config = TrainingConfig(**flags)
    written = resolved_flags(data, config)
    file = tmp_path / "resolved.yaml"
    file.write_text(yaml.safe_dump(written))
    again_data, again_flags = parse_flags(["--config", str(file)])
    again = TrainingConfig(**again_flags)
    assert again_data == data
    assert resolved_flags(again_data, again) == written


def test_an_unknown_flag_suggests_a_similar_one_and_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"(?s)--dataset'.*--datasets.*--max_length") as error:
        parse_flags([*REQUIRED, "--dataset", "nectar"])
    assert "max-length" not in str(error.value), "each flag is listed once"


def test_an_unknown_key_in_the_yaml_file_names_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("learning_rte: 1\n")
    with pytest.raises(ConfigError, match=r"run\.yaml.*learning_rate"):
        parse_flags(["--config", str(file)])


@pytest.mark.parametrize(("flags", "expected"), [([], None), (["--bf16"], True), (["--bf16", "false"], False)])
def test_an_optional_switch_needs_no_value(flags, expected):
    assert parse_flags([*REQUIRED, *flags])[1]["bf16"] is expected


def test_the_launchers_local_rank_is_accepted():
    assert parse_flags([*REQUIRED, "--local_rank=1"])[1]["local_rank"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--truncation_mode", "keep_end"], "nothing is truncated"),
        (["--padding_free", "true"], "does nothing"),
        (["--loss", "hinge", "--label_smoothing", "0.1"], "not read by --loss hinge"),
        (["--output_dir", "m"], "would be overwritten"),
        (["--model_name_or_path", ""], "--model_name_or_path is missing"),
        (["--lr_scheduler_type", "nonsense"], "invalid choice"),
        (["--save_strategy", "nonsense"], "nonsense"),
        (["--deepspeed", "missing.json"], "cannot be read"),
        (["--loss_type", "dpo"], "the DPO loss is called sigmoid"),
        (["--loss_type", "exo_pair"], "label_smoothing above 0"),
        (["--f_divergence_type", "kl"], "unknown divergence"),
        (["--loss", "simpo:x"], "weight above 0"),
        (["--loss", "simpo", "--loss_type", "ipo"], "pass one or the other"),
        (["--loss_type", "ipo:1", "sft", "--loss_weights", "1", "2"], "names without a weight"),
        (["--loss_type", "ipo", "sft", "--loss_weights", "1"], "expected one number for each name"),
        (["--loss_type", "ipo", "sft", "--loss_weights", "1", "-1"], "weight above 0"),
        (["--loss_type", "ipo", "sft", "--loss_weights", "1", "nan"], "weight above 0"),
        (["--loss", "discopop", "--discopop_tau", "0"], "above 0"),
        (["--beta", "nan"], "above 0"),
        (["--beta", "inf"], "--beta inf: expected a number above 0"),
        (["--learning_rate", "inf"], "--learning_rate inf: expected 0 or more"),
        (["--stage", "sft", "--label_smoothing_factor", "0.1"], "it smooths over the vocabulary"),
        (["--loss", "simpo", "--simpo_gamma", "inf"], "expected a finite number"),
        (["--reference_free", "true", "--f_divergence_type", "forward_kl"], "--reference_free trains without one"),
        (["--loss", "simpo", "--reference_cache", "mine"], "no reference is read with --loss simpo"),
        (
            ["--loss", "simpo", "--sync_ref_model", "true"],
            "packed alone, and this run is padded because --sync_ref_model",
        ),
        (["--loss", "simpo", "--neftune_noise_alpha", "5"], "this run is padded because --neftune_noise_alpha"),
        (["--loss", "nca_pair", "--f_divergence_type", "forward_kl"], "not read by --loss nca_pair"),
        (["--loss", "sigmoid", "bco_pair", "--f_divergence_type", "forward_kl"], "not read by --loss bco_pair"),
        (["--simpo_gamma", "1"], "(?s)not read by --loss sigmoid.*Losses that read it: simpo"),
        (["--logp_reduction", "sum"], "(?s)not read by --loss sigmoid.*Losses that read it: ipo"),
        (["--label_smoothing", "0.5"], "less than 0.5"),
        (["--loss", "sft:0.5", "--beta", "0.7"], "--beta 0.7 is not read by --loss sft"),
        (["--ref_model_sync_steps", "3"], "--ref_model_sync_steps is only read with --sync_ref_model"),
        (["--ref_model_mixup_alpha", "0.3"], "--ref_model_mixup_alpha is only read with --sync_ref_model"),
        (["--sync_ref_model", "true", "--lora_rank", "4"], "--sync_ref_model moves a reference model"),
        (["--train_sampling_strategy", "group_by_length"], "Pass random or sequential"),
        (["--use_liger_kernel", "true"], "pip install liger-kernel"),
        (["--optim", "galore_adamw"], "--optim galore_adamw: .*galore"),
        (["--optim", "grokadamw"], "--optim grokadamw: Please install grokadamw"),
        (["--lr_scheduler_type", "cosine_with_min_lr"], "--lr_scheduler_type cosine_with_min_lr: One of min_lr"),
        (["--lr_scheduler_type", "linear", "--lr_scheduler_kwargs", '{"min": 1}'], "unexpected keyword argument 'min'"),
        (["--activation_offloading", "true", "--use_cpu"], "this run is on a CPU"),
        (["--stage", "sft", "--loss", "sigmoid"], "--loss is for pairs"),
        (["--stage", "sft", "--loss_type", "sigmoid"], "--loss_type is for pairs"),
        (["--stage", "sft", "--loss_weights", "2"], "--loss_weights is for pairs"),
        (["--stage", "sft", "--ref_model_mixup_alpha", "0.3"], "--ref_model_mixup_alpha is for pairs"),
        (
            ["--average_tokens_across_devices", "false"],
            "not supported by --engine packed: the loss is always averaged over",
        ),
        (["--ld_alpha", "1.5"], "expected a number from 0 to 1"),
        (["--ld_alpha", "0.5", "--loss", "simpo"], "which --loss simpo does not read"),
        (["--use_weighting", "true", "--loss", "aot"], "which --loss aot does not keep apart"),
        (["--loss", "simpo", "--reference_free", "true"], "uses no reference anyway"),
        (["--loss", "simpo", "--engine", "padded"], "--loss simpo is computed by --engine packed alone"),
        (["--label_smoothing", "0.1", "--engine", "padded"], "--label_smoothing with --loss sigmoid is computed by"),
        (["--loss", "ipo", "--logp_reduction", "sum", "--engine", "padded"], "--logp_reduction sum is computed by"),
        (["--reference_free", "true", "--engine", "padded"], "--reference_free is computed by"),
        (["--f_alpha_divergence_coef", "0.7"], "only read with --f_divergence_type alpha_divergence"),
        (["--resume_from_checkpoint", "missing"], "no such folder"),
        (["--resume_from_checkpoint", "latest"], "contains no complete checkpoint"),
        (["--resume_from_checkpoint", "."], "is not a checkpoint"),
        (["--report_to", "foo"], "unknown value of --report_to 'foo'"),
        (["--attn_implementation", "sdpaa"], "Did you mean sdpa"),
        (["--learning_rate", "-1"], "expected 0 or more"),
        (["--beta", "0"], "above 0"),
        (["--num_train_epochs", "0"], "above 0"),
        (["--max_steps", "0"], "1 or more"),
        (["--per_device_eval_batch_size", "0"], "above 0"),
        (["--sample_prompts", "-1"], "expected 0 or more"),
        (["--precompute_ref_log_probs", "true"], "not supported by --engine packed: --reference_cache"),
        (["--auto_find_batch_size", "true"], "use --max_tokens_per_micro_batch to bound memory"),
        (
            ["--engine", "padded", "--max_tokens_per_micro_batch", "100"],
            "read by --engine packed.\n  Leave --engine out",
        ),
        (
            ["--engine", "padded", "--reference_cache", "mine"],
            "--reference_cache mine is only read by --engine packed",
        ),
        (
            ["--sync_ref_model", "true", "--max_tokens_per_micro_batch", "10"],
            "--max_tokens_per_micro_batch is only read by --engine packed, and this run is padded because --sync_ref",
        ),
        (
            ["--stage", "sft", "--engine", "padded", "--reference_cache", "mine"],
            "no reference is read with answers",
        ),
        (
            ["--sync_ref_model", "true", "--reference_cache", "mine"],
            "only read by --engine packed, and this run is padded because --sync",
        ),
        (
            ["--stage", "sft", "--train_sampling_strategy", "group_by_length", "--max_tokens_per_micro_batch", "10"],
            "only read by --engine packed, and this run is padded because --train_sampling_strategy",
        ),
        (["--engine", "fast"], "invalid choice"),
    ],
)
def test_wrong_flags_and_flags_without_effect_are_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        training_config(*flags)


def test_an_optimizer_that_needs_the_model_is_left_to_the_trainer(monkeypatch):
    """galore_torch is mocked, because it need not be installed."""
    monkeypatch.setattr("transformers.trainer_optimizer.is_galore_torch_available", lambda: True)
    monkeypatch.setitem(sys.modules, "galore_torch", MagicMock())
    assert training_config("--optim", "galore_adamw", "--optim_target_modules", "q_proj").optim == "galore_adamw"


def test_an_infinite_gradient_norm_clips_nothing():
    assert training_config("--max_grad_norm", "inf").max_grad_norm == float("inf")


def test_a_schedule_with_its_own_options_is_accepted():
    config = training_config(
        "--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr_rate": 0.1}'
    )
    assert config.lr_scheduler_kwargs == {"min_lr_rate": 0.1}


def test_beta_is_only_printed_if_a_loss_reads_it():
    assert describe_loss(training_config("--loss", "sft")) == "sft"
    assert describe_loss(training_config("--loss", "sft:0.2", "ipo")) == "sft:0.2 + ipo, beta 0.1"


def test_an_option_is_accepted_if_one_of_several_losses_reads_it():
    assert training_config("--loss", "sigmoid", "hinge", "--label_smoothing", "0.1").label_smoothing == 0.1


def test_a_loss_may_read_its_own_option():
    assert training_config("--loss_type", "robust", "--label_smoothing", "0.1").label_smoothing == 0.1


@pytest.mark.parametrize(
    "flags",
    [
        ["--loss", "sigmoid:1.0", "sft:0.2"],
        ["--loss_type", "sigmoid:1.0", "sft:0.2"],
        ["--loss_type", "sigmoid", "sft", "--loss_weights", "1", "0.2"],
    ],
    ids=str,
)
def test_losses_are_mixed_with_weights(flags):
    config = training_config(*flags)
    assert (config.loss_type, config.loss_weights, config.loss) == (
        ["sigmoid", "sft"],
        [1.0, 0.2],
        ["sigmoid", "sft:0.2"],
    )


def test_losses_of_weight_1_are_added():
    config = training_config("--loss", "hinge", "sft:1")
    assert (config.loss_type, config.loss_weights) == (["hinge", "sft"], None)


@pytest.mark.parametrize(
    ("written", "flags", "expected"),
    [
        ("loss: [ipo, 'sft:0.2']", [], ["ipo", "sft:0.2"]),
        ("loss: ipo", ["--loss_type", "sigmoid"], ["sigmoid"]),
        ("loss: [ipo, 'sft:0.2']", ["--loss=hinge"], ["hinge"]),
        ("loss_type: [ipo, sft]\nloss_weights: [1, 0.2]", ["--loss", "hinge"], ["hinge"]),
        ("loss_type: [ipo, sft]\nloss_weights: [1, 0.2]", ["--loss-type", "hinge"], ["hinge"]),
    ],
)
def test_losses_on_the_command_line_override_those_of_the_file(tmp_path, written, flags, expected):
    file = tmp_path / "run.yaml"
    file.write_text(written)
    assert training_config("--config", str(file), *flags).loss == expected


@pytest.mark.parametrize("losses", ["ipo", ["ipo"]])
def test_a_loss_may_be_given_in_code_as_one_name(losses):
    flags = parse_flags(REQUIRED)[1]
    assert TrainingConfig(**flags | {"loss": losses}).loss_type == ["ipo"]
    assert TrainingConfig(**flags | {"loss_type": losses}).loss_type == ["ipo"]


def test_a_finished_run_is_not_overwritten_unless_asked(tmp_path):
    (tmp_path / "train_results.json").write_text("{}")
    with pytest.raises(ConfigError, match="contains a finished run"):
        training_config("--output_dir", str(tmp_path))
    assert training_config("--output_dir", str(tmp_path), "--overwrite_output_dir").overwrite_output_dir


def test_a_model_in_output_dir_is_not_overwritten_unless_asked(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="contains a model"):
        training_config("--output_dir", str(tmp_path))
    assert training_config("--output_dir", str(tmp_path), "--overwrite_output_dir").overwrite_output_dir


def test_the_folder_of_the_reference_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DPO_CACHE", str(tmp_path))
    assert training_config().reference_folder == tmp_path / "reference"
    assert training_config("--reference_cache", "mine").reference_folder == Path("mine")
    for off in (["--no-reference_cache"], ["--reference_cache", "none"], ["--reference_cache=false"]):
        assert training_config(*off).reference_folder is None


def test_values_derived_from_the_number_of_devices_are_not_saved():
    data, flags = parse_flags([*REQUIRED, "--global_batch_size", "8", "--per_device_train_batch_size", "2"])
    written = resolved_flags(data, TrainingConfig(**flags))
    assert (written["global_batch_size"], written["gradient_accumulation_steps"]) == (8, None)
    assert written["report_to"] == "none", (
        "an empty list would count as not given, and WANDB_PROJECT would turn wandb on"
    )


def test_a_run_on_prepared_data_saves_its_stage(tmp_path):
    argv = ["--model_name_or_path", "m", "--output_dir", "o", "--prepared", str(tmp_path), "--stage", "sft"]
    data, flags = parse_flags(argv)
    written = resolved_flags(data, TrainingConfig(**flags))
    assert (written["prepared"], written["stage"]) == (str(tmp_path), "sft")


def test_wandb_needs_a_login_unless_it_is_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "p")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="wandb login"):
        training_config()


def test_wandb_is_on_when_its_project_is_set(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "p")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert training_config().report_to == ["wandb"]
    assert training_config("--report_to", "none").report_to == []


def test_evaluation_follows_the_held_out_pairs():
    config = training_config("--validation_split", "0.1")
    assert (config.eval_strategy, config.eval_steps, config.eval_on_start) == ("steps", 0.25, True)
    config = training_config("--eval_datasets", "triplets", "--eval_strategy", "epoch", "--eval_on_start", "false")
    assert (config.eval_strategy, config.eval_on_start) == ("epoch", False)
    config = training_config()
    assert (config.eval_strategy, config.eval_on_start) == ("no", False)


@pytest.mark.parametrize("flag", [("--eval_strategy", "steps"), ("--eval_steps", "10"), ("--eval_on_start",)])
def test_evaluation_of_nothing_is_refused(flag):
    with pytest.raises(ConfigError, match="nothing is held out"):
        training_config(*flag)


def test_an_unquoted_no_in_yaml_is_no(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("validation_split: 0.1\neval_strategy: no\nsave_strategy: no\n")
    config = training_config("--config", str(file))
    assert (config.eval_strategy, config.save_strategy) == ("no", "no")


def test_the_best_model_can_be_kept():
    config = training_config("--validation_split", "0.1", "--load_best_model_at_end", "--save_steps", "0.25")
    assert config.load_best_model_at_end and config.metric_for_best_model == "loss"


def test_a_tilde_in_a_path_is_expanded_before_the_path_is_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train_results.json").write_text("{}")
    with pytest.raises(ConfigError, match="contains a finished run"):
        training_config("--output_dir", "~/out")


def test_the_last_complete_checkpoint_is_found(tmp_path):
    for name in ("checkpoint-2", "checkpoint-10", "checkpoint-11", "checkpoint-old"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-11":  # killed before the state, which transformers writes last
            (tmp_path / name / "trainer_state.json").write_text("{}")
    config = training_config("--output_dir", str(tmp_path), "--resume_from_checkpoint", "latest")
    assert config.resume_from_checkpoint == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        ({"adapter_config.json": '{"r": 4}'}, [], "is the checkpoint of an adapter.*\n.*such as --lora_rank 4"),
        (
            {"adapter_config.json": '{"r": 4}'},
            ["--lora_rank", "8"],
            "--lora_rank 8: the adapter in .* was trained with 4.\n  Pass --lora_rank 4",
        ),
        (
            {"adapter_config.json": '{"r": 4, "use_dora": false}'},
            ["--lora_rank", "4", "--use_dora"],
            "--use_dora True: the adapter in .* was trained with False",
        ),
        (
            {"config.json": "{}"},
            ["--lora_rank", "4"],
            "is the checkpoint of a whole model, but this run trains an adapter",
        ),
        ({"adapter_config.json": "{"}, [], "expected a JSON object"),
    ],
)
def test_a_checkpoint_of_another_kind_of_run_is_refused(files, flags, message, tmp_path):
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    for name, content in ({"trainer_state.json": "{}"} | files).items():
        (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        training_config(*flags, "--output_dir", str(tmp_path), "--resume_from_checkpoint", "latest")


def test_a_run_resumes_from_an_adapters_checkpoint_with_the_same_flags(tmp_path):
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    (folder / "adapter_config.json").write_text('{"r": 4, "use_dora": false, "use_rslora": false}')
    flags = ["--output_dir", str(tmp_path), "--resume_from_checkpoint", "latest", "--lora_rank", "4"]
    assert training_config(*flags).resume_from_checkpoint == str(folder)


def test_the_yaml_file_may_contain_the_deepspeed_configuration(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("use_cpu: true\ndeepspeed: {zero_optimization: {stage: 2}}\nreport_to: [none]\n")
    assert training_config("--config", str(file)).deepspeed["zero_optimization"] == {"stage": 2}
    assert training_config("--config", str(file)).deepspeed["zero_optimization"] == {"stage": 2}


def test_help_shows_our_flags_before_those_of_the_libraries(capsys):
    with pytest.raises(SystemExit):
        parse_flags(["--help"])
    ours, theirs = capsys.readouterr().out.split("\nflags of TRL and transformers:\n")
    for flag in ("--engine", "--datasets", "--global_batch_size", "--output_dir", "--config"):
        assert f"\n  {flag}" in ours and f"\n  {flag} " not in theirs
    assert "\n  --weight_decay" in theirs


@pytest.mark.parametrize("stage", ["dpo", "sft"])
def test_an_adapter_on_the_hub_is_trained_like_one_in_a_folder(stage, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    name = put_on_hub("org/config-adapter", v2=tmp_path)
    flags = ("--stage", stage, "--bf16", "true", "--use_cpu", "--model_name_or_path")
    of_folder = training_config(*flags, str(tmp_path))
    of_hub = training_config(*flags, name, "--model_revision", "v2")
    assert of_hub.trains_adapter and of_hub.learning_rate == of_folder.learning_rate
    assert of_hub.dtype == of_folder.dtype == torch.bfloat16
    assert of_hub.learning_rate > training_config("--stage", stage).learning_rate
