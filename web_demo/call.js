// <vivavoce-call>: a call on any site, by one script tag.
//
//   <script type="module" src="https://voice.example.org/call.js"></script>
//   <vivavoce-call token-url="/voice-token" label="Ask the museum"></vivavoce-call>
//
// Attributes: `url` the server, where the script does not come from it; `token` a client secret (ek_...), or `token-url` an address of the
// site that answers a POST with one, as {"value": "ek_..."} or as text; `voice`, `instructions`, `language`, `transport`, `label`. They are
// read as a call begins. Events: `vivavoce-state` {state}; `vivavoce-words` {who, text} of each entry that is settled; `vivavoce-function`
// {name, arguments, answer} where the model calls a function that the client secret brought: a listener prevents the default and gives
// `answer` what came of it, as text.

import { element, setText } from "./dom.js";
import { Problem } from "./problems.js";
import { DEFAULTS } from "./settings.js";
import { STATES } from "./states.js";
import { Talk } from "./talk.js";

// Entries that are shown: the last of both sides.
const SHOWN = 2;
const CHOSEN = ["voice", "instructions", "language", "transport"];

class VivavoceCall extends HTMLElement {
  constructor() {
    super();
    this.talk = null;
    // Ids of entries that have been told of, and the lines of those that are shown.
    this.told = new Set();
    this.lines = new Map();
    this.attachShadow({ mode: "open" });
  }

  connectedCallback() {
    if (this.button) return;
    const style = element("link");
    style.rel = "stylesheet";
    style.href = new URL("call.css", import.meta.url);
    this.button = element("button", "button");
    this.button.type = "button";
    this.button.part = "button";
    this.button.addEventListener("click", () => (this.talk?.active ? this.talk.hangUp() : this.start()));
    this.status = element("p", "state");
    this.status.role = "status";
    this.words = element("div", "words");
    this.words.role = "log";
    this.alert = element("p", "problem");
    this.alert.role = "alert";
    this.shadowRoot.append(style, this.button, this.status, this.words, this.alert);
    this.show();
  }

  disconnectedCallback() {
    this.talk?.hangUp();
  }

  start() {
    const base = new URL(this.getAttribute("url") ?? ".", this.hasAttribute("url") ? document.baseURI : import.meta.url);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    const settings = { ...DEFAULTS };
    for (const name of CHOSEN) settings[name] = this.getAttribute(name) ?? DEFAULTS[name];
    this.told.clear();
    this.talk = new Talk(
      { base, settings, getKey: () => this.token(), call: (name, argumentsText) => this.call(name, argumentsText) },
      { onChange: () => this.show(), onProblem: (problem) => this.problem(problem) },
    );
    return this.talk.start({ spoken: true });
  }

  // A client secret, made anew for every session where the site makes them.
  async token() {
    const from = this.getAttribute("token-url");
    if (!from) return this.getAttribute("token") ?? "";
    try {
      const response = await fetch(new URL(from, document.baseURI), { method: "POST" });
      const text = response.ok ? (await response.text()).trim() : "";
      const token = text.startsWith("{") ? JSON.parse(text).value : text;
      if (token && typeof token === "string") return token;
    } catch {
      // Said below: the person can do nothing about what was wrong with it.
    }
    throw new Problem("no-token");
  }

  // What a function of the site's gives.
  call(name, argumentsText) {
    return new Promise((answer) => {
      const detail = { name, arguments: argumentsText, answer };
      const unheard = this.dispatchEvent(new CustomEvent("vivavoce-function", { detail, cancelable: true }));
      if (unheard) answer(`There is no function ${name} here.`);
    });
  }

  problem(problem) {
    setText(this.alert, problem ? `${problem.title}. ${problem.advice}` : "");
  }

  show() {
    const state = this.talk?.state ?? "off";
    if (this.dataset.state !== state) {
      this.dataset.state = state;
      setText(this.status, state === "off" ? "" : STATES[state][0]);
      setText(this.button, state === "off" ? (this.getAttribute("label") ?? "Talk") : "End the call");
      this.dispatchEvent(new CustomEvent("vivavoce-state", { detail: { state } }));
    }
    const entries = this.talk?.dialogue.entries.filter(({ who }) => who === "you" || who === "agent") ?? [];
    this.showLines(entries.slice(-SHOWN));
    for (const { id, who, text, settled } of entries) {
      if (!settled || !text || this.told.has(id)) continue;
      this.told.add(id);
      this.dispatchEvent(new CustomEvent("vivavoce-words", { detail: { who, text: text.trim() } }));
    }
  }

  // Changed in place: screen readers hear each once it is settled.
  showLines(entries) {
    const wanted = new Set(entries.map(({ id }) => id));
    for (const [id, line] of this.lines) {
      if (wanted.has(id)) continue;
      line.remove();
      this.lines.delete(id);
    }
    for (const { id, who, text, settled } of entries) {
      const line = this.lines.get(id) ?? element("p", who);
      line.setAttribute("aria-busy", String(!settled));
      setText(line, text.trim());
      if (this.lines.has(id)) continue;
      this.lines.set(id, line);
      this.words.append(line);
    }
  }
}

customElements.define("vivavoce-call", VivavoceCall);
