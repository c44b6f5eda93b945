"""Tokenization of text with the Rust tokenizers library, without transformers."""

__all__ = ["Tokenizer", "load_tokenizer"]

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import tokenizers

from dpo.errors import TokenizerError
from dpo.hub import find_file, read_json

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A model's tokenizer and its settings."""

    backend: tokenizers.Tokenizer
    special_tokens: dict[str, str] = field(default_factory=dict)
    """Named tokens for templates, {"eos_token": "</s>", ...}. Tokens that are not set are left out."""
    chat_template: str | None = None
    """The tokenizer's own chat template."""

    @cached_property
    def wants_bos(self) -> bool:
        """Whether the tokenizer puts a BOS token before every text."""
        bos = self.special_tokens.get("bos_token")
        return bos is not None and self.backend.encode("a", add_special_tokens=True).tokens[:1] == [bos]

    @cached_property
    def control_literals(self) -> frozenset[str]:
        """Texts that become control tokens anywhere in a text."""
        added = self.backend.get_added_tokens_decoder().values()
        return frozenset(token.content for token in added if token.special and token.content)

    @cached_property
    def barriers(self) -> frozenset[str]:
        """Control tokens at which a text can be cut, because the tokenizer encodes both sides separately.

        A token that is part of another added token is not included, because the longer token could begin before it. The
        set is empty if any added token depends on its neighbours (lstrip, rstrip, single_word, normalized).
        """
        added = self.backend.get_added_tokens_decoder().values()
        if any(token.lstrip or token.rstrip or token.single_word or token.normalized for token in added):
            return frozenset()
        texts = [token.content for token in added if token.content]
        return frozenset(text for text in texts if not any(text in other[1:] for other in texts))

    def token_id(self, token: str) -> int | None:
        """Return the id of a text that is one token of the vocabulary, otherwise None."""
        return self.backend.token_to_id(token)

    def is_one_id(self, token: str) -> bool:
        """Return whether a text is always encoded as one id. A piece of the vocabulary alone does not ensure this."""
        return self.encode([token]) == [[self.token_id(token)]]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts that already contain all their control tokens. No tokens are added."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_continuation(self, text: str) -> list[int]:
        """Encode a text that follows another text.

        Some tokenizers mark the first word of a text ("Neon" becomes "\u2581Neon"). To avoid this mark, the text is
        encoded after a line break, and the ids of the line break are removed.
        """
        (line_break,), (ids,) = self.encode(["\n"]), self.encode(["\n" + text])
        if ids[: len(line_break)] == line_break:
            return ids[len(line_break) :]
        return self.encode([text])[0]

    def with_control_tokens(self, tokens: Sequence[str]) -> "Tokenizer":
        """Return a copy with new ids for missing control tokens, at the end of the vocabulary."""
        if not tokens:
            return self
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in tokens])
        return replace(self, backend=backend)

    def fingerprint(self) -> str:
        """Return a hash that changes with the vocabulary, its settings, the named tokens or the chat template."""
        content = [self.backend.to_str(), self.special_tokens, self.chat_template]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_tokenizer(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Tokenizer:
    """Load the tokenizer of a model folder or Hub id.

    transformers is imported only if the model has no tokenizer.json or its configuration names no EOS token.

    Raises:
        TokenizerError: if there is no tokenizer, or it cannot be read.
    """
    file = find_file(model, "tokenizer.json", revision)
    if file is None:
        return load_with_transformers(model, revision, trust_remote_code)
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises bare Exception
        raise TokenizerError(f"{file}: not a valid tokenizer: {error}") from error
    backend.no_padding()
    backend.no_truncation()
    config = read_json(find_file(model, "tokenizer_config.json", revision))
    legacy = read_json(find_file(model, "special_tokens_map.json", revision, optional=True))
    named = {name: token_text(config.get(name, legacy.get(name))) for name in NAMED_TOKENS}
    extra = config.get("extra_special_tokens")
    named |= {name: token_text(token) for name, token in extra.items()} if isinstance(extra, dict) else {}
    if named["eos_token"] is None:
        # Some configurations rely on the default named tokens of a tokenizer class in transformers.
        return load_with_transformers(model, revision, trust_remote_code)
    return Tokenizer(
        backend=backend,
        special_tokens={name: text for name, text in named.items() if text is not None},
        chat_template=read_chat_template(model, revision, config),
    )


def token_text(token: str | dict[str, Any] | None) -> str | None:
    """Return the text of a token, which is a text in some configurations and an object with `content` in others."""
    return token["content"] if isinstance(token, dict) else token


def read_chat_template(model: str, revision: str | None, config: dict[str, Any]) -> str | None:
    """Read the default chat template. The file chat_template.jinja takes precedence over the configuration."""
    file = find_file(model, "chat_template.jinja", revision, optional=True)
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{file}: not valid UTF-8: {error.reason}") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        return next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template


def load_with_transformers(model: str, revision: str | None, trust_remote_code: bool) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
        backend = slow.backend_tokenizer
    except Exception as error:  # for example an import error, a missing file or a broken vocabulary
        raise TokenizerError(
            f"--model_name_or_path {model}: there is no usable tokenizer.json, and transformers cannot load the "
            f"tokenizer either: {type(error).__name__}: {error}"
        ) from error
    backend.no_padding()
    backend.no_truncation()
    template = slow.chat_template
    return Tokenizer(
        backend=backend,
        special_tokens=dict(slow.special_tokens_map),
        chat_template=template.get("default") if isinstance(template, dict) else template,
    )
