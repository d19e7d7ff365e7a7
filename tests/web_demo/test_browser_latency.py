"""The benchmark of voice to voice in Chromium finds an answer each way. How fast is not asserted."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.browser_latency import WAYS, ask, browser_hearing
from streaming.fakes import ScriptedEngine, ScriptedReply

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.mark.parametrize("way", WAYS)
async def test_a_question_is_asked_and_its_answer_found(serving: Callable, voiced: Callable, way: str) -> None:
    engine = ScriptedEngine([ScriptedReply("Bern is the capital. It lies on the river Aare.")], ["What is the capital?"])
    question = (voiced(1.2) * 32_767).astype(np.int16)
    async with serving(engine) as address, browser_hearing(question) as browser:
        trial = await ask(browser, address, way, "question", {"type": "server_vad", "silence_duration_ms": 1_000})
    assert trial.error == ""
    assert trial.latency is not None
    assert trial.latency > 0
    assert (trial.jitter_buffer is None) == (way == "websocket")
