// The dialogue as the page knows it: entries of both sides and whose turn it is. Pure: events and times in, no sound, no DOM.
//
// An agent's words are solid when they have sounded. Where we play the sound, the server sends a piece of transcript right after the chunk of
// audio in which its words end, so each piece carries the position at which that chunk began. Where the server plays it
// (`output_audio_buffer.*`), words come as they sound.

// What the page keeps on screen; older entries are dropped.
const MOST_ENTRIES = 400;
const RATE_PER_MS = 24;
// Items told to a new session when a call goes on: more than the model is told of a long call word for word.
const MOST_CARRIED = 100;

// `ahead` has been said by the model and not sounded yet, `unheard` never will. latency: {ms, stages: [[name, ms]], prepared}. A tool's entry
// has its call in `name`, `argumentsText` and `callId`, and what came of it as its text. `past`: of an earlier conversation.
function newEntry(id, who) {
  const words = { text: "", ahead: "", unheard: "", settled: false, cut: false };
  return { id, who, ...words, latency: null, name: "", argumentsText: "", callId: "", past: false };
}

function newResponse() {
  return { entry: null, pieces: [], chunkAt: 0, received: 0, heardMs: 0, playing: false, served: false, done: false };
}

export class Dialogue {
  constructor() {
    // As `newEntry` makes them, in order.
    this.entries = [];
    this.connected = false;
    // The caller is speaking.
    this.hearing = false;
    // The caller has finished and nothing answers yet.
    this.awaiting = false;
    // response id -> {entry, pieces, chunkAt, received, heardMs, playing, served, done}; positions in samples at 24 kHz. `served`: the server
    // plays it.
    this.responses = new Map();
    // When the caller stopped, and whether that has been answered, to measure a turn without the server's ledger.
    this.stoppedAt = null;
    // Ids of entries that the session has been told, because an earlier one had them.
    this.carried = new Set();
    // How many notes of ours there are among the entries, or were.
    this.notes = 0;
  }

  get state() {
    if (!this.connected) return "off";
    if (this.hearing) return "hearing";
    for (const response of this.responses.values()) if (response.playing) return "speaking";
    for (const response of this.responses.values()) if (!response.done) return "thinking";
    return this.awaiting ? "thinking" : "listening";
  }

  // A new connection; what was said stays to be read.
  reset(connected) {
    this.connected = connected;
    this.hearing = false;
    this.awaiting = false;
    this.stoppedAt = null;
    this.responses.clear();
    this.carried.clear();
    for (const entry of this.entries) this.give(entry);
    this.entries = this.entries.filter((entry) => entry.text);
  }

  // What was said before belongs to another conversation.
  begin() {
    for (const entry of this.entries) entry.past = true;
    if (this.entries.length && this.entries.at(-1).who !== "note") this.note("A new conversation.");
  }

  // The conversation as items for `conversation.item.create`: as text, of ours what was heard.
  carry() {
    const items = this.entries.filter(({ past }) => !past).flatMap(itemsOf).slice(-MOST_CARRIED);
    this.carried = new Set(items.map(({ id }) => id));
    return items;
  }

