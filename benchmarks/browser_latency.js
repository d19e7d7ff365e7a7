// Runs in a blank page of the server's origin: one call by the page's own parts, its microphone and its answer recorded side by side in one
// audio context, so that both are on one clock.

const RATE = 24000;
const BLOCK = 128;
const RECORDER = `
class Recorder extends AudioWorkletProcessor {
  process([microphone, answer]) {
    const block = new Float32Array(${2 * BLOCK});
    if (microphone.length) block.set(microphone[0], 0);
    if (answer.length) block.set(answer[0], ${BLOCK});
    this.port.postMessage(block, [block.buffer]);
    return true;
  }
}
registerProcessor("recorder", Recorder);`;

let call = null;

async function recorder(context) {
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([RECORDER], { type: "text/javascript" })));
  const node = new AudioWorkletNode(context, "recorder", { numberOfInputs: 2, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const blocks = [];
  node.port.onmessage = ({ data }) => blocks.push(data);
  return { node, blocks };
}

window.begin = async (way, detection, jitterTarget) => {
  const { Microphone } = await import(new URL("/microphone.js", location.href));
  const { openTransport } = await import(new URL("/transport.js", location.href));
  const events = [];
  const microphone = new Microphone({ onChunk: (pcm) => call?.transport.sendSound(pcm), onTrack: () => {}, onLost: () => {} });
  await microphone.open();
  const quiet = ["onQueued", "onPosition", "onCut", "onSound", "onSuspended", "onClosed"].map((name) => [name, () => {}]);
  const listeners = { ...Object.fromEntries(quiet), onEvent: (event) => events.push(event) };
  const options = { base: new URL("/", location.href).href, key: "", track: microphone.track, loudspeaker: "" };
  const { transport } = await openTransport(way, options, listeners);
  call = { transport, microphone, events };
  // As the page asks, but for its settings.
  const session = { type: "realtime", audio: { input: { turn_detection: detection } }, vivavoce: { playback: true, ledger: true } };
  transport.send({ type: "session.update", session });
  // The loudspeaker's own context where the page has one; a remote track is Chromium's to play.
  call.context = transport.speaker?.context ?? new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  Object.assign(call, await recorder(call.context));
  call.source = call.context.createMediaStreamSource(microphone.stream);
  call.source.connect(call.node, 0, 0);
  call.answer = transport.speaker?.node ?? call.context.createMediaStreamSource(transport.player.srcObject);
  call.answer.connect(call.node, 0, 1);
  if (jitterTarget !== null) for (const receiver of transport.peer.getReceivers()) receiver.jitterBufferTarget = jitterTarget;
};

// Whether the answer has been audible for a while.
window.answered = () => {
  let loud = 0;
  for (const block of call.blocks) for (let i = BLOCK; i < 2 * BLOCK; i += 1) if (Math.abs(block[i]) > 0.01) loud += 1;
  return loud > RATE / 20;
};

// Both recordings as base64 of PCM16 at 24 kHz, and what Chromium says of its jitter buffer.
window.finish = async () => {
  const stats = {};
  for (const report of (await call.transport.peer?.getStats())?.values() ?? []) if (report.type === "inbound-rtp") Object.assign(stats, report);
  const ledger = call.events.find(({ type }) => type === "vivavoce.ledger");
  return { microphone: recorded(0), answer: recorded(BLOCK), ledger: ledger?.total_ms ?? null, stats };
};

// In any case: the next call needs its place.
window.leave = async () => {
  await call?.microphone.close();
  await (call?.transport.giveUp?.() ?? call?.transport.close());
};

function recorded(offset) {
  const pcm = new Int16Array(call.blocks.length * BLOCK);
  call.blocks.forEach((block, number) => {
    for (let i = 0; i < BLOCK; i += 1) pcm[number * BLOCK + i] = Math.max(-32768, Math.min(32767, Math.round(block[offset + i] * 32767)));
  });
  const bytes = new Uint8Array(pcm.buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}
