// The loudspeaker of a call over the WebSocket: plays reply audio as it arrives and says how much of each response has been heard.

import { useLoudspeaker } from "./devices.js";
import { makeTap } from "./tap.js";

const RATE = 24000;
// More latency than this is a driver's mistake, not a loudspeaker.
const MOST_LATENCY_SECONDS = 0.5;

export class Speaker {
  // onPosition({id, playedMs, queuedMs}) comes every 50 ms while playing and when the queue runs dry; onSound(PCM16, level) is what sounds,
  // every 40 ms; onSuspended(bool) when the browser stops or resumes sound.
  constructor({ onPosition, onSound, onSuspended }) {
    this.onPosition = onPosition;
    this.onSound = onSound;
    this.onSuspended = onSuspended;
    this.context = null;
    this.node = null;
    // Resolve the flushes under way, in order.
    this.flushes = [];
  }

  // Call in a click: browsers allow sound only then. The context runs at the wire's rate; the browser resamples to the device.
  async open(deviceId) {
    this.context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    this.context.onstatechange = () => this.onSuspended(this.context.state !== "running");
    await this.context.audioWorklet.addModule(new URL("playback-worklet.js", import.meta.url));
    this.node = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.receive(data);
    this.node.connect(this.context.destination);
    this.node.connect(await makeTap(this.context, this.onSound));
    await this.change(deviceId);
    await this.resume();
  }

  async change(deviceId) {
    if (this.context) await useLoudspeaker(this.context, deviceId);
  }

  async resume() {
    if (this.context && this.context.state !== "closed") await this.context.resume();
  }

  async close() {
    const context = this.context;
    this.context = null;
    this.node = null;
    for (const resolve of this.flushes.splice(0)) resolve({ id: null, playedMs: 0 });
    if (context) {
      context.onstatechange = null;
      await context.close();
    }
  }

  push(id, pcm) {
    const samples = Float32Array.from(pcm, (value) => value / 32768);
    this.node.port.postMessage({ push: { id, samples } }, [samples.buffer]);
  }

  // No more audio of the response will come.
  end(id) {
    this.node?.port.postMessage({ end: id });
  }

  // Silence at once. Resolves to {id, playedMs}: what had been heard of the response that was playing; id is null where none was.
  flush() {
    return new Promise((resolve) => {
      this.flushes.push(resolve);
      this.node.port.postMessage({ flush: true });
    });
  }

  receive({ position, flushed }) {
    if (flushed) this.flushes.shift()?.({ id: flushed.id, playedMs: this.heardMs(flushed.played, 1) });
    if (!position) return;
    const { id, played, queued } = position;
    this.onPosition({ id, playedMs: this.heardMs(played, queued), queuedMs: (queued * 1000) / RATE });
  }

  // What the worklet has handed over is still on its way to the ear; when nothing is queued the rest is as good as heard.
  heardMs(played, queued) {
    const latency = queued ? Math.min(this.context?.outputLatency || 0, MOST_LATENCY_SECONDS) : 0;
    return Math.max(0, Math.floor((played / RATE - latency) * 1000));
  }
}
