// The states of a call in words for the person: what it does, and what they may do. Names are those of `Talk.state`.

export const STATES = {
  off: ["Ready", "Press the button and speak. Your voice goes to this server and nowhere else."],
  connecting: ["Connecting", ""],
  listening: ["Listening", "Say something, or type."],
  hearing: ["Hearing you", "Take your time."],
  thinking: ["Thinking", ""],
  speaking: ["Speaking", "Talk over it to interrupt."],
  muted: ["Muted", "The microphone sends silence."],
  typing: ["Connected", "Without a microphone: type a message."],
  suspended: ["Paused", "The browser has stopped the sound. Click anywhere to go on."],
};
