"""Pipecat's own client, npm `@pipecat-ai/client-js` with `small-webrtc-transport`, unmodified, in a real browser: RTVI over WebRTC.

The transport's own `WavMediaManager` opens the microphone: its default one fetches code from Daily's servers, which no test may.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming.fakes import ScriptedEngine, ScriptedReply

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(180)]

ALLOW = "--use-fake-ui-for-media-stream"
NODE = Path(__file__).parents[2] / ".clients/node"
ENTRY = """export { PipecatClient } from "@pipecat-ai/client-js";
export { SmallWebRTCTransport, WavMediaManager } from "@pipecat-ai/small-webrtc-transport";"""
PATIENCE_MS = 60_000
ANSWER = "Bern is the capital. It lies on the river Aare."

CONNECT = """async () => {
    window.got = [];
    const note = (kind) => (data) => got.push([kind, data ?? null]);
    const kinds = ["onBotReady", "onUserStartedSpeaking", "onUserStoppedSpeaking", "onUserTranscript", "onBotStartedSpeaking",
        "onBotStoppedSpeaking", "onBotOutput", "onError", "onMessageError"];
    const callbacks = Object.fromEntries(kinds.map((kind) => [kind, note(kind)]));
    callbacks.onTrackStarted = (track, participant) => {
        if (participant?.local || track.kind !== "audio") return;
        const element = document.createElement("audio");
        element.srcObject = new MediaStream([track]);
        element.play();
    };
    const transport = new Pipecat.SmallWebRTCTransport({ mediaManager: new Pipecat.WavMediaManager() });
    window.client = new Pipecat.PipecatClient({ transport, enableMic: true, enableCam: false, callbacks });
    window.ready = await client.connect({ webrtcUrl: location.origin + "/api/offer" });
}"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages as one script: they are made for bundlers."""
    made = tmp_path_factory.mktemp("pipecat") / "pipecat.js"
    command = [NODE / "node_modules/.bin/esbuild", "--bundle", "--format=iife", "--global-name=Pipecat", f"--outfile={made}"]
    subprocess.run(command, cwd=NODE, input=ENTRY, text=True, capture_output=True, check=True)
    return made


async def test_a_spoken_turn_and_a_typed_one(serving: Callable, browsing: Callable, spoken: Callable, bundle: Path) -> None:
    replies = [ScriptedReply(ANSWER), ScriptedReply("It is old.")]
    engine = ScriptedEngine(replies, ["What is the capital of Switzerland?"])
    async with serving(engine) as address, browsing(ALLOW, spoken(5.0, 1.5, 60.0)) as browser:
        page = await browser.new_page()
        await page.route("**/blank", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
        await page.goto(address + "/blank")
        await page.add_script_tag(path=bundle)
        await page.evaluate(CONNECT)
        assert (await page.evaluate("ready"))["about"] == {"library": "vivavoce"}
        waiting = "([kind, count]) => got.filter(([found]) => found === kind).length >= count"
        await page.wait_for_function(waiting, arg=["onBotStoppedSpeaking", 1], timeout=PATIENCE_MS)
        await page.evaluate("client.sendText('How old is it?')")
        await page.wait_for_function(waiting, arg=["onBotStoppedSpeaking", 2], timeout=PATIENCE_MS)
        got = await page.evaluate("got")
        await page.evaluate("client.disconnect()")
    kinds = [kind for kind, _ in got]
    order = ["onBotReady", "onUserStartedSpeaking", "onUserStoppedSpeaking", "onBotStartedSpeaking", "onBotStoppedSpeaking"]
    assert sorted(order, key=kinds.index) == order
    assert [data["text"] for kind, data in got if kind == "onUserTranscript" and data["final"]] == ["What is the capital of Switzerland?"]
    assert "".join(data["text"] for kind, data in got if kind == "onBotOutput").replace(" ", "") == f"{ANSWER}It is old.".replace(" ", "")
    assert not {"onError", "onMessageError"} & set(kinds)
    assert [message.text for message in engine.contexts[1] if message.role == "user"][-1] == "How old is it?"
