// The settings' dialog: shows the choices there are, says what was chosen.

import { byId } from "./dom.js";

export class SettingsForm {
  // onSettings(settings) when the person has changed something.
  constructor(settings, onSettings) {
    this.dialog = byId("settings");
    this.settings = settings;
    for (const field of this.fields()) {
      write(field, settings[field.name]);
      field.addEventListener("change", () => {
        this.settings = { ...this.settings, [field.name]: read(field) };
        onSettings(this.settings);
      });
    }
    for (const name of ["microphone", "loudspeaker", "voice", "language"]) this.offer(name, []);
    byId("open-settings").addEventListener("click", () => this.dialog.showModal());
    byId("close-settings").addEventListener("click", () => this.dialog.close());
    // A click beside the sheet.
    this.dialog.addEventListener("click", ({ target }) => target === this.dialog && this.dialog.close());
  }

  fields() {
    return this.dialog.querySelectorAll("select, textarea, input");
  }

  // What there is to choose from, [{id, label}]; "" is left to the server or the system.
  offer(name, choices) {
    const select = this.dialog.querySelector(`[name="${name}"]`);
    const listed = choices.filter(({ id }) => id && id !== "default");
    select.replaceChildren(new Option("Default", ""), ...listed.map(({ id, label }) => new Option(label, id)));
    const chosen = this.settings[name];
    if (chosen && !listed.some(({ id }) => id === chosen)) select.append(new Option("As chosen before", chosen));
    select.value = chosen;
    select.disabled = select.length === 1;
  }

  offerModel({ voices = [], languages = [] }) {
    const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
    this.offer("voice", voices.map((voice) => ({ id: voice, label: voice })));
    this.offer("language", languages.map((code) => ({ id: code, label: names.of(code) })));
  }
}

function read(field) {
  return field.type === "checkbox" ? field.checked : field.value;
}

function write(field, value) {
  if (field.type === "checkbox") field.checked = value;
  else field.value = value;
}
