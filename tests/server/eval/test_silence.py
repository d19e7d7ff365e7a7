"""What a server makes of sound in which nobody speaks, over the wire."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from agent.conversation import Conversation
from server.eval.clips import Clip
from server.eval.errors import EvalError
from server.eval.silence import overhear, report_overheard
from streaming.fakes import ScriptedEngine, ScriptedReply


async def test_turns_words_and_answers_are_counted(start, tmp_path: Path) -> None:
    served = await start(ScriptedEngine([ScriptedReply("Hello.")], ["thank you"]), factory=Conversation)
    sounds = {"loud": np.sin(np.arange(16_000) / 5) * 0.3, "silent": np.zeros(16_000)}
    clips = []
    for name, pcm in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", pcm, 16_000)
        clips.append(Clip(name, tmp_path / f"{name}.wav", fields={"kind": name}))
    done: list[int] = []
    loud, silent = await overhear(served.ws, None, clips, 20.0, lambda: done.append(1))
    assert (loud.turns, loud.words, loud.answers, loud.texts) == (1, 2, 1, ("thank you",))
    assert (silent.turns, silent.words, silent.answers, silent.seconds) == (0, 0, 0, 1.0)
    assert len(done) == 2
    console = Console(record=True, width=140)
    report_overheard([loud, silent], console)
    assert "loud: thank you" in console.export_text()


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1_600), 16_000)
    with pytest.raises(EvalError, match="no server answers"):
        await overhear("ws://127.0.0.1:9/v1/realtime", None, [Clip("a", tmp_path / "a.wav")], 1.0, lambda: None)
