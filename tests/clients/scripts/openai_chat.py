"""PyPI `openai`: chat completions with recorded sound, whole and as a stream, spoken, and one that is refused.

`python openai_chat.py HTTP_URL RECORDING.wav` prints one JSON object: what the client received.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from openai import BadRequestError, OpenAI


def main(url: str, recording: str) -> dict[str, Any]:
    """Ask four times."""
    client = OpenAI(api_key="unused", base_url=f"{url}/v1")
    data = base64.b64encode(Path(recording).read_bytes()).decode()

    def messages(sound_format: str = "wav") -> list[Any]:
        sound = {"type": "input_audio", "input_audio": {"data": data, "format": sound_format}}
        return [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": [sound]}]

    whole = client.chat.completions.create(model="pocket", messages=messages(), temperature=0, max_completion_tokens=50)
    streamed, usage = "", None
    for chunk in client.chat.completions.create(
        model="pocket", messages=messages(), stream=True, stream_options={"include_usage": True}, stop=[" first"]
    ):
        streamed += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    spoken = client.chat.completions.create(
        model="pocket", messages=messages(), modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}
    )
    audio = spoken.choices[0].message.audio
    try:
        client.chat.completions.create(model="pocket", messages=messages("mp3"))
        refused = None
    except BadRequestError as error:
        refused = {"status": error.status_code, "code": error.code, "param": error.param}
    return {
        "models": [model.id for model in client.models.list()],
        "text": whole.choices[0].message.content,
        "finish_reason": whole.choices[0].finish_reason,
        "total_tokens": whole.usage.total_tokens if whole.usage else None,
        "streamed": streamed,
        "completion_tokens": usage.completion_tokens if usage else None,
        "spoken": audio.transcript if audio else None,
        "audio_bytes": len(base64.b64decode(audio.data)) if audio else 0,
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
