// The microphone: a stream for WebRTC, and 24 kHz PCM16 in chunks of 40 ms; survives the device being unplugged.

import { makeTap } from "./tap.js";

export class Microphone {
  // onChunk(ArrayBuffer of PCM16, level) every 40 ms; onTrack(track) when another device took over; onLost(error) when none is left.
  constructor({ onChunk, onTrack, onLost }) {
    this.onChunk = onChunk;
    this.onTrack = onTrack;
    this.onLost = onLost;
    this.context = null;
    this.tap = null;
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
      this.tap = await makeTap(this.context, this.onChunk);
      this.connect(stream);
      await this.context.resume();
    } catch (error) {
      stop(stream);
      await this.close();
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
    if (this.context) {
      this.connect(stream);
      this.onTrack(this.track);
    } else {
      stop(stream);
    }
  }

  async resume() {
    if (this.context && this.context.state !== "closed") await this.context.resume();
  }

  // A muted microphone goes on, and hears silence.
  mute(muted) {
    this.muted = muted;
    if (this.track) this.track.enabled = !muted;
  }

  get track() {
    return this.stream?.getAudioTracks()[0] ?? null;
  }

  connect(stream) {
    this.stream = stream;
    this.track.enabled = !this.muted;
    this.source = this.context.createMediaStreamSource(stream);
    this.source.connect(this.tap);
    // Unplugged: go on with whatever the system offers now.
    this.track.onended = () => this.change("").catch((error) => this.onLost(error));
  }

  disconnect() {
    this.source?.disconnect();
    this.source = null;
    if (this.stream) stop(this.stream);
    this.stream = null;
  }
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
