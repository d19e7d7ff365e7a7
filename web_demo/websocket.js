// A call over the WebSocket: JSON events both ways, sound as base64, and a loudspeaker of our own that tells the server what was heard.

import { diagnose } from "./api.js";
import { HARMLESS, Problem } from "./problems.js";
import { Speaker } from "./speaker.js";

const HANDSHAKE_MS = 10000;
// Sound waiting in the socket beyond this, about eight seconds, is a network that does not keep up: newer chunks are dropped.
const MOST_WAITING = 512 * 1024;
// `vivavoce.playback` goes out this often while playing, counted in played sound.
const REPORT_MS = 100;
// Close code of a server that is going down, or whose engine has died (IANA's WebSocket registry).
const SERVICE_RESTART = 1012;

export class WebSocketTransport {
  kind = "websocket";

  // The listeners of `openTransport`.
  constructor(listeners) {
    this.listeners = listeners;
    this.socket = null;
    this.speaker = null;
    this.greeted = false;
    // Responses whose sound is no longer wanted.
    this.dropped = new Set();
    // Response id -> its message's id, to truncate it; those that may still sound.
    this.messages = new Map();
    this.reported = { id: null, playedMs: 0 };
  }

  // Resolves when the server has greeted us; rejects with a Problem.
  async open({ base, key, loudspeaker }) {
    try {
      // Without a secure context there is no AudioWorklet: text both ways.
      if (window.isSecureContext) await this.openSpeaker(loudspeaker);
      await this.dial(base, key);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  get speaks() {
    return this.speaker !== null;
  }

  async openSpeaker(loudspeaker) {
    if (!window.AudioWorkletNode) throw new Problem("browser");
    const { onSound, onSuspended } = this.listeners;
    this.speaker = new Speaker({ onPosition: (position) => this.played(position), onSound, onSuspended });
    await this.speaker.open(loudspeaker);
  }

  dial(base, key) {
    const address = new URL("v1/realtime", base);
    address.protocol = address.protocol.replace("http", "ws");
    const offered = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    return new Promise((resolve, reject) => {
      this.socket = new WebSocket(address, offered);
      const timer = setTimeout(() => this.socket?.close(), HANDSHAKE_MS);
      this.socket.onmessage = ({ data }) => {
        clearTimeout(timer);
        this.greeted = true;
        this.take(JSON.parse(data));
        resolve();
      };
      this.socket.onclose = async ({ code, reason }) => {
        clearTimeout(timer);
        const problem = code !== 1006 || this.greeted ? closing(code, reason) : await diagnose(base, key);
        reject(problem);
        if (!this.greeted) return;
        await this.close();
        this.listeners.onClosed(problem);
      };
    });
  }

  take(event) {
    switch (event.type) {
      case "response.output_audio.delta":
        this.play(event);
        return;
      case "response.output_audio.done":
        this.speaker?.end(event.response_id);
        break;
      case "response.output_item.added":
        if (event.item.type === "message") this.messages.set(event.response_id, event.item.id);
        break;
      case "input_audio_buffer.speech_started":
        this.hush();
        break;
      case "response.done":
        if (event.response.status === "cancelled") this.hush();
        break;
    }
    this.listeners.onEvent(event, this);
  }

  play({ response_id: id, delta }) {
    if (this.dropped.has(id)) return;
    const pcm = decode(delta);
    this.listeners.onQueued(id, pcm.length);
    this.speaker.push(id, pcm);
  }

  // The loudspeaker has come this far.
  played({ id, playedMs, queuedMs }) {
    if (this.dropped.has(id)) return;
    this.listeners.onPosition(id, playedMs, queuedMs);
    if (id === this.reported.id && playedMs - this.reported.playedMs < REPORT_MS && queuedMs) return;
    this.reported = { id, playedMs };
    this.send({ type: "vivavoce.playback", response_id: id, played_ms: playedMs });
  }

  // Stop the answer by hand: the server does not know yet.
  async interrupt() {
    this.send({ type: "response.cancel", event_id: `${HARMLESS}cancel` });
    await this.hush();
  }

  // Silence at once; the server is told what was heard.
  async hush() {
    if (!this.speaker) return;
    const { id, playedMs } = await this.speaker.flush();
    if (id === null) return;
    this.dropped.add(id);
    this.listeners.onCut(id, playedMs);
    const item = this.messages.get(id);
    if (item === undefined) return;
    this.messages.delete(id);
    const where = { item_id: item, content_index: 0, audio_end_ms: playedMs };
    this.send({ type: "conversation.item.truncate", event_id: `${HARMLESS}truncate`, ...where });
  }

  send(event) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  // 40 ms of the microphone: an ArrayBuffer of PCM16 at 24 kHz.
  sendSound(buffer) {
    if (this.socket?.readyState !== WebSocket.OPEN || this.socket.bufferedAmount > MOST_WAITING) return;
    this.send({ type: "input_audio_buffer.append", audio: btoa(String.fromCharCode(...new Uint8Array(buffer))) });
  }

  // Another microphone: its sound comes as before.
  useTrack() {}

  async useLoudspeaker(deviceId) {
    await this.speaker?.change(deviceId);
  }

  async resume() {
    await this.speaker?.resume();
  }

  close() {
    const { socket, speaker } = this;
    this.socket = this.speaker = null;
    if (socket) {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close(1000);
    }
    return speaker?.close();
  }
}

function closing(code, reason) {
  if (code === SERVICE_RESTART && reason !== "engine_failed") return new Problem("stopped");
  if (reason === "session_expired") return new Problem("expired");
  if (code === 1000) return new Problem("ended", reason);
  return new Problem("closed", reason || (code === 1006 ? "" : `code ${code}`));
}

// PCM16 of an audio delta.
function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}
