"""The files of the base and of the merged model, and the memory that a merge needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dpo.errors import ConfigError, DPOError, ModelError
from tests.builders import ROOT
from tests.merging.conftest import llama, load, logits, with_adapter

MEMORY = """
import pathlib, sys
import torch
from dpo.merging.names import locate_base
from dpo.merging.run import MergeOptions, merge
from dpo.models.loading import load_causal_lm

def merge_by_shard(adapter, output):
    options = MergeOptions(base="b", adapter="a", output=pathlib.Path(output), max_shard_size="5MB", check_prompts=0)
    merge(locate_base(adapter), options)

def load_whole(adapter):
    model = load_causal_lm(locate_base(adapter), dtype=torch.float32)
    assert all(parameter.isfinite().all() for parameter in model.parameters())  # reads the memory-mapped weights

def grows_by(work, *arguments):
    "MiB that some work adds to the resident memory, at its peak."
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    work(*arguments)
    return status("VmHWM") - before

def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

small, large, output = sys.argv[1:]
merge_by_shard(small, output + "0")  # a warm-up: libraries allocate memory at their first use
print(grows_by(merge_by_shard, large, output + "1"), grows_by(load_whole, large))
"""


def test_the_merged_shards_contain_every_tensor_once(make_base, make_adapter, run_merge) -> None:
    base = make_base(max_shard_size="8KB")
    adapter = make_adapter(base)
    assert len([*base.glob("*.safetensors")]) > 3
    report, merged = run_merge(adapter, max_shard_size="10KB")
    files = sorted(merged.glob("*.safetensors"))
    assert report.num_shards == len(files) > 3
    index = json.loads((merged / "model.safetensors.index.json").read_text())
    found = {}
    for file in files:
        with safe_open(file, "pt") as tensors:
            keys = [*tensors.keys()]
            size = sum(tensors.get_tensor(key).nbytes for key in keys)
        assert size <= 10_000 or len(keys) == 1
        assert not found.keys() & keys
        found |= dict.fromkeys(keys, file.name)
    assert found == index["weight_map"]
    assert found.keys() == json.loads((base / "model.safetensors.index.json").read_text())["weight_map"].keys()
    expected = logits(with_adapter(base, adapter))
    torch.testing.assert_close(logits(load(merged)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_tensor_that_is_written_twice_counts_towards_its_shard(make_base, make_adapter, run_merge) -> None:
    base = make_base(llama(tie_word_embeddings=True))
    report, merged = run_merge(make_adapter(base, target_modules=["lm_head"]), max_shard_size="30KB")
    with safe_open(merged / "model-00001-of-00003.safetensors", "pt") as tensors:
        assert [*tensors.keys()] == ["model.embed_tokens.weight"]  # 400 x 16 x 4 bytes are 25.6 KB
    assert report.num_shards == 3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_grows_with_the_shards_not_with_the_model(make_base, make_adapter, tmp_path) -> None:
    options = {"target_modules": ["q_proj", "down_proj"]}
    small = make_adapter(make_base(name="small"), name="small-adapter", **options)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
    base = make_base(llama(**sizes), name="large", max_shard_size="5MB")
    large = make_adapter(base, name="large-adapter", **options)
    size_mib = sum(file.stat().st_size for file in base.glob("*.safetensors")) / 2**20
    assert size_mib > 80
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(small), str(large), str(tmp_path / "merged")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    by_shard, whole = map(float, result.stdout.split())
    assert whole > 0.8 * size_mib  # the measurement does see a whole model
    assert by_shard < 0.4 * size_mib  # 5 MB shards, 4 MB tensors and the adapter, a few times over


def test_a_text_that_is_not_a_size_is_refused(make_base, make_adapter, run_merge) -> None:
    with pytest.raises(ConfigError, match="--max_shard_size large: expected a size such as 5GB"):
        run_merge(make_adapter(make_base()), max_shard_size="large")


def test_a_shard_that_is_missing_is_named(make_base, make_adapter, run_merge) -> None:
    base = make_base(max_shard_size="8KB")
    adapter = make_adapter(base)
    missing = sorted(base.glob("*.safetensors"))[1]
    missing.unlink()
    with pytest.raises(ModelError, match=f"lists {missing.name}, but this file is missing"):
        run_merge(adapter)


def test_a_truncated_file_is_named(make_base, make_adapter, run_merge) -> None:
    base = make_base()
    adapter = make_adapter(base)
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DPOError, match=r"model\.safetensors: expected a safetensors file"):
        run_merge(adapter)
