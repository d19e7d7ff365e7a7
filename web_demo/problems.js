// What can go wrong, in words for the person in front of the page: what happened, and what to do.

// Begins the ids of events that the server may refuse without anybody being worse off: the answer ended while they were on their way.
export const HARMLESS = "harmless_";

const TEXTS = {
  insecure: [
    "The microphone needs a secure address",
    "Open this page as localhost on the machine that runs the server, or serve it over https. You can type in the meantime.",
  ],
  denied: [
    "The microphone is blocked",
    "Allow it for this page in the address bar, then start again. You can type in the meantime.",
  ],
  "no-microphone": ["No microphone was found", "Plug one in and start again. You can type in the meantime."],
  "microphone-busy": [
    "The microphone can't be opened",
    "Another program may be using it. Close that program and start again. You can type in the meantime.",
  ],
  unreachable: ["The server can't be reached", "Is it still running? Start it with “vivavoce serve”, then reconnect."],
  loading: ["The server is still loading its models", "Reconnect in a moment."],
  refused: ["The server refused the call", "All lines may be busy. Reconnect in a moment."],
  "no-key": ["This server wants an API key", "Enter the key you were given."],
  "wrong-key": ["That API key was not accepted", "Check it and try again."],
  "no-token": ["The call can't be begun", "This site gave no key for it. Try again in a moment."],
  "bad-key": ["That can't be an API key", "Keys have letters, digits and signs like - and _, no spaces."],
  expired: ["The session has expired", "Calls have a time limit. Reconnect to start a new one."],
  closed: ["The call was interrupted", "The connection to the server was lost. Reconnect to go on."],
  stopped: ["The server has been stopped", "Start it again with “vivavoce serve”, then reconnect."],
  ended: ["The call is over", "The agent has ended it. Start again for another."],
  webrtc: ["WebRTC does not get through", "Leave the choice of transport to the page, and it will use the WebSocket."],
  server: ["The server reports a problem", ""],
  browser: ["This browser can't make the call", "Sound needs AudioWorklet: use a current Chrome, Edge, Firefox or Safari."],
};

export class Problem extends Error {
  // `detail` is what the other side said, if anything.
  constructor(kind, detail = "") {
    const [title, advice] = TEXTS[kind];
    super(title);
    this.kind = kind;
    this.title = title;
    this.advice = detail && advice ? `${advice} (${detail})` : detail || advice;
  }
}

// This transport does not get through here, another may; the message says why.
export class Unconnected extends Error {}

// What getUserMedia and AudioContext raise (Media Capture and Streams, 10.2).
export function microphoneProblem(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new Problem("denied");
    case "NotFoundError":
    case "OverconstrainedError":
      return new Problem("no-microphone");
    default:
      return new Problem("microphone-busy", error.message);
  }
}
