// A call over WebRTC: sound both ways as the browser's own, events over a data channel. The server owns playback there: it stops by itself
// when the caller speaks, and knows what was heard.

import { authorised, diagnose, health, iceConfiguration } from "./api.js";
import { useLoudspeaker } from "./devices.js";
import { HARMLESS, Problem, Unconnected } from "./problems.js";
import { makeTap } from "./tap.js";

// From the server's answer to the first event. Beyond it UDP is not getting through, and the WebSocket is tried.
const CONNECT_MS = 3000;
// Addresses found later than this are left out: the server learns ours by our calling it.
const GATHER_MS = 1000;

export class WebRtcTransport {
  kind = "webrtc";
  speaks = true;

  // The listeners of `openTransport`.
  constructor(listeners) {
    this.listeners = listeners;
    this.peer = null;
    this.events = null;
    // What plays the answers, and what listens to them.
    this.player = new Audio();
    this.player.autoplay = true;
    this.context = null;
    // The server's name for this call, and the headers that may end it.
    this.call = null;
    this.headers = {};
    // Whether the call has come about, and whether the server has said that it ends.
    this.opened = false;
    this.expired = false;
  }

  // Resolves when the server has greeted us; rejects with a Problem, or with Unconnected where another transport may do.
  async open({ base, key, track, loudspeaker }) {
    if (!window.RTCPeerConnection) throw new Unconnected("this browser has no WebRTC");
    this.base = base;
    this.key = key;
    this.headers = authorised(key);
    try {
      await this.useLoudspeaker(loudspeaker);
      this.peer = new RTCPeerConnection(await iceConfiguration(base, key));
      this.peer.ontrack = ({ streams, track: heard }) => this.listen(streams[0] ?? new MediaStream([heard]));
      this.peer.addTrack(track, new MediaStream([track]));
      const greeted = this.openEvents();
      await this.offer();
      await within(CONNECT_MS, greeted, "WebRTC did not connect; UDP may be blocked");
      this.opened = true;
      this.peer.onconnectionstatechange = () => this.peer?.connectionState === "failed" && this.ended("closed");
    } catch (error) {
      await this.giveUp();
      throw error;
    }
  }

  // Resolves with the first event.
  openEvents() {
    this.events = this.peer.createDataChannel("oai-events");
    return new Promise((resolve) => {
      this.events.onmessage = ({ data }) => {
        this.take(JSON.parse(data));
        resolve();
      };
      this.events.onclose = () => this.ended(this.expired ? "expired" : "ended");
    });
  }

  async offer() {
    await this.peer.setLocalDescription();
    await gathered(this.peer);
    const request = { method: "POST", headers: { ...this.headers, "Content-Type": "application/sdp" }, body: this.peer.localDescription.sdp };
    let response;
    try {
      response = await fetch(new URL("v1/realtime/calls", this.base), request);
    } catch {
      throw await diagnose(this.base, this.key);
    }
    if (!response.ok) throw await this.refusal(response);
    this.call = response.headers.get("Location")?.split("/").pop();
    await this.peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }

  // Who may not call, or comes when all lines are busy, need not try another way.
  async refusal(response) {
    const { error } = await response.json().catch(() => ({}));
    if (error?.code === "no_way_to_server") return new Unconnected("no UDP address of the server can be reached");
    const refused = response.status === 401 || response.status === 403 || response.status === 503;
    return refused ? diagnose(this.base, this.key) : new Unconnected("the server takes no calls over WebRTC");
  }

  async listen(stream) {
    this.player.srcObject = stream;
    this.context = new AudioContext();
    const source = this.context.createMediaStreamSource(stream);
    source.connect(await makeTap(this.context, this.listeners.onSound));
    await this.resume();
  }

  take(event) {
    if (event.type === "error" && event.error.code === "session_expired") this.expired = true;
    this.listeners.onEvent(event, this);
  }

  // The answer is cut; the server says where.
  async interrupt() {
    this.send({ type: "response.cancel", event_id: `${HARMLESS}cancel` });
    this.send({ type: "output_audio_buffer.clear", event_id: `${HARMLESS}clear` });
  }

  send(event) {
    if (this.events?.readyState !== "open") return;
    const text = JSON.stringify(event);
    if (new Blob([text]).size <= this.peer.sctp.maxMessageSize) {
      this.events.send(text);
    } else {
      const message = "This is more than a call over WebRTC takes at once.";
      this.listeners.onEvent({ type: "error", error: { code: "event_too_large", event_id: event.event_id, message } }, this);
    }
  }

  // The microphone's sound goes by its track.
  sendSound() {}

  async useTrack(track) {
    await this.peer?.getSenders().find((sender) => sender.track?.kind === "audio")?.replaceTrack(track);
  }

  async useLoudspeaker(deviceId) {
    await useLoudspeaker(this.player, deviceId);
  }

  async resume() {
    try {
      await Promise.all([this.player.srcObject && this.player.play(), this.context?.resume()]);
      this.listeners.onSuspended(false);
    } catch (error) {
      if (error.name === "NotAllowedError") this.listeners.onSuspended(true);
    }
  }

  // The connection has ended, and not by us: a network that is gone tells nothing, a server closes what it ends.
  async ended(kind) {
    if (!this.opened || !this.peer) return;
    await this.close();
    const status = kind === "closed" ? "ok" : await health(this.base);
    if (status === "ok") this.listeners.onClosed(new Problem(kind));
    else this.listeners.onClosed(new Problem(status === "engine_restarting" ? "closed" : "stopped"));
  }

  // The server keeps a place for the call until it has been told, or has waited in vain.
  async giveUp() {
    const { base, call, headers } = this;
    this.close();
    if (!call) return;
    const address = new URL(`v1/realtime/calls/${call}/hangup`, base);
    await fetch(address, { method: "POST", headers, keepalive: true }).catch(() => {});
  }

  close() {
    const { peer, events, context } = this;
    this.peer = this.events = this.context = null;
    if (events) events.onclose = events.onmessage = null;
    if (peer) {
      peer.ontrack = peer.onconnectionstatechange = null;
      peer.close();
    }
    this.player.srcObject = null;
    return context?.close();
  }
}

// Until the browser knows its addresses, or long enough.
function gathered(peer) {
  return new Promise((resolve) => {
    const look = () => peer.iceGatheringState === "complete" && resolve();
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, GATHER_MS);
    look();
  });
}

function within(ms, promise, reason) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Unconnected(reason)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
