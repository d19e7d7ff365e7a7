// Runs in a blank page of the server's origin: one call over WebRTC or over the WebSocket, its microphone and its answer recorded side by
// side in one audio context, so that both are on one clock. The WebSocket's parts are the page's own.

const RATE = 24000;
const RECORDER = `
class Recorder extends AudioWorkletProcessor {
  process([microphone, answer]) {
    const block = new Float32Array(256);
    if (microphone.length) block.set(microphone[0], 0);
    if (answer.length) block.set(answer[0], 128);
    this.port.postMessage(block, [block.buffer]);
    return true;
  }
}
registerProcessor("recorder", Recorder);`;

let call;

async function recorder(context) {
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([RECORDER], { type: "text/javascript" })));
  const node = new AudioWorkletNode(context, "recorder", { numberOfInputs: 2, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const blocks = [];
  node.port.onmessage = ({ data }) => blocks.push(data);
  return { node, blocks };
}

function settings(detection) {
  return { type: "session.update", session: { type: "realtime", audio: { input: { turn_detection: detection } } } };
}

async function overWebSocket(speaker, detection, events) {
  const { Connection, decodeAudio } = await import(new URL("/connection.js", location.href));
  const { Microphone } = await import(new URL("/microphone.js", location.href));
  const connection = new Connection({
    onEvent: (event) => {
      events.push(event);
      if (event.type === "response.output_audio.delta") speaker.push(event.response_id, decodeAudio(event.delta));
      if (event.type === "response.output_audio.done") speaker.end(event.response_id);
    },
    onClosed: () => events.push({ type: "closed" }),
  });
  await connection.open(location.href, "");
  connection.send(settings(detection));
  const microphone = new Microphone({ onChunk: (pcm) => connection.sendAudio(pcm), onLost: () => {} });
  await microphone.open();
  return {
    stream: microphone.stream,
    answer: speaker.node,
    stats: async () => ({}),
    close: async () => {
      await microphone.close();
      connection.close();
    },
  };
}

async function overWebRtc(speaker, detection, events, jitterTarget) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  const peer = new RTCPeerConnection();
  const [track] = stream.getAudioTracks();
  const sender = peer.addTrack(track, stream);
  const channel = peer.createDataChannel("oai-events");
  channel.onmessage = ({ data }) => events.push(JSON.parse(data));
  const arrived = new Promise((resolve) => (peer.ontrack = ({ receiver, streams }) => resolve({ receiver, remote: streams[0] })));
  const opened = new Promise((resolve) => (channel.onopen = resolve));
  await peer.setLocalDescription();
  const response = await fetch("/v1/realtime/calls?model=pocket", {
    method: "POST",
    body: peer.localDescription.sdp,
    headers: { "Content-Type": "application/sdp" },
  });
  await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
  const { receiver, remote } = await arrived;
  if (jitterTarget !== null) receiver.jitterBufferTarget = jitterTarget;
  // Chromium plays a remote track only where an element asks for it.
  const element = new Audio();
  element.srcObject = remote;
  element.muted = true;
  await element.play();
  await opened;
  channel.send(JSON.stringify(settings(detection)));
  return {
    stream,
    answer: speaker.context.createMediaStreamSource(remote),
    stats: async () => {
      const found = {};
      for (const report of (await receiver.getStats()).values()) if (report.type === "inbound-rtp") Object.assign(found, report);
      for (const report of (await sender.getStats()).values()) if (report.type === "remote-inbound-rtp") found.roundTripTime = report.roundTripTime;
      return found;
    },
    close: async () => {
      track.stop();
      peer.close();
    },
  };
}

window.begin = async (way, detection, jitterTarget) => {
  const { Speaker } = await import(new URL("/speaker.js", location.href));
  const speaker = new Speaker({ onPosition: () => {}, onSuspended: () => {} });
  await speaker.open();
  const events = [];
  const taps = await recorder(speaker.context);
  const open = way === "webrtc" ? overWebRtc : overWebSocket;
  call = { speaker, events, ...taps, ...(await open(speaker, detection, events, jitterTarget)) };
  call.source = speaker.context.createMediaStreamSource(call.stream);
  call.source.connect(call.node, 0, 0);
  call.answer.connect(call.node, 0, 1);
};

// Whether the answer has been audible for a while.
window.answered = () => {
  let loud = 0;
  for (const block of call.blocks) for (let i = 128; i < 256; i += 1) if (Math.abs(block[i]) > 0.01) loud += 1;
  return loud > RATE / 10;
};

// Both recordings as base64 of PCM16 at 24 kHz, the events' types, and what Chromium says of its jitter buffer.
window.finish = async () => {
  const stats = await call.stats();
  await call.close();
  await call.speaker.close();
  const side = (offset) => {
    const pcm = new Int16Array(call.blocks.length * 128);
    call.blocks.forEach((block, number) => {
      for (let i = 0; i < 128; i += 1) pcm[number * 128 + i] = Math.max(-32768, Math.min(32767, Math.round(block[offset + i] * 32767)));
    });
    const bytes = new Uint8Array(pcm.buffer);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  };
  const ledger = call.events.find(({ type }) => type === "vivavoce.ledger");
  return { microphone: side(0), answer: side(128), types: call.events.map(({ type }) => type), ledger: ledger?.total_ms ?? null, stats };
};
