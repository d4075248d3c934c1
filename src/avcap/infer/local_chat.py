"""A causal language model in this process that answers chats: `--judge local:FOLDER`.

The folder is a transformers checkpoint with a chat template. Weights are read from safetensors alone, nothing is
downloaded, and no code of the folder is run. `llm/local.py` makes a judge's chat of it.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from avcap.errors import UserError
from avcap.files.hub_names import folder_title, snapshot_name
from avcap.infer.prefix_cache import PrefixCache
from avcap.llm.types import TokenLogprobs

TEMPLATE_MARKS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
"""Marks of turns that some templates write as ordinary text."""


@dataclass(frozen=True, kw_only=True)
class LocalAnswer:
    """What the model wrote. `finished`: it ended the answer itself, instead of running into max_tokens."""

    text: str
    finished: bool
    input_tokens: int
    output_tokens: int
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of each token, where they were asked for."""


class LocalLLM:
    """A language model out of a folder. `version` changes whenever a file of weights, tokenizer or settings does."""

    def __init__(self, folder: str | Path, *, device: str = "cpu") -> None:
        self.folder = Path(folder)
        self.name = folder_title(self.folder)
        self.version = _version(self.folder)
        self._model, self._tokenizer = _load(self.folder, device=device)
        self._marks = _marks(self._tokenizer)
        self._end_ids = _end_ids(self._model, tokenizer=self._tokenizer)
        # Whatever a call leaves open is taken from here, and a folder may want sampling or a punishment of repetition.
        self._model.generation_config = GenerationConfig()
        self._prefixes = PrefixCache(self._model)

    def answer(
        self,
        turns: Sequence[tuple[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_logprobs: int = 0,
    ) -> LocalAnswer:
        """The next message of a chat.

        Args:
            turns: (role, text) of each message.
            max_tokens: The most that are written.
            temperature: 0 is greedy.
            seed: Matters above temperature 0 alone.
            top_logprobs: Above 0: greedy, with the log-probability of each token and of so many likeliest ones in its
                place; what the prompt has in common with the one before is not read again.

        Returns:
            The text, without special tokens, and its counts.

        Raises:
            UserError: The template does not take the messages, or they are too long for the model.
        """
        ids_BL = self._encode(turns)
        num_input = ids_BL.shape[1]
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and num_input + max_tokens > limit:
            raise UserError(
                f"{self.name}: got {num_input} tokens and {max_tokens} to write, expected {limit} at most; use a model "
                f"with a longer context"
            )
        if top_logprobs:
            return self._scored(ids_BL, max_tokens=max_tokens, top_logprobs=top_logprobs)
        decoding = GenerationConfig(
            max_new_tokens=max_tokens,
            do_sample=temperature > 0,
            eos_token_id=self._end_ids,
            pad_token_id=self._end_ids[0],
            **({"temperature": temperature, "top_k": 0} if temperature > 0 else {}),
        )
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            all_BL = self._model.generate(ids_BL, attention_mask=torch.ones_like(ids_BL), generation_config=decoding)
        written = all_BL[0, num_input:].tolist()
        return LocalAnswer(
            text=self._tokenizer.decode(written, skip_special_tokens=True),
            finished=written[-1] in self._end_ids,
            input_tokens=num_input,
            output_tokens=len(written),
        )

    def _scored(self, ids_BL: torch.Tensor, *, max_tokens: int, top_logprobs: int) -> LocalAnswer:
        """Prompt ids (1, L) -> the greedy answer with log-probabilities."""
        written: list[int] = []
        logprobs = []
        for logits_V in self._prefixes.next_logits(ids_BL, max_tokens=max_tokens, written=written):
            logprobs_V = torch.log_softmax(logits_V.float(), dim=-1)
            top = torch.topk(logprobs_V, min(top_logprobs, len(logprobs_V)))
            written.append(int(top.indices[0]))
            told = tuple(
                (self._tokenizer.decode([index]), float(logprob))
                for index, logprob in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            )
            logprobs.append(TokenLogprobs(token=told[0][0], logprob=told[0][1], top=told))
            if written[-1] in self._end_ids:
                break
        return LocalAnswer(
            text=self._tokenizer.decode(written, skip_special_tokens=True),
            finished=written[-1] in self._end_ids,
            input_tokens=ids_BL.shape[1],
            output_tokens=len(written),
            logprobs=tuple(logprobs),
        )

    def _encode(self, turns: Sequence[tuple[str, str]]) -> torch.Tensor:
        messages = [{"role": role, "content": self._defused(text)} for role, text in turns]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # the template is a program of the folder's author: it may raise anything
            raise UserError(f"{self.name}: its chat template does not take these messages ({error})") from None
        # The template has written the special tokens, the beginning of the text among them.
        return self._tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(self._model.device)

    def _defused(self, text: str) -> str:
        """Text -> text in which no mark of the template can be read: "<|im_end|>" in a caption must not end a turn."""
        return self._marks.sub(lambda mark: mark[0][0] + " " + mark[0][1:], text)


def _load(folder: Path, *, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Folder -> model and tokenizer; UserError for one that is not a chat model with safetensors."""
    expected = "expected a folder of a transformers chat model with config.json, *.safetensors and a tokenizer"
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json there; {expected}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{folder}: cannot be loaded ({str(error).strip().splitlines()[0]}); {expected}") from None
    if tokenizer.chat_template is None:
        raise UserError(f"{folder}: its tokenizer has no chat template, so it is no chat model; {expected}")
    return model.to(device).eval(), tokenizer


def _version(folder: Path) -> str:
    """Folder -> hash of its files' names, sizes and times; reading gigabytes of weights would take a minute.

    Of a model on the hub, the hash of its name and commit: on every machine the same.
    """
    if (on_hub := snapshot_name(folder)) is not None:
        return hashlib.sha256(str(on_hub).encode()).hexdigest()
    files = sorted(path for path in folder.glob("*") if path.suffix in {".json", ".safetensors", ".jinja", ".model"})
    listed = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def _marks(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Tokenizer -> pattern of all that it reads as one special token, and of marks written as text."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    marks = {mark for mark in added if len(mark) > 1 and mark.strip()} | set(TEMPLATE_MARKS)
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))


def _end_ids(model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """-> ids of the tokens that end an answer: those of the folder's generation settings and of its tokenizer."""
    config = getattr(model, "generation_config", None)
    ids = config.eos_token_id if config is not None and config.eos_token_id is not None else []
    ids = [ids] if isinstance(ids, int) else list(ids)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise UserError(f"{model.name_or_path}: no token ends an answer; set eos_token_id in generation_config.json")
    return ids
