// The page's document but for its parts with modules of their own: the state, the button, problems, what can be saved, the appearance. It is
// told what to show; what the person does goes to the handlers it is given.

import { byId, setText } from "./dom.js";
import { STATES } from "./states.js";
import { loudness, Waveform } from "./waveform.js";

const ROUTES = { webrtc: "Over WebRTC", websocket: "Over the WebSocket" };

// How far a ring falls back per second, so that it breathes instead of flickering.
const FALL_PER_SECOND = 2.2;
// Between two pictures: no more are seen, and where motion is not wanted far fewer.
const FRAME_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 500 : 30;

export class View {
  constructor(timeline, handlers) {
    this.layout = byId("layout");
    this.stage = byId("stage");
    this.timeline = timeline;
    this.waveform = new Waveform(byId("waves"), timeline);
    this.rings = { you: 0, agent: 0 };
    this.drawnAt = 0;
    this.drawing = false;
    this.listen(handlers);
    this.state("off");
    this.theme(document.documentElement.dataset.theme);
    new ResizeObserver(() => this.waveform.draw()).observe(byId("waves"));
  }

  listen({ onCall, onText, onMute, onRetry, onKey, onInterrupt, onSave }) {
    byId("call").addEventListener("click", onCall);
    byId("retry").addEventListener("click", onRetry);
    byId("dismiss").addEventListener("click", () => this.problem(null));
    byId("mute").addEventListener("click", onMute);
    byId("stop").addEventListener("click", onInterrupt);
    byId("theme").addEventListener("click", () => this.theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true));
    for (const kind of ["text", "json", "sound"])
      byId(`save-${kind}`).addEventListener("click", () => {
        byId("save-menu").hidePopover();
        onSave(kind);
      });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !byId("settings").open) onInterrupt();
      if (!event.altKey || event.ctrlKey || event.metaKey || byId("settings").open) return;
      // By the key, not its letter: with Alt that is another one on some keyboards.
      const act = { KeyT: onCall, KeyM: byId("mute").hidden ? null : onMute }[event.code];
      if (!act) return;
      event.preventDefault();
      act();
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
    const [label, hint] = STATES[name];
    this.layout.dataset.state = name;
    setText(byId("state"), label);
    setText(byId("hint"), hint);
    setText(byId("call-label"), name === "off" ? "Talk" : "End");
    byId("mute").hidden = ["off", "connecting", "typing"].includes(name);
    byId("stop").hidden = !["thinking", "speaking"].includes(name);
    if (name !== "off") this.animate();
  }

  model(name) {
    byId("model").textContent = name;
  }

  muted(muted) {
    byId("mute").setAttribute("aria-pressed", String(muted));
    setText(byId("mute"), muted ? "Unmute" : "Mute");
  }

  // Which way the call goes ("webrtc", "websocket" or ""), and why not the better one.
  route(kind, why) {
    setText(byId("route"), kind ? `${ROUTES[kind]}${why ? `: ${why}` : ""}` : "");
  }

  // What there is to save.
  saveable(entries, seconds) {
    byId("save-text").disabled = byId("save-json").disabled = entries === 0;
    byId("save-sound").disabled = seconds < 0.1;
    const whole = Math.floor(seconds);
    byId("recorded").textContent = `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  }

  theme(name, chosen = false) {
    document.documentElement.dataset.theme = name;
    byId("theme").setAttribute("aria-pressed", String(name === "dark"));
    this.waveform.recolour();
    if (!chosen) return;
    try {
      localStorage.setItem("vivavoce-theme", name);
    } catch {
      // It holds for this visit.
    }
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

  // -- what moves

  animate() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame((at) => this.draw(at));
  }

  draw(at) {
    this.drawing = false;
    const running = this.layout.dataset.state !== "off";
    if (at - this.drawnAt >= FRAME_MS) {
      const fall = (Math.min(100, at - this.drawnAt) / 1000) * FALL_PER_SECOND;
      this.drawnAt = at;
      for (const who of ["you", "agent"]) {
        const newest = this.timeline.levels[who].at(-1);
        const level = newest && newest.at > at - 100 ? loudness(newest.level) : 0;
        this.rings[who] = Math.max(level, this.rings[who] - fall);
        this.stage.style.setProperty(`--${who}`, this.rings[who].toFixed(3));
      }
      if (running) this.waveform.draw(at);
    }
    if (running || this.rings.you > 0 || this.rings.agent > 0) this.animate();
  }
}
