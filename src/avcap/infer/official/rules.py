"""What a captioner does beside captioning, as one object: nothing (`Default`), or what the published code does.

    behaviour = Official.of(folder) if official else Default()

The steps of captioning ask it at the five places at which published code differs, and do not know which one it is.
What each family's code does is in its `OfficialRules`; docs/official.md measures every difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from transformers import PreTrainedTokenizerBase

from avcap.data.prompt import IM_END
from avcap.errors import UserError
from avcap.infer.official.options import name_with_official, official_decoding, refuse_interval
from avcap.media.clip import Clip, ClipRequest
from avcap.model.checkpoint.load import open_source
from avcap.model.family import Family, OfficialRules, families, family_of
from avcap.model.features import MediaFeatures
from avcap.records import Decoding


class Behaviour(Protocol):
    """The places at which a captioner may be told to do otherwise."""

    @property
    def config_fields(self) -> Mapping[str, str]:
        """Fields of the model's config that are to be otherwise than its folder says."""

    def checkpoint(self, name: str) -> str:
        """Name of a checkpoint -> as its captions carry it."""

    def decoding(self, decoding: Decoding) -> Decoding:
        """What was asked for -> how it is decoded."""

    def clip_request(self, request: ClipRequest) -> ClipRequest:
        """What is to be decoded of a file -> the same, by the rules of this behaviour."""

    def features(self, media: MediaFeatures, clip: Clip) -> MediaFeatures:
        """Features of a clip -> as the model is given them."""

    def prompt(
        self, ids: Sequence[int], *, media: MediaFeatures, num_audio: int, tokenizer: PreTrainedTokenizerBase, path: str
    ) -> list[int]:
        """Ids of a prompt with so many audio tokens -> the ids that reach the model."""


@dataclass(frozen=True, kw_only=True)
class Default:
    """Our own behaviour: nothing is replaced."""

    config_fields: ClassVar[Mapping[str, str]] = {}

    def checkpoint(self, name: str) -> str:
        return name

    def decoding(self, decoding: Decoding) -> Decoding:
        return decoding

    def clip_request(self, request: ClipRequest) -> ClipRequest:
        return request

    def features(self, media: MediaFeatures, clip: Clip) -> MediaFeatures:
        del clip
        return media

    def prompt(
        self, ids: Sequence[int], *, media: MediaFeatures, num_audio: int, tokenizer: PreTrainedTokenizerBase, path: str
    ) -> list[int]:
        del media, num_audio, tokenizer, path
        return list(ids)


@dataclass(frozen=True, kw_only=True)
class Official:
    """The behaviour of the code with which a checkpoint was published."""

    folder: Path
    rules: OfficialRules

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Checkpoint folder -> how it was published; only headers are read.

        Raises:
            UserError: the published code cannot run this model.
        """
        config = open_source(folder).config
        return cls(folder=folder, rules=official_rules(family_of(config), config, folder=folder))

    @property
    def config_fields(self) -> Mapping[str, str]:
        return self.rules.config_fields

    def checkpoint(self, name: str) -> str:
        return name_with_official(name, official=True)

    def decoding(self, decoding: Decoding) -> Decoding:
        return official_decoding(decoding, self.folder)

    def clip_request(self, request: ClipRequest) -> ClipRequest:
        """As the family's code reads files. UserError for a part of a video, where the family has no rule for it."""
        refuse_interval(self.rules, request.interval_s)
        return replace(request, lead_in=False, official=self.rules.reading)

    def features(self, media: MediaFeatures, clip: Clip) -> MediaFeatures:
        return self.rules.features(media, clip)

    def prompt(
        self, ids: Sequence[int], *, media: MediaFeatures, num_audio: int, tokenizer: PreTrainedTokenizerBase, path: str
    ) -> list[int]:
        """The ids that reach the published model. UserError where its code fails on the audio."""
        self.rules.check_audio(media, num_audio=num_audio, path=path)
        end_id: Any = tokenizer.convert_tokens_to_ids(IM_END)
        return self.rules.prompt(ids, end_id=end_id, pad_id=tokenizer.pad_token_id)


def official_rules(family: Family, config: Any, *, folder: Path) -> OfficialRules:
    """A family and the config of one of its models -> the rules of its published code.

    Raises:
        UserError: no such model was ever published.
    """
    ours = [f"a model of {family.model_type}"] if family.official is None else family.official.unpublished(config)
    if family.official is not None and not ours:
        return family.official
    titles = [one.official.title for one in families().values() if one.official]
    raise UserError(
        f"{folder}: got --official for a model that was never published (it has {', '.join(ours)}), expected a "
        f"released {_either(titles)}; leave out --official"
    )


def _either(titles: Sequence[str]) -> str:
    """Titles of releases -> "video-SALMONN 2 or 2+": what all begin with is said once."""
    first, *others = titles
    stem = first.rpartition(" ")[0] + " "
    return " or ".join([first, *(title.removeprefix(stem) for title in others)])
