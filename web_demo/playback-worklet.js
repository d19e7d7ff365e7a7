// The loudspeaker's side of the audio thread: a queue of reply audio at 24 kHz, and exactly how much of each response has been played.
//
// In:  {push: {id, samples}}   {end: id} no more audio of it comes   {flush: true} stop now
// Out: {position: {id, played, queued}} every 50 ms while playing and when the queue runs dry
//      {flushed: {id, played}} what had been played of the response that was stopped; id is null where nothing was playing

const REPORT_EVERY = sampleRate / 20;
// A stop fades over 5 ms, or it clicks.
const FADE = sampleRate / 200;
// After running dry within a response, wait for 60 ms before going on: one gap is better than many.
const REFILL = (sampleRate * 60) / 1000;
// A minute: the server is at most ten seconds ahead. What comes beyond it is dropped.
const MOST_QUEUED = sampleRate * 60;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.queued = 0;
    // The response being played, and how many of its samples have been.
    this.id = null;
    this.played = 0;
    this.ended = new Set();
    this.refilling = false;
    this.sinceReport = 0;
    this.port.onmessage = ({ data }) => this.obey(data);
  }

  obey({ push, end, flush }) {
    if (push && this.queued + push.samples.length <= MOST_QUEUED) {
      this.queue.push({ id: push.id, samples: push.samples, next: 0 });
      this.queued += push.samples.length;
    }
    if (end) this.ended.add(end);
    if (flush) this.flush();
  }

  flush() {
    this.port.postMessage({ flushed: { id: this.queued ? this.id ?? this.queue[0].id : null, played: this.queued ? this.played : 0 } });
    const rest = this.queue[0];
    const fading = rest && this.id === rest.id && !this.refilling ? rest.samples.slice(rest.next, rest.next + FADE) : new Float32Array(0);
    this.queue = [];
    this.queued = 0;
    this.id = null;
    this.refilling = false;
    this.ended.clear();
    // The fade is not counted as played: it belongs to nobody.
    if (fading.length) {
      this.queue.push({ id: null, samples: fading.map((sample, i) => sample * (1 - i / fading.length)), next: 0 });
      this.queued = fading.length;
    }
  }

  process(_, [[output]]) {
    const playing = this.queued > 0;
    if (this.refilling && this.refilled()) this.refilling = false;
    let written = 0;
    while (written < output.length && this.queue.length && !this.refilling) written += this.copy(output, written);
    this.sinceReport += written;
    if (playing && !this.queued) this.runDry();
    else if (this.sinceReport >= REPORT_EVERY) this.report();
    return true;
  }

  refilled() {
    return this.queued >= REFILL || this.ended.has(this.id) || this.queue.some((part) => part.id !== this.id);
  }

  // From the head of the queue into output from `at` on; how many samples.
  copy(output, at) {
    const part = this.queue[0];
    if (part.id !== this.id) {
      this.report();
      this.ended.delete(this.id);
      this.id = part.id;
      this.played = 0;
    }
    const count = Math.min(output.length - at, part.samples.length - part.next);
    output.set(part.samples.subarray(part.next, part.next + count), at);
    part.next += count;
    this.queued -= count;
    this.played += count;
    if (part.next === part.samples.length) this.queue.shift();
    return count;
  }

  runDry() {
    this.report();
    if (this.id === null) return;
    if (this.ended.delete(this.id)) this.id = null;
    else this.refilling = true;
  }

  report() {
    if (this.id !== null) this.port.postMessage({ position: { id: this.id, played: this.played, queued: this.queued } });
    this.sinceReport = 0;
  }
}

registerProcessor("playback", Playback);
