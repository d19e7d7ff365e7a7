// What was said, as a stereo recording: the caller left, the answers right, in the time they sounded here. Pure; kept in memory only.

const RATE = 24000;
// Ten minutes, 58 MB; older sound is dropped.
const MOST_SAMPLES = RATE * 600;
// A side that is so far behind has stood still (another device, sound stopped by the browser); less is a busy page.
const GAP_SAMPLES = RATE;
const HEADER_BYTES = 44;

export class Recording {
  constructor() {
    this.sides = { you: newSide(), agent: newSide() };
    // When the first chunk began (ms).
    this.origin = null;
  }

  // A chunk that has ended at `now` (ms): an ArrayBuffer of PCM16.
  push(who, buffer, now) {
    const pcm = new Int16Array(buffer);
    this.origin ??= now - (pcm.length * 1000) / RATE;
    const side = this.sides[who];
    const at = Math.round(((now - this.origin) * RATE) / 1000) - pcm.length;
    if (!side.chunks.length || at - side.end > GAP_SAMPLES) side.end = Math.max(side.end, at);
    side.chunks.push({ at: side.end, pcm });
    side.end += pcm.length;
    while (side.end - side.chunks[0].at > MOST_SAMPLES) side.chunks.shift();
  }

  get seconds() {
    return Math.max(0, this.end - this.start) / RATE;
  }

  get start() {
    const starts = Object.values(this.sides).flatMap(({ chunks }) => (chunks.length ? [chunks[0].at] : []));
    return Math.max(starts.length ? Math.min(...starts) : 0, this.end - MOST_SAMPLES);
  }

  get end() {
    return Math.max(this.sides.you.end, this.sides.agent.end);
  }

  // A WAV file.
  toWav() {
    const { start } = this;
    const frames = Math.max(0, this.end - start);
    const file = new ArrayBuffer(HEADER_BYTES + frames * 4);
    writeHeader(new DataView(file), frames);
    const samples = new Int16Array(file, HEADER_BYTES);
    for (const [channel, who] of ["you", "agent"].entries())
      for (const { at, pcm } of this.sides[who].chunks)
        for (let i = Math.max(0, start - at); i < pcm.length; i += 1) samples[(at - start + i) * 2 + channel] = pcm[i];
    return file;
  }
}

function newSide() {
  // {at, pcm} in order, and where the next chunk goes; in samples since the origin.
  return { chunks: [], end: 0 };
}

function writeHeader(view, frames) {
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + frames * 4, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 2, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * 4, true);
  view.setUint16(32, 4, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, frames * 4, true);
}
