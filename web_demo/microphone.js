// The microphone: 24 kHz PCM16 in chunks of 40 ms, whatever the device's rate; survives the device being unplugged.

export class Microphone {
  // onChunk(ArrayBuffer of PCM16, level) every 40 ms; onLost(error) when no microphone is left.
  constructor({ onChunk, onLost }) {
    this.onChunk = onChunk;
    this.onLost = onLost;
    this.context = null;
    this.node = null;
    this.source = null;
    this.stream = null;
    this.muted = false;
    this.deviceId = "";
  }

  // Asks for permission. Raises what getUserMedia raises.
  async open(deviceId = "") {
    this.deviceId = deviceId;
    const stream = await capture(deviceId);
    try {
      this.context = new AudioContext({ latencyHint: "interactive" });
      await this.context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
      this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
      this.node.port.onmessage = ({ data }) => this.onChunk(data.pcm, data.level);
      this.connect(stream);
      await this.context.resume();
    } catch (error) {
      stop(stream);
      throw error;
    }
  }

  async close() {
    const context = this.context;
    this.context = null;
    this.disconnect();
    if (context) await context.close();
  }

  // Another microphone in mid-call. Raises what getUserMedia raises; the old one is gone then.
  async change(deviceId) {
    this.deviceId = deviceId;
    this.disconnect();
    const stream = await capture(deviceId);
    if (this.context) this.connect(stream);
    else stop(stream);
  }

  async resume() {
    if (this.context && this.context.state !== "closed") await this.context.resume();
  }

  mute(muted) {
    this.muted = muted;
    this.node?.port.postMessage({ muted });
  }

  connect(stream) {
    this.stream = stream;
    this.source = this.context.createMediaStreamSource(stream);
    this.source.connect(this.node);
    const [track] = stream.getAudioTracks();
    // Unplugged: go on with whatever the system offers now.
    track.onended = () => this.change("").catch((error) => this.onLost(error));
  }

  disconnect() {
    this.source?.disconnect();
    this.source = null;
    if (this.stream) stop(this.stream);
    this.stream = null;
  }
}

// The microphones that can be chosen, as {id, label}; labels are there once permission was given.
export async function microphones() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind, label }) => kind === "audioinput" && label).map(({ deviceId, label }) => ({ id: deviceId, label }));
}

function capture(deviceId) {
  const wanted = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  if (deviceId) wanted.deviceId = { exact: deviceId };
  return navigator.mediaDevices.getUserMedia({ audio: wanted });
}

function stop(stream) {
  for (const track of stream.getTracks()) {
    track.onended = null;
    track.stop();
  }
}
