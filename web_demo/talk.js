// A call: microphone, transport and what both sides say, joined. Knows no document; the page and the element show it.

import { diagnose, isKey } from "./api.js";
import { Dialogue } from "./dialogue.js";
import { Microphone } from "./microphone.js";
import { HARMLESS, microphoneProblem, Problem } from "./problems.js";
import { Recording } from "./recording.js";
import { DEFAULTS, sessionOf } from "./settings.js";
import { Timeline } from "./timeline.js";
import { runTool } from "./tools.js";
import { openTransport } from "./transport.js";

// When a lost call is tried again, after each other.
const RETRY_MS = [300, 1000, 2000, 4000, 8000];
// Ends of a call that another try may mend.
const PASSING = new Set(["closed", "unreachable", "loading", "refused", "no-token"]);
// The id of the event without whose effect there is no session.
const FIRST = "first";

export class Talk {
  // base: where the server is (URL); getKey(): the key for a session, asked for each, or a promise of it; settings: those of settings.js;
  // call(name, argumentsText): what a function of ours gives, as text, or a promise of it. Listeners: onChange() when anything is to be shown
  // anew, onModel(name), onProblem(Problem or null).
  constructor({ base, getKey, settings = DEFAULTS, records = false, call = runTool }, { onChange, onModel = () => {}, onProblem }) {
    this.base = base;
    this.getKey = getKey;
    this.settings = settings;
    this.records = records;
    this.call = call;
    this.onChange = onChange;
    this.onModel = onModel;
    this.onProblem = onProblem;
    // The key that was shown last.
    this.key = "";
    this.dialogue = new Dialogue();
    this.timeline = new Timeline();
    this.recording = new Recording();
    // Set while a call is being made or runs.
    this.transport = null;
    this.microphone = null;
    this.connecting = false;
    // Why the call does not go over WebRTC, if it should.
    this.why = "";
    this.muted = false;
    this.suspended = false;
    // Counts calls: what belongs to an earlier one is late.
    this.attempt = 0;
    // Items to be told to the session that is being opened.
    this.carried = [];
  }

  // Whether there is a call, or will be in a moment.
  get active() {
    return this.connecting || this.transport !== null;
  }

  // One of the states that the view has words for.
  get state() {
    if (this.connecting) return "connecting";
    const { state } = this.dialogue;
    if (!this.transport || state === "off") return this.transport ? "connecting" : "off";
    if (this.suspended) return "suspended";
    if (state !== "listening") return state;
    if (!this.microphone) return "typing";
    return this.muted ? "muted" : "listening";
  }

  // -- a call

  // With or without the microphone; true when it stands. `resumes`: the new session is told what was said before.
  async start({ spoken, resumes = false }) {
    const attempt = await this.release();
    if (attempt !== this.attempt) return false;
    this.onProblem(null);
    if (!resumes) this.dialogue.begin();
    this.connecting = true;
    this.onChange();
    try {
      const blocked = spoken ? await this.openMicrophone(attempt) : null;
      if (!(await this.connect(attempt, resumes))) return false;
      if (blocked) this.onProblem(blocked);
      return true;
    } catch (error) {
      if (attempt === this.attempt) await this.end(error instanceof Problem ? error : await this.explain(error));
      return false;
    } finally {
      if (attempt === this.attempt) this.connecting = false;
      this.onChange();
    }
  }

  hangUp() {
    return this.end(null);
  }

  async end(problem) {
    await this.release();
    if (problem) this.onProblem(problem);
    this.onChange();
  }

  // Nothing of a call is left, nor of one that is being made; resolves to the number of the next.
  async release() {
    const { transport, microphone } = this;
    this.attempt += 1;
    const next = this.attempt;
    this.transport = this.microphone = null;
    this.connecting = this.suspended = false;
    this.dialogue.reset(false);
    await Promise.all([microphone?.close(), transport?.close()]);
    return next;
  }

  // The Problem behind an error of the browser's: the server may have gone before the audio worklets were loaded.
  async explain(error) {
    const problem = await diagnose(this.base, this.key);
    return problem.kind === "refused" ? new Problem("browser", error.message) : problem;
  }

  // Null, or the Problem for which the call has to do without a microphone.
  async openMicrophone(attempt) {
    if (!window.isSecureContext) return new Problem("insecure");
    const microphone = new Microphone({
      onChunk: (pcm, level) => {
        this.hear("you", pcm, level);
        if (this.dialogue.connected) this.transport?.sendSound(pcm);
      },
      onTrack: (track) => this.transport?.useTrack(track),
      onLost: (error) => {
        this.microphone = null;
        this.onProblem(microphoneProblem(error));
        this.onChange();
      },
    });
    microphone.mute(this.muted);
    try {
      await microphone.open(this.settings.microphone).catch((error) => {
        if (error.name !== "OverconstrainedError") throw error;
        return microphone.open(); // the one that was chosen is not there any more
      });
    } catch (error) {
      return microphoneProblem(error);
    }
    if (attempt !== this.attempt) await microphone.close();
    else this.microphone = microphone;
    return null;
  }

