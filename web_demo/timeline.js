// The last half minute of a call: how loud both sides were, and what happened when. Pure; times in ms.

// What is kept: a little more than is drawn.
const KEPT_MS = 45000;

export class Timeline {
  constructor() {
    // {at, level} each 40 ms, by side.
    this.levels = { you: [], agent: [] };
    // {at, kind, ...} in order. Kinds: "stopped" (the caller), "prepared" {id, fate: "waiting" | "kept" | "dropped"},
    // "answered" {id, waitedMs}, "cut", "called".
    this.marks = [];
    // When the caller stopped, while nothing has answered.
    this.stoppedAt = null;
    // The newest turn's whole by the server's ledger, which may come before the answer is heard: {id, ms}.
    this.ledger = { id: null, ms: 0 };
  }

  // RMS, 0 to 1, of the chunk that ended at `now`.
  level(who, level, now) {
    const levels = this.levels[who];
    levels.push({ at: now, level });
    while (levels[0].at < now - KEPT_MS) levels.shift();
  }

  // A server event that came at `now`.
  take(event, now) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.stoppedAt = null;
        break;
      case "input_audio_buffer.speech_stopped":
        this.stoppedAt = now;
        this.mark("stopped", now);
        break;
      case "vivavoce.speculation":
        this.speculate(event, now);
        break;
      case "vivavoce.ledger":
        this.ledger = { id: event.response_id, ms: event.total_ms };
        for (const mark of this.marks) if (mark.kind === "answered" && mark.id === event.response_id) mark.waitedMs = event.total_ms;
        break;
      case "response.output_item.added":
        if (event.item.type !== "message") this.mark("called", now);
        break;
    }
  }

  speculate({ response_id: id, state }, now) {
    if (state === "begun") this.mark("prepared", now, { id, fate: "waiting" });
    const mark = this.marks.find((each) => each.id === id);
    if (mark && state !== "begun") mark.fate = state === "adopted" ? "kept" : "dropped";
  }

  // This response has begun to sound.
  answered(id, now) {
    const waitedMs = this.stoppedAt === null ? null : now - this.stoppedAt;
    this.mark("answered", now, { id, waitedMs: this.ledger.id === id ? this.ledger.ms : waitedMs });
    this.stoppedAt = null;
  }

  // It was stopped.
  cut(now) {
    this.mark("cut", now);
  }

  mark(kind, at, more = {}) {
    this.marks.push({ kind, at, ...more });
    while (this.marks[0].at < at - KEPT_MS) this.marks.shift();
  }
}
