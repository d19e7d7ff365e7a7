// Joins microphone, server, loudspeaker and page into a call.

import { Connection, decodeAudio, diagnose } from "./connection.js";
import { Dialogue } from "./dialogue.js";
import { Microphone, microphones } from "./microphone.js";
import { microphoneProblem, Problem } from "./problems.js";
import { Speaker } from "./speaker.js";
import { View } from "./view.js";

// `vivavoce.playback` goes out this often while playing, counted in played audio.
const REPORT_MS = 100;
// The server may refuse these without anybody being worse off: the answer ended while they were on their way.
const HARMLESS = "harmless_";

// The API lies beside the page, also behind a proxy that serves both under a path.
const BASE = new URL(".", location.href);

const SESSION = {
  type: "realtime",
  audio: {
    input: {
      format: { type: "audio/pcm", rate: 24000 },
      transcription: { model: "whisper-1" },
      turn_detection: { type: "semantic_vad", create_response: true, interrupt_response: true },
    },
    output: { format: { type: "audio/pcm", rate: 24000 } },
  },
  vivavoce: { playback: true, ledger: true },
};

class App {
  constructor() {
    this.dialogue = new Dialogue();
    this.key = sessionStorage.getItem("vivavoce-key") ?? "";
    // Set while a call is being made or runs.
    this.connection = null;
    this.microphone = null;
    this.speaker = null;
    this.connecting = false;
    this.muted = false;
    this.suspended = false;
    // Responses whose audio is no longer wanted.
    this.dropped = new Set();
    this.reported = { id: null, playedMs: 0 };
    this.view = new View({
      onCall: () => (this.connection ? this.hangUp() : this.call(true)),
      onRetry: () => this.call(true),
      onText: (text) => this.say(text),
      onMute: (muted) => this.mute(muted),
      onDevice: (id) => this.changeDevice(id),
      onKey: (key) => this.useKey(key),
      onInterrupt: () => this.interrupt(true),
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.resume());
    document.addEventListener("pointerdown", () => this.resume());
    navigator.mediaDevices?.addEventListener("devicechange", () => this.listDevices());
  }

  // -- a call

  // With or without the microphone; true when it stands.
  async call(spoken) {
    if (this.connecting) return false;
    await this.hangUp();
    this.view.problem(null);
    this.connecting = true;
    this.show();
    try {
      // Without a secure context there is no AudioWorklet either: text both ways.
      if (window.isSecureContext) await this.openSpeaker();
      const blocked = spoken ? await this.openMicrophone() : null;
      await this.connect();
      if (blocked) this.view.problem(blocked);
      return true;
    } catch (error) {
      await this.end(error instanceof Problem ? error : await this.explain(error));
      return false;
    } finally {
      this.connecting = false;
      this.show();
    }
  }

  // The Problem behind an error of the browser's: the server may have gone before the audio worklets were loaded.
  async explain(error) {
    const problem = await diagnose(BASE, this.key);
    return problem.kind === "refused" ? new Problem("browser", error.message) : problem;
  }

  async openSpeaker() {
    if (!window.AudioWorkletNode) throw new Problem("browser");
    this.speaker = new Speaker({
      onPosition: (position) => this.played(position),
      onSuspended: (suspended) => {
        this.suspended = suspended;
        this.show();
      },
    });
    await this.speaker.open();
  }

  // Null, or the Problem for which the call has to do without a microphone.
  async openMicrophone() {
    if (!window.isSecureContext) return new Problem("insecure");
    const microphone = new Microphone({
      onChunk: (pcm, level) => {
        this.view.level("you", level);
        if (this.dialogue.connected) this.connection?.sendAudio(pcm);
      },
      onLost: (error) => {
        this.microphone = null;
        this.view.problem(microphoneProblem(error));
        this.show();
      },
    });
    try {
      await microphone.open(this.deviceId);
    } catch (error) {
      return microphoneProblem(error);
    }
    this.microphone = microphone;
    microphone.mute(this.muted);
    await this.listDevices();
    return null;
  }

  async connect() {
    this.dialogue.reset(false);
    this.dropped.clear();
    this.connection = new Connection({ onEvent: (event) => this.take(event), onClosed: (problem) => this.end(problem) });
    await this.connection.open(BASE, this.key);
  }

  async hangUp() {
    await this.end(null);
  }

  async end(problem) {
    const { connection, microphone, speaker } = this;
    this.connection = this.microphone = this.speaker = null;
    connection?.close();
    this.dialogue.reset(false);
    if (problem) this.view.problem(problem);
    this.show();
    await Promise.all([microphone?.close(), speaker?.close()]);
  }

  // -- what the server tells

  take(event) {
    const now = performance.now();
    switch (event.type) {
      case "session.created":
        this.view.model(event.session.model ?? "");
        this.connection.send({ type: "session.update", session: { ...SESSION, output_modalities: [this.speaker ? "audio" : "text"] } });
        break;
      case "session.updated":
        this.dialogue.connected = true;
        break;
      case "input_audio_buffer.speech_started":
        this.interrupt(false);
        break;
      case "response.output_audio.delta":
        this.play(event);
        return;
      case "response.output_audio.done":
        this.speaker?.end(event.response_id);
        break;
      case "conversation.item.truncated":
        this.connection.send({ type: "conversation.item.retrieve", event_id: `${HARMLESS}retrieve`, item_id: event.item_id });
        break;
      case "error":
        // What ends the session is told again when the connection closes.
        if (event.error.event_id?.startsWith(HARMLESS) || event.error.code === "session_expired") break;
        this.view.problem(new Problem("server", event.error.message));
        break;
    }
    this.dialogue.take(event, now);
    if (event.type === "response.done" && event.response.status === "cancelled") this.interrupt(false);
    this.show();
  }

  play({ response_id: id, delta }) {
    if (this.dropped.has(id)) return;
    const pcm = decodeAudio(delta);
    this.dialogue.queued(id, pcm.length);
    this.speaker.push(id, pcm);
  }

  // The loudspeaker has come this far.
  played({ id, playedMs, queuedMs, level }) {
    if (this.dropped.has(id)) return;
    this.view.level("agent", level);
    this.dialogue.position(id, playedMs, queuedMs, performance.now());
    if (id !== this.reported.id || playedMs - this.reported.playedMs >= REPORT_MS || !queuedMs) {
      this.reported = { id, playedMs };
      this.connection?.send({ type: "vivavoce.playback", response_id: id, played_ms: playedMs });
    }
    this.show();
  }

  // Stop the answer at once and tell the server what was heard of it. `cancel` where the server doesn't know yet.
  async interrupt(cancel) {
    if (!this.dialogue.connected) return;
    if (cancel && this.dialogue.responses.size) this.connection.send({ type: "response.cancel", event_id: `${HARMLESS}cancel` });
    if (!this.speaker) return;
    const { id, playedMs } = await this.speaker.flush();
    if (id === null) return;
    this.dropped.add(id);
    const itemId = this.dialogue.interrupted(id, playedMs);
    if (itemId) {
      const event = { type: "conversation.item.truncate", event_id: `${HARMLESS}truncate`, item_id: itemId, content_index: 0 };
      this.connection?.send({ ...event, audio_end_ms: playedMs });
    }
    this.show();
  }

  // -- what the person does

  async say(text) {
    if (!this.connection && !(await this.call(false))) return;
    await this.ready();
    if (!this.connection) return;
    await this.interrupt(true);
    const content = [{ type: "input_text", text }];
    this.connection.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.connection.send({ type: "response.create" });
  }

  // Until the session has been agreed on, or the call has failed.
  async ready() {
    while (this.connection && !this.dialogue.connected) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  mute(muted) {
    this.muted = muted;
    this.microphone?.mute(muted);
    this.view.muted(muted);
    this.show();
  }

  async changeDevice(id) {
    this.deviceId = id;
    try {
      await this.microphone?.change(id);
    } catch (error) {
      this.view.problem(microphoneProblem(error));
    }
  }

  async listDevices() {
    if (this.microphone) this.view.devices(await microphones(), this.microphone.deviceId);
  }

  async useKey(key) {
    this.key = key;
    if (await this.call(true)) sessionStorage.setItem("vivavoce-key", key);
  }

  resume() {
    this.speaker?.resume();
    this.microphone?.resume();
  }

  // -- what is shown

  show() {
    this.view.entries(this.dialogue.entries);
    this.view.state(this.stateName());
  }

  stateName() {
    if (this.connecting) return "connecting";
    const { state } = this.dialogue;
    if (!this.connection || state === "off") return this.connection ? "connecting" : "off";
    if (this.suspended) return "suspended";
    if (state !== "listening") return state;
    if (!this.microphone) return "typing";
    return this.muted ? "muted" : "listening";
  }
}

new App();