  // A session of its own; false where the call has been given up meanwhile.
  async connect(attempt, resumes) {
    this.key = await this.getKey();
    if (attempt !== this.attempt) return false;
    if (!isKey(this.key)) throw new Problem("bad-key");
    this.dialogue.reset(false);
    this.carried = resumes ? this.dialogue.carry() : [];
    const options = { base: this.base, key: this.key, track: this.microphone?.track ?? null, loudspeaker: this.settings.loudspeaker || undefined };
    const current = (act) => (...values) => (attempt === this.attempt ? act(...values) : undefined);
    const { transport, why } = await openTransport(this.settings.transport, options, {
      onEvent: current((event, from) => this.take(event, from)),
      onQueued: current((id, samples) => this.dialogue.queued(id, samples)),
      onPosition: current((id, playedMs, queuedMs) => this.played(id, playedMs, queuedMs)),
      onCut: current((id, playedMs) => this.cut(id, playedMs)),
      onSound: current((pcm, level) => this.hear("agent", pcm, level)),
      onSuspended: current((suspended) => {
        this.suspended = suspended;
        this.onChange();
      }),
      onClosed: current((problem) => this.lost(problem)),
    });
    if (attempt !== this.attempt) {
      await transport.close();
      return false;
    }
    this.transport = transport;
    this.why = why;
    if (resumes && this.carried.length) this.dialogue.note("Connected again: this session was told the words so far.");
    this.onChange();
    return true;
  }

  // The connection has ended. What a network or an engine has broken is taken up again, as long as the person waits.
  async lost(problem) {
    const { attempt } = this;
    this.transport = null;
    this.dialogue.reset(false);
    this.connecting = true;
    this.onChange();
    for (const wait of RETRY_MS) {
      if (!PASSING.has(problem.kind)) break;
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (attempt !== this.attempt) return;
      try {
        if (!(await this.connect(attempt, true))) return;
        this.connecting = false;
        this.onChange();
        return;
      } catch (error) {
        problem = error instanceof Problem ? error : new Problem("browser", error.message);
      }
    }
    if (attempt === this.attempt) await this.end(problem);
  }

  // -- what the server tells

  take(event, transport) {
    const now = performance.now();
    switch (event.type) {
      case "session.created":
        this.transport = transport;
        this.onModel(event.session.model ?? "");
        transport.send({ type: "session.update", event_id: FIRST, session: sessionOf(this.settings, transport.speaks) });
        for (const item of this.carried) transport.send({ type: "conversation.item.create", event_id: `${HARMLESS}carried`, item });
        break;
      case "session.updated":
        this.dialogue.connected = true;
        break;
      case "output_audio_buffer.started":
        this.timeline.answered(event.response_id, now);
        break;
      case "output_audio_buffer.cleared":
        this.timeline.cut(now);
        break;
      case "conversation.item.truncated":
        transport.send({ type: "conversation.item.retrieve", event_id: `${HARMLESS}retrieve`, item_id: event.item_id });
        break;
      case "response.done":
        this.runTools(event.response, transport);
        break;
      case "error":
        // What ends the session is told again when the connection closes.
        if (event.error.event_id?.startsWith(HARMLESS) || event.error.code === "session_expired") break;
        if (event.error.event_id === FIRST) this.end(new Problem("server", event.error.message));
        else this.onProblem(new Problem("server", event.error.message));
        break;
    }
    this.timeline.take(event, now);
    this.dialogue.take(event, now);
    this.onChange();
  }

  // The model has called functions of ours: it is told what they gave, and goes on.
  async runTools({ status, output }, transport) {
    const calls = status === "completed" ? output.filter(({ type }) => type === "function_call") : [];
    if (!calls.length) return;
    const given = await Promise.all(calls.map(({ name, arguments: argumentsText }) => this.call(name, argumentsText)));
    // A transport that has been closed meanwhile sends nothing.
    for (const [number, { call_id }] of calls.entries()) {
      const item = { type: "function_call_output", call_id, output: String(given[number]) };
      transport.send({ type: "conversation.item.create", item });
    }
    transport.send({ type: "response.create" });
  }

  played(id, playedMs, queuedMs) {
    const now = performance.now();
    if (this.dialogue.position(id, playedMs, queuedMs, now)) this.timeline.answered(id, now);
    this.onChange();
  }

  cut(id, playedMs) {
    this.timeline.cut(performance.now());
    this.dialogue.interrupted(id, playedMs);
    this.onChange();
  }

  // 40 ms of one side, as they sound here.
  hear(who, pcm, level) {
    const now = performance.now();
    this.timeline.level(who, level, now);
    if (this.records) this.recording.push(who, pcm, now);
  }

  // -- what the person does

  async say(text) {
    if (!this.active && !(await this.start({ spoken: false }))) return;
    const { attempt } = this;
    while (attempt === this.attempt && !this.dialogue.connected) await new Promise((resolve) => setTimeout(resolve, 20));
    if (attempt !== this.attempt) return;
    await this.interrupt();
    const content = [{ type: "input_text", text }];
    this.transport.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.transport.send({ type: "response.create" });
  }

  // The answer is not wanted any further.
  async interrupt() {
    if (this.dialogue.connected && this.dialogue.responses.size) await this.transport?.interrupt();
  }

  mute(muted) {
    this.muted = muted;
    this.microphone?.mute(muted);
    this.onChange();
  }

  // Other settings, in the call that runs as far as they can be.
  async use(settings) {
    const before = this.settings;
    this.settings = settings;
    const { transport } = this;
    try {
      if (settings.microphone !== before.microphone) await this.microphone?.change(settings.microphone);
      if (settings.loudspeaker !== before.loudspeaker) await transport?.useLoudspeaker(settings.loudspeaker);
    } catch (error) {
      this.onProblem(microphoneProblem(error));
    }
    if (!transport || !this.dialogue.connected) return;
    const [was, is] = [sessionOf(before, transport.speaks), sessionOf(settings, transport.speaks, before)];
    if (JSON.stringify(was) !== JSON.stringify(is)) transport.send({ type: "session.update", session: is });
  }

  // The browser has stopped sound; a click lets it go on.
  resume() {
    this.transport?.resume();
    this.microphone?.resume();
  }
}
