// Everything that touches the document. It is told what to show; what the person does goes to the handlers it is given.

const STATES = {
  off: ["Ready", "Press the button and speak. Your voice goes to this server and nowhere else."],
  connecting: ["Connecting", ""],
  listening: ["Listening", "Say something, or type."],
  hearing: ["Hearing you", "Take your time."],
  thinking: ["Thinking", ""],
  speaking: ["Speaking", "Talk over it to interrupt, or press Esc."],
  muted: ["Muted", "The microphone sends silence."],
  typing: ["Connected", "Without a microphone: type a message."],
  suspended: ["Paused", "The browser has stopped the sound. Click anywhere to go on."],
};

// How far a level falls back per second, so that the rings breathe instead of flickering.
const FALL_PER_SECOND = 2.2;
// Loudness shown as nothing and as everything, in dB of full scale.
const QUIET_DB = -52;
const LOUD_DB = -14;

const byId = (id) => document.getElementById(id);

export class View {
  constructor(handlers) {
    this.layout = byId("layout");
    this.stage = byId("stage");
    this.levels = { you: 0, agent: 0 };
    this.shown = { you: 0, agent: 0 };
    // Entry id -> its elements.
    this.rows = new Map();
    this.drawnAt = 0;
    this.drawing = false;
    // Whether the newest words are in sight and should stay so.
    this.pinned = true;
    this.listen(handlers);
    this.state("off");
  }

  listen({ onCall, onText, onMute, onDevice, onRetry, onKey, onInterrupt }) {
    byId("call").addEventListener("click", onCall);
    byId("retry").addEventListener("click", onRetry);
    byId("dismiss").addEventListener("click", () => this.problem(null));
    byId("device").addEventListener("change", (event) => onDevice(event.target.value));
    byId("mute").addEventListener("click", () => onMute(byId("mute").getAttribute("aria-pressed") !== "true"));
    byId("scroll").addEventListener("scroll", ({ target }) => {
      this.pinned = target.scrollHeight - target.scrollTop - target.clientHeight < 48;
    });
    new ResizeObserver(() => this.follow()).observe(byId("scroll"));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") onInterrupt();
    });
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = byId("text").value.trim();
      byId("text").value = "";
      if (text) onText(text);
    });
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      onKey(byId("key").value.trim());
    });
  }

  // One of STATES.
  state(name) {
    if (this.layout.dataset.state === name && byId("hint").textContent) return;
    const [label, hint] = STATES[name];
    this.layout.dataset.state = name;
    byId("state").textContent = label;
    byId("hint").textContent = hint;
    byId("call-label").textContent = name === "off" ? "Start" : "End";
    const spoken = !["off", "connecting", "typing"].includes(name);
    byId("mute").hidden = !spoken;
    byId("device-label").hidden = !spoken || byId("device").length < 2;
    if (name !== "off") this.animate();
  }

  model(name) {
    byId("model").textContent = name;
  }

  muted(muted) {
    byId("mute").setAttribute("aria-pressed", String(muted));
    byId("mute").textContent = muted ? "Unmute" : "Mute";
  }

  // [{id, label}], and the one in use.
  devices(devices, chosen) {
    const select = byId("device");
    select.replaceChildren(...devices.map(({ id, label }) => new Option(label, id, false, id === chosen)));
    byId("device-label").hidden = byId("mute").hidden || devices.length < 2;
  }

  // A Problem, or null to take it away. Where a key is wanted there is a field for it.
  problem(problem) {
    byId("problem").hidden = !problem;
    if (!problem) return;
    byId("problem-title").textContent = problem.title;
    byId("problem-advice").textContent = problem.advice;
    const wantsKey = problem.kind.endsWith("-key");
    byId("key-form").hidden = !wantsKey;
    byId("dismiss").hidden = wantsKey;
    byId("retry").hidden = wantsKey || problem.kind === "server";
    byId("retry").textContent = ["denied", "no-microphone", "microphone-busy"].includes(problem.kind) ? "Try again" : "Reconnect";
    if (wantsKey) byId("key").focus();
  }

  // -- levels

  // RMS of the last chunk, 0 to 1.
  level(who, rms) {
    const db = 20 * Math.log10(Math.max(rms, 1e-6));
    this.levels[who] = Math.min(1, Math.max(0, (db - QUIET_DB) / (LOUD_DB - QUIET_DB)));
  }

  animate() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame((at) => this.draw(at));
  }

  draw(at) {
    this.drawing = false;
    const step = Math.min(0.1, (at - this.drawnAt) / 1000) * FALL_PER_SECOND;
    this.drawnAt = at;
    for (const who of ["you", "agent"]) {
      this.shown[who] = Math.max(this.levels[who], this.shown[who] - step);
      this.levels[who] = Math.max(0, this.levels[who] - step);
      this.stage.style.setProperty(`--${who}`, this.shown[who].toFixed(3));
    }
    if (this.layout.dataset.state !== "off" || this.shown.you || this.shown.agent) this.animate();
  }

  // -- transcript

  entries(entries) {
    byId("empty").hidden = entries.length > 0;
    const gone = new Set(this.rows.keys());
    for (const entry of entries) {
      gone.delete(entry.id);
      this.row(entry);
    }
    for (const id of gone) {
      this.rows.get(id).item.remove();
      this.rows.delete(id);
    }
    this.follow();
  }

  // Stay at the newest words, unless the person has scrolled away from them.
  follow() {
    if (this.pinned) byId("scroll").scrollTop = byId("scroll").scrollHeight;
  }

  row(entry) {
    const row = this.rows.get(entry.id) ?? this.addRow(entry);
    const text = entry.text.trim();
    if (row.text.textContent !== text) row.text.textContent = text;
    row.item.dataset.settled = entry.settled;
    row.item.dataset.cut = entry.cut;
    row.item.setAttribute("aria-busy", String(!entry.settled));
    row.note.hidden = !entry.cut;
    if (entry.latency && row.latency !== entry.latency) {
      row.latency = entry.latency;
      row.timing.replaceChildren(...timing(entry.latency));
      row.timing.hidden = false;
    }
  }

  addRow({ id, who }) {
    const item = element("li", "entry");
    item.dataset.who = who;
    const head = element("p", "who", who === "you" ? "You" : "Vivavoce");
    const text = element("p", "text");
    const note = element("p", "note", "Interrupted here");
    const timing = element("details", "timing");
    timing.hidden = true;
    item.append(head, text, note, timing);
    byId("entries").append(item);
    const row = { item, text, note, timing, latency: null };
    this.rows.set(id, row);
    return row;
  }
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// "0.62 s", and the stages behind it where the server told them.
function timing({ ms, stages }) {
  const summary = element("summary", "", `${(ms / 1000).toFixed(2)} s`);
  summary.title = stages.length ? "From your last sound to the first sound sent" : "From the end of your turn to the first sound played";
  if (!stages.length) return [summary];
  const list = element("dl", "stages");
  for (const [name, part] of stages) {
    const bar = element("div", "stage-bar");
    bar.style.setProperty("--share", (part / Math.max(ms, 1)).toFixed(3));
    const cell = element("dd", "", `${Math.round(part)} ms`);
    cell.append(bar);
    list.append(element("dt", "", name.replaceAll("_", " ")), cell);
  }
  return [summary, list];
}
