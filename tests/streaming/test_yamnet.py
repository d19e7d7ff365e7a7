"""YAMNet from its published files, and from files that are none."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streaming.models.yamnet import YamNet
from streaming.sound_events import PATCH, speech_in

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.models
def test_it_knows_speech_from_noise_and_from_silence(parts: Path) -> None:
    model = YamNet.load(parts / "yamnet")
    assert len(model.classes) == 521
    speech, _ = soundfile.read(GOLDEN / "weather_question.flac", dtype="float32")
    hiss = np.random.default_rng(0).standard_normal(PATCH).astype(np.float32) * 0.1
    probabilities = model.hear(speech[:PATCH])
    assert probabilities.shape == (521,)
    assert model.classes[int(probabilities.argmax())] == "Speech"
    assert speech_in(model, speech[:PATCH]) > 0.9
    assert speech_in(model, hiss) < 0.1
    assert model.classes[int(model.hear(np.zeros(PATCH, np.float32)).argmax())] == "Silence"


def written(folder: Path, members: dict[str, bytes], names: str = "index,mid,display_name\n0,/m/09x0r,Speech\n") -> Path:
    with zipfile.ZipFile(folder / "net.zip", "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    (folder / "names.csv").write_text(names)
    return folder


def test_what_is_no_yamnet_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="zip"):
        YamNet.load(tmp_path)
    with pytest.raises(ValueError, match=r"net\.zip is no YAMNet"):
        YamNet.load(written(tmp_path, {"model.onnx": b""}))
    with pytest.raises(ValueError, match=r"net\.zip is no YAMNet"):
        YamNet.load(written(tmp_path, {"export/model.onnx": b"nonsense", "export/model.data": b""}))
    with pytest.raises(ValueError, match=r"names\.csv is no class map"):
        YamNet.load(written(tmp_path, {}, "index,name\n0,Speech\n"))
    (tmp_path / "net.zip").write_bytes(b"no zip")
    (tmp_path / "names.csv").write_text("index,mid,display_name\n0,/m/09x0r,Speech\n")
    with pytest.raises(ValueError, match=r"net\.zip is no YAMNet"):
        YamNet.load(tmp_path)