  note(text) {
    this.notes += 1;
    Object.assign(this.entry(`note_${this.notes}`, "note"), { text, settled: true });
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
        this.added(event.item, now);
        break;
      case "conversation.item.done":
        if (event.item.type === "mcp_call") this.answerCall(event.item.id, event.item.output ?? event.item.error?.content?.[0]?.text);
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
        this.takeResponse(event, now);
    }
  }

  takeResponse(event, now) {
    const response = this.responses.get(event.response_id);
    switch (event.type) {
      case "response.created":
        this.awaiting = false;
        this.responses.set(event.response.id, newResponse());
        break;
      case "response.output_item.added":
        if (response && event.item.type === "message") response.entry = this.entry(event.item.id, "agent");
        break;
      case "response.output_audio_transcript.delta":
        if (!response?.entry) break;
        response.pieces.push({ text: event.delta, at: response.chunkAt });
        this.reveal(response);
        break;
      case "response.output_text.delta":
        if (response?.entry) response.entry.text += event.delta;
        break;
      case "response.function_call_arguments.delta":
      case "response.mcp_call_arguments.delta":
        this.entry(event.item_id, "tool").argumentsText += event.delta;
        break;
      case "response.function_call_arguments.done":
      case "response.mcp_call_arguments.done":
        this.entry(event.item_id, "tool").argumentsText = event.arguments;
        break;
      case "response.done":
        this.finish(event.response);
        break;
      case "vivavoce.ledger":
      case "vivavoce.ledger.played":
        if (response?.entry) response.entry.latency = latencyOf(event, response.entry.latency);
        break;
      default:
        if (response) this.takePlayback(event, response, now);
    }
  }

  // The server plays the sound, and tells of it.
  takePlayback({ type, response_id: id }, response, now) {
    switch (type) {
      case "output_audio_buffer.started":
        response.served = true;
        response.playing = true;
        this.begins(response, now);
        this.reveal(response);
        break;
      case "output_audio_buffer.stopped":
        response.playing = false;
        if (response.done) this.close(id);
        break;
      case "output_audio_buffer.cleared":
        this.interrupted(id, response.heardMs);
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

  // The loudspeaker has played `playedMs` of a response; `queuedMs` are left. True where it has just begun to sound.
  position(responseId, playedMs, queuedMs, now) {
    const response = this.responses.get(responseId);
    if (!response?.entry) return false;
    const begins = !response.heardMs && playedMs > 0;
    if (begins) this.begins(response, now);
    response.heardMs = Math.max(response.heardMs, playedMs);
    response.playing = queuedMs > 0 || !response.done;
    this.reveal(response);
    if (response.done && !response.playing) this.close(responseId);
    return begins;
  }

  begins({ entry }, now) {
    if (entry && this.stoppedAt !== null) entry.latency ??= { ms: now - this.stoppedAt, stages: [], prepared: false };
    this.stoppedAt = null;
  }

  // The sound was stopped: the words that were not heard never will be.
  interrupted(responseId, playedMs) {
    const response = this.responses.get(responseId);
    if (!response?.entry) return;
    const { entry } = response;
    response.heardMs = playedMs;
    this.reveal(response);
    response.playing = false;
    response.pieces = [];
    entry.cut = true;
    entry.unheard = entry.ahead;
    entry.ahead = "";
    if (response.done) this.close(responseId);
  }

  reveal({ entry, pieces, heardMs, playing }) {
    while (playing && pieces.length && pieces[0].at <= heardMs * RATE_PER_MS) entry.text += pieces.shift().text;
    entry.ahead = pieces.map(({ text }) => text).join("");
  }

  finish({ id, status, status_details: details }) {
    const response = this.responses.get(id);
    if (!response) return;
    response.done = true;
    if (status === "cancelled" && response.entry) response.entry.cut = true;
    if (status === "failed" && response.entry) response.entry.text ||= details?.error?.message ?? "(no answer)";
    // One that still sounds is closed when it has been played, or stopped.
    const played = response.received <= (response.heardMs + 1) * RATE_PER_MS;
    if (status === "cancelled" || response.served ? !response.playing : played) this.close(id);
  }

  close(responseId) {
    const { entry } = this.responses.get(responseId);
    this.responses.delete(responseId);
    if (entry) this.give(entry);
    if (entry && !entry.text) this.remove(entry);
  }

  // Nothing more comes: what lay ahead was heard, or will not be.
  give(entry) {
    if (entry.cut) entry.unheard += entry.ahead;
    else entry.text += entry.ahead;
    entry.ahead = "";
    entry.settled = true;
  }

  // The server's own account of an item that was cut: what was heard, to the word.
  correct(item) {
    const entry = this.entries.find(({ id }) => id === item.id);
    const heard = item.content?.[0]?.transcript;
    if (!entry?.cut || typeof heard !== "string") return;
    if (entry.text.startsWith(heard)) entry.unheard = entry.text.slice(heard.length) + entry.unheard;
    entry.text = heard;
    if (!heard && entry.settled) this.remove(entry);
  }

  added(item, now) {
    if (this.carried.has(item.id)) return;
    if (item.type === "function_call_output") {
      this.answerCall(this.entries.find(({ callId }) => callId && callId === item.call_id)?.id, item.output);
    } else if (item.type === "function_call" || item.type === "mcp_call") {
      Object.assign(this.entry(item.id, "tool"), { name: item.name, callId: item.call_id ?? "", argumentsText: item.arguments ?? "" });
    } else if (item.type === "message" && item.role === "user" && item.content?.[0]?.type === "input_text") {
      const entry = this.entry(item.id, "you");
      Object.assign(entry, { text: item.content[0].text, settled: true });
      this.awaiting = true;
      this.stoppedAt = now;
    }
  }

  answerCall(id, output) {
    const entry = this.entries.find((each) => each.id === id);
    if (entry) Object.assign(entry, { text: output || "(nothing)", settled: true });
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
      entry = newEntry(id, who);
      this.entries.push(entry);
      if (this.entries.length > MOST_ENTRIES) this.entries.shift();
    }
    return entry;
  }

  remove(entry) {
    this.entries = this.entries.filter((each) => each !== entry);
  }
}

// A turn's ledger, or, once it was heard, with the way there.
function latencyOf({ type, total_ms: ms, stages_ms: stages, played_ms: played, speculated, reported }, known) {
  if (type === "vivavoce.ledger") return { ms, stages: Object.entries(stages), prepared: speculated };
  return reported && known?.stages.length ? { ...known, ms, stages: [...known.stages, ["played", played]] } : known;
}

function itemsOf({ id, who, text, settled, name, argumentsText, callId }) {
  const message = (role, type) => [{ id, type: "message", role, content: [{ type, text: text.trim() }] }];
  if (!text.trim() || !settled) return [];
  if (who === "you") return message("user", "input_text");
  if (who === "agent") return message("assistant", "output_text");
  if (who !== "tool" || !callId) return [];
  const call = { id, type: "function_call", name, call_id: callId, arguments: argumentsText };
  return [call, { id: `${id}_out`, type: "function_call_output", call_id: callId, output: text }];
}
