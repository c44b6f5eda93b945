"""The reference cache: log-probabilities under the reference model, stored by content, shared by ranks and runs.

    cache folder / <hash of what the numbers depend on, apart from the pair> / <one file for each part of a pass>.npy

A pair is identified by the hash of its token ids. So a run with other rows, another order or another learning rate
finds the entries of an earlier run, and an interrupted pass resumes from where it stopped.
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
"""The digest of a pair, and the log-probabilities of chosen and rejected, summed over tokens, nats."""
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")


class ReferenceCache:
    """Log-probabilities under one reference model, in a folder.

    Args:
        root: Folder of the caches of all reference models.
        identity: What the numbers depend on, apart from the pair: weights, dtype, attention and so on. JSON values.
    """

    def __init__(self, root: Path, identity: dict[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:32]
        self.identity = text

    def load(self, digests: Sequence[bytes]) -> np.ndarray:
        """Read the log-probabilities of pairs.

        Args:
            digests: pair_digest of each pair.

        Returns:
            Chosen and rejected of each pair, nats, float32 (pairs, 2). NaN for a pair that is not in the cache.
        """
        known: dict[bytes, np.ndarray] = {}
        for file in sorted(self.folder.glob("*.npy")):
            entries = np.load(file)
            known.update(zip((pair.tobytes() for pair in entries["pair"]), entries["logps"], strict=True))
        unknown = np.full(2, np.nan, dtype=np.float32)
        return np.array([known.get(digest, unknown) for digest in digests], dtype=np.float32).reshape(-1, 2)

    def add(self, digests: Sequence[bytes], logps: np.ndarray) -> None:
        """Add log-probabilities. A file gets its name only when it is complete.

        Args:
            digests: pair_digest of each pair.
            logps: Chosen and rejected of each pair, nats, float32 (pairs, 2).

        Raises:
            ConfigError: if the folder cannot be written to.
        """
        try:
            self.write(digests, logps)
        except OSError as error:
            raise ConfigError(
                f"--reference_cache: the folder {self.folder} cannot be written to: {error.strerror}.\n"
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
    """Hash the token ids of a pair: prompt, chosen, rejected.

    Args:
        pair: Token ids of the pair.

    Returns:
        16 bytes.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in ("prompt_ids", "chosen_ids", "rejected_ids"):
        digest.update(array("q", [len(pair[part]), *pair[part]]).tobytes())
    return digest.digest()


def weights_fingerprint(
    model: str, revision: str | None = None, *, configuration: str = "config.json"
) -> dict[str, str]:
    """Hash the weights and the configuration of a model or an adapter.

    Args:
        model: A folder, or a Hub id whose files are already downloaded.
        revision: Branch, tag or commit of a Hub id.
        configuration: File name of the configuration.

    Returns:
        The SHA-256 of each file, in hexadecimal, by file name.

    Raises:
        ModelError: if the folder contains no weights in a known format.
    """
    folder = Path(model)
    if not folder.is_dir():
        folder = Path(str(cached_file(model, configuration, revision=revision))).parent
    files = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not files:
        raise ModelError(
            f"--model_name_or_path {model}: the reference cache needs a hash of the weights, but found no file "
            f"{' or '.join(WEIGHTS)}.\n"
            "  Pass --no-reference_cache to run the reference model during training instead."
        )
    files.append(folder / configuration)
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return dict(zip([file.name for file in files], pool.map(file_hash, files), strict=True))


def file_hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
