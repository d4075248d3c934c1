"""The names by which the command line knows ways of asking a judge."""

from collections.abc import Callable

from avcap.errors import UserError
from avcap.judge.protocols.avcap1 import Avcap1
from avcap.judge.protocols.avcap_yesno1 import AvcapYesNo1, Thresholds
from avcap.judge.protocols.protocol import CaptionProtocol, ErrorRates
from avcap.judge.protocols.wording import Wordings
from avcap.judge.types import Case
from avcap.records import Verdict

AVCAP_1, AVCAP_YESNO_1 = "avcap-1", "avcap-yesno-1"
VerdictProtocol = CaptionProtocol[Case, Verdict, ErrorRates]
JUDGE_PROTOCOLS: dict[str, Callable[[Thresholds, Wordings], VerdictProtocol]] = {
    AVCAP_1: lambda thresholds, wordings: Avcap1(wordings=wordings),
    AVCAP_YESNO_1: lambda thresholds, wordings: AvcapYesNo1(thresholds=thresholds),
}
"""Name -> the protocol; what gives verdicts on atomic events."""


def judge_protocol(
    name: str, *, thresholds: Thresholds | None = None, wordings: Wordings | None = None
) -> VerdictProtocol:
    """--judge-protocol -> the protocol. UserError for a name that is none."""
    check_judge_protocol(name)
    return JUDGE_PROTOCOLS[name](thresholds or Thresholds(), wordings or {})


def check_judge_protocol(name: str) -> None:
    """Raises UserError for a --judge-protocol that is none."""
    if name not in JUDGE_PROTOCOLS:
        raise UserError(f"got --judge-protocol {name}, expected {' or '.join(JUDGE_PROTOCOLS)}")
