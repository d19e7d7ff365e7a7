// The WebSocket to /v1/realtime: JSON events both ways, audio as base64, and why it failed, as far as a browser lets us know.

import { Problem } from "./problems.js";

const HANDSHAKE_MS = 10000;
// Audio waiting in the socket beyond this, about eight seconds, is a network that does not keep up: newer chunks are dropped.
const MOST_WAITING = 512 * 1024;
// Close code of a server that is going down (IANA's WebSocket registry).
const SERVICE_RESTART = 1012;

export class Connection {
  // onEvent(event) for every server event; onClosed(problem) once, when the server or the network ends it.
  constructor({ onEvent, onClosed }) {
    this.onEvent = onEvent;
    this.onClosed = onClosed;
    this.socket = null;
  }

  // Resolves when the server has greeted us; rejects with a Problem.
  open(base, key) {
    const address = new URL("v1/realtime?model=pocket", base);
    address.protocol = address.protocol.replace("http", "ws");
    const offered = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    return new Promise((resolve, reject) => {
      try {
        this.socket = new WebSocket(address, offered);
      } catch {
        reject(new Problem("bad-key"));
        return;
      }
      const timer = setTimeout(() => this.socket.close(), HANDSHAKE_MS);
      this.socket.onmessage = ({ data }) => {
        clearTimeout(timer);
        this.receive(JSON.parse(data));
        resolve();
      };
      this.socket.onclose = async ({ code, reason }) => {
        clearTimeout(timer);
        const opened = code !== 1006 || this.greeted;
        const problem = opened ? this.closing(code, reason) : await diagnose(base, key);
        reject(problem);
        if (this.greeted) this.onClosed(problem);
      };
    });
  }

  receive(event) {
    this.greeted = true;
    this.onEvent(event);
  }

  closing(code, reason) {
    if (code === SERVICE_RESTART) return new Problem("stopped");
    if (reason === "session_expired") return new Problem("expired");
    return new Problem("closed", reason || (code === 1006 ? "" : `code ${code}`));
  }

  send(event) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  sendAudio(buffer) {
    if (this.socket?.readyState !== WebSocket.OPEN || this.socket.bufferedAmount > MOST_WAITING) return;
    this.send({ type: "input_audio_buffer.append", audio: btoa(String.fromCharCode(...new Uint8Array(buffer))) });
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    if (!socket) return;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close(1000);
  }
}

// PCM16 of an audio delta.
export function decodeAudio(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}

// A WebSocket that was never opened tells nothing, nor does a worklet that was not loaded, so ask over HTTP.
export async function diagnose(base, key) {
  try {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const models = await fetch(new URL("v1/models", base), { headers, cache: "no-store" });
    if (models.status === 401) return new Problem(key ? "wrong-key" : "no-key");
    const health = await fetch(new URL("healthz", base), { cache: "no-store" });
    return new Problem(health.ok ? "refused" : "loading");
  } catch {
    return new Problem("unreachable");
  }
}
