// How a call goes over the network: WebRTC where it gets through, else the WebSocket.
//
// Both transports are used in the same way: `open` once, `send(event)`, `sendSound(pcm)` with each chunk of the microphone, `interrupt()`,
// `useTrack(track)`, `useLoudspeaker(id)`, `resume()` after the browser has stopped sound, `close()`. They tell their listeners
//
//   onEvent(event, transport)              an event of the server, but for sound
//   onQueued(id, samples)                  sound of a response has come, at 24 kHz; where the server owns playback it never does
//   onPosition(id, playedMs, queuedMs)     how far a response has been heard; there, `output_audio_buffer.*` events say that
//   onCut(id, playedMs)                    its sound was stopped; there too
//   onSound(pcm, level)                    what sounds, every 40 ms
//   onSuspended(bool)                      the browser has stopped sound, or lets it go on
//   onClosed(problem)                      once, when the server or the network has ended it

import { Problem, Unconnected } from "./problems.js";
import { WebRtcTransport } from "./webrtc.js";
import { WebSocketTransport } from "./websocket.js";

// Opens a call and returns {transport, why}; `why` says, where the WebSocket had to do, what was wrong with WebRTC. `wanted` is "webrtc" or
// "websocket", anything else leaves it to us. Without a microphone there is no sound to be held up behind lost packets: typing goes over the
// WebSocket. Rejects with a Problem.
export async function openTransport(wanted, options, listeners) {
  let why = "";
  if (wanted === "webrtc" || (wanted !== "websocket" && options.track)) {
    const transport = new WebRtcTransport(listeners);
    try {
      if (!options.track) throw new Unconnected("there is no microphone");
      await transport.open(options);
      return { transport, why };
    } catch (error) {
      if (!(error instanceof Unconnected)) throw error;
      if (wanted === "webrtc") throw new Problem("webrtc", error.message);
      why = error.message;
    }
  }
  const transport = new WebSocketTransport(listeners);
  await transport.open(options);
  return { transport, why };
}
