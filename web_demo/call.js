// <vivavoce-call>: a call on any site, by one script tag.
//
//   <script type="module" src="https://voice.example.org/call.js"></script>
//   <vivavoce-call token-url="/voice-token" label="Ask the museum"></vivavoce-call>
//
// Attributes: `url` the server, where the script does not come from it; `token` a client secret (ek_...), or `token-url` an address of the
// site that answers a POST with one, as {"value": "ek_..."} or as text; `voice`, `instructions`, `language`, `transport`, `label`. They are
// read as a call begins. Events: `vivavoce-state` {state}, `vivavoce-words` {who, text} of each entry that is settled.

import { element } from "./dom.js";
import { Problem } from "./problems.js";
import { DEFAULTS } from "./settings.js";
import { STATES } from "./states.js";
import { Talk } from "./talk.js";

const CHOSEN = ["voice", "instructions", "language", "transport"];

class VivavoceCall extends HTMLElement {
  constructor() {
    super();
    this.talk = null;
    // Ids of entries that have been told of.
    this.told = new Set();
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

  async start() {
    const base = new URL(this.getAttribute("url") ?? ".", this.hasAttribute("url") ? document.baseURI : import.meta.url);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    const settings = { ...DEFAULTS };
    for (const name of CHOSEN) settings[name] = this.getAttribute(name) ?? DEFAULTS[name];
    await this.talk?.hangUp();
    this.talk = new Talk({ base, settings }, { onChange: () => this.show(), onProblem: (problem) => this.problem(problem) });
    try {
      this.talk.key = await this.token();
    } catch {
      this.problem(new Problem("no-token"));
      return;
    }
    await this.talk.start({ spoken: true });
  }

  // A client secret, made anew for every call where the site makes them.
  async token() {
    const from = this.getAttribute("token-url");
    if (!from) return this.getAttribute("token") ?? "";
    const response = await fetch(new URL(from, document.baseURI), { method: "POST" });
    if (!response.ok) throw new Error(response.statusText);
    const text = (await response.text()).trim();
    return text.startsWith("{") ? JSON.parse(text).value : text;
  }

  problem(problem) {
    this.alert.textContent = problem ? `${problem.title}. ${problem.advice}` : "";
  }

  show() {
    const state = this.talk?.state ?? "off";
    const [label] = STATES[state];
    if (this.dataset.state !== state) {
      this.dataset.state = state;
      this.status.textContent = state === "off" ? "" : label;
      this.button.textContent = state === "off" ? (this.getAttribute("label") ?? "Talk") : "End the call";
      this.dispatchEvent(new CustomEvent("vivavoce-state", { detail: { state } }));
    }
    const entries = this.talk?.dialogue.entries.filter(({ who }) => who === "you" || who === "agent") ?? [];
    this.words.replaceChildren(...entries.slice(-2).map(caption));
    for (const { id, who, text, settled } of entries) {
      if (!settled || !text || this.told.has(id)) continue;
      this.told.add(id);
      this.dispatchEvent(new CustomEvent("vivavoce-words", { detail: { who, text: text.trim() } }));
    }
  }
}

function caption({ who, text, settled }) {
  const line = element("p", who, text.trim());
  line.setAttribute("aria-busy", String(!settled));
  return line;
}

customElements.define("vivavoce-call", VivavoceCall);
