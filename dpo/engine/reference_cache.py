"""The reference's log-probabilities: worked out once, kept by content, shared between ranks and runs.

    cache folder / <what the numbers depend on, apart from the text> / <one file for each part of a pass>.npy

A pair is known by the hash of its token ids, so that new rows, another order or another learning rate find what is
there, and a pass that was interrupted goes on where it ended.
"""

__all__ = ["ReferenceCache", "pair_digest", "weights_fingerprint"]

import hashlib
import json
import os
import uuid
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import cached_file

from dpo.engine.packing import Pair
from dpo.errors import ConfigError, ModelError

DIGEST_BYTES = 16
ENTRY = np.dtype([("pair", f"V{DIGEST_BYTES}"), ("logps", "<f4", (2,))])
"""A pair's digest; its log-probabilities of chosen and rejected, summed, nats."""
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")


class ReferenceCache:
    """Log-probabilities of one reference, in a folder.

    Args:
        root: Folder for every reference.
        identity: What a number depends on, apart from the pair: weights, dtype, attention, ... JSON.
    """

    def __init__(self, root: Path, identity: dict[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:32]
        self.identity = text

    def load(self, digests: Sequence[bytes]) -> np.ndarray:
        """What is known of these pairs: float32 (pairs, 2), chosen and rejected, NaN where nothing is known."""
        known: dict[bytes, np.ndarray] = {}
        for file in sorted(self.folder.glob("*.npy")):
            entries = np.load(file)
            known.update(zip((pair.tobytes() for pair in entries["pair"]), entries["logps"], strict=True))
        unknown = np.full(2, np.nan, dtype=np.float32)
        return np.array([known.get(digest, unknown) for digest in digests], dtype=np.float32).reshape(-1, 2)

    def add(self, digests: Sequence[bytes], logps: np.ndarray) -> None:
        """Keep some more: written beside its place, then renamed, so that a file is whole or not there.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        try:
            self.write(digests, logps)
        except OSError as error:
            raise ConfigError(
                f"--reference_cache {self.folder}: cannot be written to: {error.strerror}.\n"
                "  Choose another folder, or pass --no-reference_cache."
            ) from error

    def write(self, digests: Sequence[bytes], logps: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        described = self.folder / "identity.json"
        if not described.exists():
            described.write_text(self.identity + "\n", encoding="utf-8")
        entries = np.empty(len(digests), dtype=ENTRY)
        entries["pair"] = np.frombuffer(b"".join(digests), dtype=f"V{DIGEST_BYTES}")
        entries["logps"] = logps
        name = uuid.uuid4().hex
        work = self.folder / f".{name}"
        with work.open("wb") as file:
            np.save(file, entries)
        work.rename(self.folder / f"{name}.npy")


def pair_digest(pair: Pair) -> bytes:
    """A hash of a pair's token ids: prompt, chosen, rejected."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in ("prompt_ids", "chosen_ids", "rejected_ids"):
        digest.update(array("q", [len(pair[part]), *pair[part]]).tobytes())
    return digest.digest()


def weights_fingerprint(
    model: str, revision: str | None = None, *, configuration: str = "config.json"
) -> dict[str, str]:
    """Hashes of a model's or an adapter's weights and configuration, by file name.

    Args:
        model: A folder or a Hub id that is loaded already.
        revision: Of a Hub id.
        configuration: Its file.

    Raises:
        ModelError: the folder holds no weights of a known form.
    """
    folder = Path(model)
    if not folder.is_dir():
        folder = Path(str(cached_file(model, configuration, revision=revision))).parent
    files = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not files:
        raise ModelError(
            f"--model_name_or_path {model}: found no {' or '.join(WEIGHTS)} whose content could be told apart.\n"
            "  Pass --no-reference_cache, and the reference is computed as training goes on."
        )
    files.append(folder / configuration)
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return dict(zip([file.name for file in files], pool.map(file_hash, files), strict=True))


def file_hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
