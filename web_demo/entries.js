// The transcript on the page: an item for each entry of the dialogue, changed in place, so that screen readers hear each once it is settled.

import { byId, element, setText } from "./dom.js";

const NAMES = { you: "You", agent: "Vivavoce", tool: "Function", note: "" };
// As far from the end as this counts as being at the end.
const NEAR_PX = 48;

export class Entries {
  constructor() {
    // Entry id -> its elements.
    this.rows = new Map();
    // Whether the newest words are in sight and should stay so.
    this.pinned = true;
    byId("scroll").addEventListener("scroll", ({ target }) => {
      this.pinned = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_PX;
    });
    new ResizeObserver(() => this.follow()).observe(byId("scroll"));
  }

  show(entries) {
    byId("empty").hidden = entries.length > 0;
    const gone = new Set(this.rows.keys());
    for (const entry of entries) {
      gone.delete(entry.id);
      this.showEntry(entry);
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

  showEntry(entry) {
    const row = this.rows.get(entry.id) ?? this.add(entry);
    setText(row.heard, entry.ahead || entry.unheard ? entry.text.trimStart() : entry.text.trim());
    setText(row.ahead, entry.ahead);
    setText(row.unheard, entry.unheard.trimEnd());
    setText(row.called, entry.who === "tool" ? `${entry.name}(${entry.argumentsText})` : "");
    row.text.classList.toggle("waiting", !entry.text && !entry.ahead && entry.who !== "tool");
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

  add({ id, who }) {
    const item = element("li", "entry");
    item.dataset.who = who;
    const text = element("p", "text");
    const row = {
      item,
      text,
      called: element("code", "called"),
      heard: element("span", "heard"),
      ahead: element("span", "ahead"),
      unheard: element("s", "unheard"),
      note: element("p", "note", "Interrupted here"),
      timing: element("details", "timing"),
      latency: null,
    };
    row.timing.hidden = true;
    text.append(row.called, row.heard, row.ahead, row.unheard);
    if (NAMES[who]) item.append(element("p", "who", NAMES[who]));
    item.append(text, row.note, row.timing);
    byId("entries").append(item);
    this.rows.set(id, row);
    return row;
  }
}

// "0.62 s" beside a bar of its stages; opened, the stages one after the other, where the server told them.
function timing({ ms, stages, prepared }) {
  const summary = element("summary", "", `${(ms / 1000).toFixed(2)} s`);
  summary.title = stages.length ? "From your last sound to the first sound of the answer" : "From the end of your turn to the first sound played";
  if (!stages.length) return [summary];
  const whole = element("span", "whole");
  const list = element("dl", "stages");
  let reached = 0;
  for (const [name, part] of stages) {
    const share = part / Math.max(ms, 1);
    const [piece, bar] = [element("span", "piece"), element("span", "stage-bar")];
    piece.style.setProperty("--share", share.toFixed(3));
    bar.style.setProperty("--share", share.toFixed(3));
    bar.style.setProperty("--start", (reached / Math.max(ms, 1)).toFixed(3));
    reached += part;
    whole.append(piece);
    const cell = element("dd", "", `${Math.round(part)} ms`);
    cell.append(bar);
    list.append(element("dt", "", name.replaceAll("_", " ")), cell);
  }
  whole.style.setProperty("--seconds", Math.min(ms / 1000, 1.5).toFixed(3));
  summary.prepend(whole);
  return prepared ? [summary, list, element("p", "soft", "The answer had been prepared while you paused.")] : [summary, list];
}
