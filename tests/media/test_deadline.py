"""The time of one file is over when decoding and what came after it have used it up."""

import pytest

from avcap.errors import MediaError
from avcap.media.deadline import deadline_check


def test_time_spent_on_decoding_counts():
    deadline_check("a.mp4", seconds=100, spent_s=40)()
    with pytest.raises(MediaError, match=r"a\.mp4: got no features after 100 s of decoding and encoding"):
        deadline_check("a.mp4", seconds=100, spent_s=100.1)()
