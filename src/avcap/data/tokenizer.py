"""The embedded model's tokenizer: one token per word, number with unit and mark; spaces are put back on decoding.

Released checkpoints bring their own tokenizer; this one is built from the list of a world's words and saved beside the
weights as tokenizer.json, so nothing but `transformers` is needed to read it again.
"""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|unk|>"
SPECIAL = (PAD, END, USER, ASSISTANT, UNKNOWN)


def build_word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Words and punctuation marks -> tokenizer with ids in the order given, behind the special tokens."""
    vocab = {word: i for i, word in enumerate([*SPECIAL, *words])}
    assert len(vocab) == len(SPECIAL) + len(words), "the list of words holds one twice"
    core = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            # Hyphens stay inside words ("top-left"); every other mark is a token of its own.
            pre_tokenizers.Split(Regex(r"[^\w\s-]"), behavior="isolated"),
        ]
    )
    core.decoder = _decoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )


def _decoder() -> decoders.Decoder:
    """Tokens -> text: a space before each token, then none before marks and none inside quotation marks."""
    steps: list[decoders.Decoder] = [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()]
    steps += [decoders.Replace(f" {mark}", mark) for mark in ".,?"]
    # A quotation opens after "says" and closes before a mark or the end: one token serves both.
    steps += [decoders.Replace('says " ', 'says "'), decoders.Replace(' "', '"'), decoders.Replace('says"', 'says "')]
    return decoders.Sequence(steps)


def unknown_words(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """Text -> its words that the tokenizer does not know, in order; empty for tokenizers that know every word."""
    if tokenizer.unk_token_id is None:
        return []
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    return [text[start:end] for token_id, (start, end) in spans if token_id == tokenizer.unk_token_id]
