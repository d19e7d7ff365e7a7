// The dialogue as the page knows it: entries of both sides and whose turn it is. Pure: events and times in, no sound, no DOM.
//
// An agent's words are shown when they sound. The server sends a piece of transcript right after the chunk of audio in which its words end,
// so each piece carries the position at which that chunk began.

// What the page keeps on screen; older entries are dropped.
const MOST_ENTRIES = 400;
const RATE_PER_MS = 24;

function newResponse() {
  return { entry: null, itemId: null, pieces: [], chunkAt: 0, received: 0, heardMs: 0, playing: false, done: false };
}

export class Dialogue {
  constructor() {
    // {id, who: "you" | "agent", text, settled, cut, latency: {ms, stages: [[name, ms]]} | null}
    this.entries = [];
    this.connected = false;
    // The caller is speaking.
    this.hearing = false;
    // The caller has finished and nothing answers yet.
    this.awaiting = false;
    // response id -> {entry, itemId, pieces, chunkAt, received, heardMs, playing, done}; positions in samples at 24 kHz
    this.responses = new Map();
    // When the caller stopped, and whether that has been answered, to measure a turn without the server's ledger.
    this.stoppedAt = null;
  }

  get state() {
    if (!this.connected) return "off";
    if (this.hearing) return "hearing";
    for (const response of this.responses.values()) if (response.playing) return "speaking";
    for (const response of this.responses.values()) if (!response.done) return "thinking";
    return this.awaiting ? "thinking" : "listening";
  }

  // A new connection is a new conversation; what was said stays to be read.
  reset(connected) {
    this.connected = connected;
    this.hearing = false;
    this.awaiting = false;
    this.stoppedAt = null;
    this.responses.clear();
    for (const entry of this.entries) entry.settled = true;
    this.entries = this.entries.filter((entry) => entry.text);
  }

  // A server event that came at `now` (ms).
  take(event, now) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.hearing = true;
        this.entry(event.item_id, "you");
        break;
      case "input_audio_buffer.speech_stopped":
        this.hearing = false;
        this.awaiting = true;
        this.stoppedAt = now;
        break;
      case "input_audio_buffer.committed":
        this.hearing = false;
        this.awaiting = true;
        break;
      case "conversation.item.added":
        this.addTyped(event.item, now);
        break;
      case "conversation.item.input_audio_transcription.delta":
        this.entry(event.item_id, "you").text += event.delta ?? "";
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.settle(event.item_id, event.transcript);
        break;
      case "conversation.item.input_audio_transcription.failed":
        this.settle(event.item_id, this.entry(event.item_id, "you").text || "(could not be transcribed)");
        break;
      case "conversation.item.retrieved":
        this.correct(event.item);
        break;
      default:
        this.takeResponse(event);
    }
  }

  takeResponse(event) {
    const response = this.responses.get(event.response_id);
    switch (event.type) {
      case "response.created":
        this.awaiting = false;
        this.responses.set(event.response.id, newResponse());
        break;
      case "response.output_item.added":
        if (response && event.item.type === "message") {
          response.itemId = event.item.id;
          response.entry = this.entry(event.item.id, "agent");
        }
        break;
      case "response.output_audio_transcript.delta":
        response?.pieces.push({ text: event.delta, at: response.chunkAt });
        break;
      case "response.output_text.delta":
        if (response?.entry) response.entry.text += event.delta;
        break;
      case "response.done":
        this.finish(event.response);
        break;
      case "vivavoce.ledger":
        if (response?.entry) response.entry.latency = { ms: event.total_ms, stages: Object.entries(event.stages_ms) };
        break;
    }
  }

  // Audio of a response was handed to the loudspeaker: `samples` at 24 kHz.
  queued(responseId, samples) {
    const response = this.responses.get(responseId);
    if (!response) return;
    response.chunkAt = response.received;
    response.received += samples;
  }

  // The loudspeaker has played `playedMs` of a response; `queuedMs` are left.
  position(responseId, playedMs, queuedMs, now) {
    const response = this.responses.get(responseId);
    if (!response?.entry) return;
    if (!response.heardMs && playedMs && this.stoppedAt !== null) {
      response.entry.latency ??= { ms: now - this.stoppedAt, stages: [] };
      this.stoppedAt = null;
    }
    response.heardMs = Math.max(response.heardMs, playedMs);
    response.playing = queuedMs > 0 || !response.done;
    this.reveal(response);
    if (response.done && !response.playing) this.close(responseId);
  }

  // The loudspeaker was stopped: what was not heard is not shown. Returns the item that was cut, if there was one.
  interrupted(responseId, playedMs) {
    const response = this.responses.get(responseId);
    if (!response?.entry) return null;
    response.heardMs = playedMs;
    response.playing = false;
    this.reveal(response);
    response.entry.cut = true;
    response.pieces = [];
    if (response.done) this.close(responseId);
    return response.itemId;
  }

  reveal({ entry, pieces, heardMs }) {
    while (pieces.length && pieces[0].at <= heardMs * RATE_PER_MS) entry.text += pieces.shift().text;
  }

  finish({ id, status, status_details: details }) {
    const response = this.responses.get(id);
    if (!response) return;
    response.done = true;
    if (status === "cancelled" && response.entry) response.entry.cut = true;
    if (status === "failed" && response.entry) response.entry.text ||= details?.error?.message ?? "(no answer)";
    // A cancelled response that still sounds is closed when the loudspeaker has been stopped, any other when all of it has been played.
    const played = response.received <= (response.heardMs + 1) * RATE_PER_MS;
    if (status === "cancelled" ? !response.playing : played) this.close(id);
  }

  close(responseId) {
    const { entry, pieces } = this.responses.get(responseId);
    this.responses.delete(responseId);
    if (!entry) return;
    if (!entry.cut) entry.text += pieces.map(({ text }) => text).join("");
    entry.settled = true;
    if (!entry.text) this.remove(entry);
  }

  // The server's own account of an item that was cut: what was heard, to the word.
  correct(item) {
    const entry = this.entries.find(({ id }) => id === item.id);
    const transcript = item.content?.[0]?.transcript;
    if (entry?.cut && typeof transcript === "string") entry.text = transcript;
  }

  addTyped(item, now) {
    if (item.type !== "message" || item.role !== "user" || item.content?.[0]?.type !== "input_text") return;
    const entry = this.entry(item.id, "you");
    entry.text = item.content[0].text;
    entry.settled = true;
    this.awaiting = true;
    this.stoppedAt = now;
  }

  settle(itemId, text) {
    const entry = this.entry(itemId, "you");
    entry.text = text.trim();
    entry.settled = true;
    if (!entry.text) this.remove(entry);
  }

  entry(id, who) {
    let entry = this.entries.find((each) => each.id === id);
    if (!entry) {
      entry = { id, who, text: "", settled: false, cut: false, latency: null };
      this.entries.push(entry);
      if (this.entries.length > MOST_ENTRIES) this.entries.shift();
    }
    return entry;
  }

  remove(entry) {
    this.entries = this.entries.filter((each) => each !== entry);
  }
}
