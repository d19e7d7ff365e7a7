// The page: a call, and what shows it.

import { servedModel } from "./api.js";
import { audioDevices } from "./devices.js";
import { Entries } from "./entries.js";
import { keepSettings, loadSettings, withNamedTransport } from "./settings.js";
import { SettingsForm } from "./settings-form.js";
import { Talk } from "./talk.js";
import { transcriptJson, transcriptText } from "./transcript.js";
import { View } from "./view.js";

// The API lies beside the page, also behind a proxy that serves both under a path.
const BASE = new URL(".", location.href);
const KEY = "vivavoce-key";

class Page {
  constructor() {
    const settings = loadSettings();
    this.key = sessionStorage.getItem(KEY) ?? "";
    this.talk = new Talk(
      { base: BASE, getKey: () => this.key, settings: withNamedTransport(settings, location.search), records: true },
      { onChange: () => this.show(), onModel: (name) => this.view.model(name), onProblem: (problem) => this.view.problem(problem) },
    );
    this.entries = new Entries();
    this.view = new View(this.talk.timeline, {
      onCall: () => (this.talk.active ? this.talk.hangUp() : this.begin()),
      onRetry: () => this.talk.start({ spoken: true, resumes: true }),
      onText: (text) => this.talk.say(text),
      onMute: () => this.talk.mute(!this.talk.muted),
      onKey: (entered) => this.useKey(entered),
      onInterrupt: () => this.talk.interrupt(),
      onSave: (kind) => this.save(kind),
    });
    this.form = new SettingsForm(settings, (changed) => {
      keepSettings(changed);
      this.talk.use(withNamedTransport(changed, location.search));
    });
    this.listen();
    this.ask();
    this.show();
  }

  listen() {
    document.addEventListener("visibilitychange", () => document.hidden || this.talk.resume());
    document.addEventListener("pointerdown", () => this.talk.resume());
    window.addEventListener("pagehide", () => this.talk.hangUp());
    navigator.mediaDevices?.addEventListener("devicechange", () => this.listDevices());
    document.getElementById("save-menu").addEventListener("beforetoggle", () => {
      this.view.saveable(this.talk.dialogue.entries.length, this.talk.recording.seconds);
    });
  }

  // A conversation from its beginning.
  async begin() {
    await this.talk.start({ spoken: true });
    await this.listDevices();
  }

  async useKey(key) {
    this.key = key;
    if (!(await this.talk.start({ spoken: true }))) return;
    sessionStorage.setItem(KEY, key);
    await this.ask();
  }

  // What the model that answers can do.
  async ask() {
    const model = await servedModel(BASE, this.key);
    if (!model) return;
    this.view.model(model.id);
    this.form.offerModel(model);
  }

  async listDevices() {
    if (!this.talk.microphone) return;
    const { microphones, loudspeakers } = await audioDevices();
    this.form.offer("microphone", microphones);
    this.form.offer("loudspeaker", loudspeakers);
  }

  save(kind) {
    const { entries } = this.talk.dialogue;
    const [content, type, name] = {
      text: () => [transcriptText(entries), "text/plain", "conversation.txt"],
      json: () => [transcriptJson(entries), "application/json", "conversation.json"],
      sound: () => [this.talk.recording.toWav(), "audio/wav", "conversation.wav"],
    }[kind]();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    // The browser has it by then.
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  show() {
    this.entries.show(this.talk.dialogue.entries);
    this.view.state(this.talk.state);
    this.view.muted(this.talk.muted);
    this.view.route(this.talk.transport?.kind ?? "", this.talk.why);
  }
}

new Page();
