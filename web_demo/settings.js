// What the person has chosen, kept by the browser, and the session that follows from it.

import { CITY_TIME } from "./tools.js";

const KEPT_AS = "vivavoce-settings";

export const DEFAULTS = {
  // "" is whatever the server or the system takes.
  voice: "",
  language: "",
  instructions: "",
  microphone: "",
  loudspeaker: "",
  // Whether the model may ask for the time in a city.
  tool: false,
  // "auto", "webrtc" or "websocket"; the page's address may name one (?transport=).
  transport: "auto",
};

// Of what was kept only what is known and of the right type: it may be older than this page, or by another hand.
export function loadSettings() {
  const settings = { ...DEFAULTS };
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT_AS)) ?? {};
    for (const [name, value] of Object.entries(DEFAULTS)) if (typeof kept[name] === typeof value) settings[name] = kept[name];
  } catch {
    // Nothing was kept, or the browser keeps nothing.
  }
  return settings;
}

// The settings with the transport that the page's address names, if it does.
export function withNamedTransport(settings, search) {
  const named = new URLSearchParams(search).get("transport");
  return ["webrtc", "websocket"].includes(named) ? { ...settings, transport: named } : settings;
}

export function keepSettings(settings) {
  try {
    localStorage.setItem(KEPT_AS, JSON.stringify(settings));
  } catch {
    // The choice holds for this visit.
  }
}

// The fields of `session.update`. What is "" is left to the server, but for `before`, the settings that the session had until now.
export function sessionOf(settings, speaks, before = DEFAULTS) {
  const format = { type: "audio/pcm", rate: 24000 };
  const chosen = (name) => settings[name] || before[name];
  const input = {
    format,
    transcription: { model: "whisper-1", ...(settings.language && { language: settings.language }) },
    turn_detection: { type: "semantic_vad", create_response: true, interrupt_response: true },
  };
  return {
    type: "realtime",
    output_modalities: [speaks ? "audio" : "text"],
    ...(chosen("instructions") && { instructions: settings.instructions }),
    audio: { input, output: { format, ...(settings.voice && { voice: settings.voice }) } },
    ...((settings.tool || before.tool) && { tools: settings.tool ? [CITY_TIME] : [] }),
    vivavoce: { playback: true, ledger: true, tools: true },
  };
}
