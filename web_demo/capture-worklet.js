// The audio thread's side of a tap: mono, resampled to 24 kHz, 16-bit, in chunks of 40 ms with their loudness.

import { Resampler } from "./resampler.js";

const RATE = 24000;
const CHUNK = (RATE * 40) / 1000;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.chunk = new Int16Array(CHUNK);
    this.filled = 0;
    this.energy = 0;
  }

  process([channels]) {
    // A source without channels is a device that is being changed; the sound goes on when it is back.
    if (channels.length === 0) return true;
    for (const sample of this.resampler.push(mono(channels))) this.take(sample);
    return true;
  }

  take(sample) {
    const value = Math.max(-1, Math.min(1, sample));
    this.chunk[this.filled] = Math.round(value * (value < 0 ? 32768 : 32767));
    this.energy += value * value;
    this.filled += 1;
    if (this.filled < CHUNK) return;
    const level = Math.sqrt(this.energy / CHUNK);
    this.port.postMessage({ pcm: this.chunk.buffer, level }, [this.chunk.buffer]);
    this.chunk = new Int16Array(CHUNK);
    this.filled = 0;
    this.energy = 0;
  }
}

function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

registerProcessor("capture", Capture);
