"""Fields of an upstream's JSON, looked at without trust."""

import pytest

from server.upstream.errors import UpstreamError
from server.upstream.json_fields import sound_at


def test_sound_is_base64_and_none_is_empty():
    assert sound_at({"data": "AAEC"}, "data") == b"\x00\x01\x02"
    assert sound_at({}, "data") == b""


@pytest.mark.parametrize("sound", ["???", "AAE", "é"])
def test_what_is_no_base64_is_the_upstreams_fault(sound):
    with pytest.raises(UpstreamError, match="no base64"):
        sound_at({"data": sound}, "data")
