// Any rate of a sound card to the wire's: a streaming polyphase low-pass (windowed sinc, Kaiser). Pure; runs inside the capture worklet.

// Input samples the filter reaches to each side, at equal rates: 1 ms at 48 kHz.
const REACH = 48;
// About 70 dB of stop band (Kaiser and Schafer 1980).
const BETA = 6.76;
const STOP_DB = 70;

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

// Modified Bessel function of the first kind, order zero, by its power series.
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-10; k += 1) {
    term *= (x / 2 / k) ** 2;
    sum += term;
  }
  return sum;
}

// taps[phase][k] weighs the input at floor(position) - half + 1 + k for an output that lies phase/up of a sample after floor(position).
function makeTaps(fromRate, toRate, up, half) {
  const transition = (STOP_DB - 8) / (2.285 * 2 * Math.PI * 2 * half);
  const cutoff = Math.min(1, toRate / fromRate) / 2 - transition / 2;
  return Array.from({ length: up }, (_, phase) => {
    const row = new Float32Array(2 * half);
    let total = 0;
    for (let k = 0; k < row.length; k += 1) {
      const distance = k - half + 1 - phase / up;
      const x = 2 * Math.PI * cutoff * distance;
      const sinc = distance === 0 ? 2 * cutoff : (2 * cutoff * Math.sin(x)) / x;
      const window = bessel(BETA * Math.sqrt(Math.max(0, 1 - (distance / half) ** 2))) / bessel(BETA);
      row[k] = sinc * window;
      total += row[k];
    }
    return row.map((tap) => tap / total);
  });
}

export class Resampler {
  constructor(fromRate, toRate) {
    const divisor = gcd(fromRate, toRate);
    this.up = toRate / divisor;
    this.down = fromRate / divisor;
    this.half = Math.ceil(REACH * Math.max(1, fromRate / toRate) / 2);
    this.taps = fromRate === toRate ? null : makeTaps(fromRate, toRate, this.up, this.half);
    // Input from the first sample that the next output needs: at most the filter's length and one push.
    this.held = new Float32Array(this.half - 1);
    // The next output lies phase/up after held[half - 1].
    this.phase = 0;
  }

  // The outputs that `input` completes; every n samples in give n * to / from out, in the long run.
  push(input) {
    if (!this.taps) return input;
    const samples = new Float32Array(this.held.length + input.length);
    samples.set(this.held);
    samples.set(input, this.held.length);
    const output = [];
    let start = 0;
    while (start + 2 * this.half <= samples.length) {
      const row = this.taps[this.phase];
      let sum = 0;
      for (let k = 0; k < row.length; k += 1) sum += row[k] * samples[start + k];
      output.push(sum);
      this.phase += this.down;
      start += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    this.held = samples.slice(start);
    return Float32Array.from(output);
  }
}
