// Draws a timeline: the caller upwards, the answers downwards, and what happened between them, as it goes by.

// A bar stands for 120 ms and takes 3 px; the canvas's width decides how far back it reaches.
const BAR_MS = 120;
const BAR_PX = 3;
// Loudness shown as nothing and as everything, in dB of full scale.
const QUIET_DB = -52;
const LOUD_DB = -14;
const COLOURS = { you: "--teal", agent: "--clay", soft: "--soft", wait: "--line", cut: "--warn", paper: "--paper" };

// 0 to 1 of an RMS of 0 to 1.
export function loudness(rms) {
  const db = 20 * Math.log10(Math.max(rms, 1e-6));
  return Math.min(1, Math.max(0, (db - QUIET_DB) / (LOUD_DB - QUIET_DB)));
}

export class Waveform {
  constructor(canvas, timeline) {
    this.canvas = canvas;
    this.timeline = timeline;
    this.now = 0;
    this.recolour();
  }

  // After the appearance has changed.
  recolour() {
    const { style } = this.canvas;
    this.colours = {};
    for (const [name, property] of Object.entries(COLOURS)) {
      style.color = `var(${property})`;
      this.colours[name] = getComputedStyle(this.canvas).color;
    }
    style.color = "";
    this.draw();
  }

  // As of `now` (ms); without it as of before.
  draw(now = this.now) {
    this.now = now;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const middle = Math.round(height / 2);
    const place = (at) => width - ((now - at) * BAR_PX) / BAR_MS;
    pen.fillStyle = this.colours.wait;
    pen.fillRect(0, middle, width, 1);
    this.drawWaits(pen, place, height);
    this.drawSide(pen, place, "you", middle, -1);
    this.drawSide(pen, place, "agent", middle + 1, 1);
    this.drawMarks(pen, place, middle, height);
    this.labelWaits(pen, place, height);
  }

  drawSide(pen, place, who, from, direction) {
    const bars = new Map();
    for (const { at, level } of this.timeline.levels[who]) {
      const bar = Math.floor(at / BAR_MS);
      bars.set(bar, Math.max(bars.get(bar) ?? 0, loudness(level)));
    }
    pen.fillStyle = this.colours[who];
    pen.beginPath();
    for (const [bar, level] of bars) {
      const tall = level * (from - 6);
      if (tall >= 1) pen.roundRect(place(bar * BAR_MS), direction < 0 ? from - tall : from, BAR_PX - 1, tall, 1);
    }
    pen.fill();
  }

  // From the caller's end to the answer's first sound.
  drawWaits(pen, place, height) {
    pen.fillStyle = this.colours.wait;
    for (const { at, waitedMs } of this.waits()) pen.fillRect(place(at - waitedMs), 0, place(at) - place(at - waitedMs), height);
  }

  // How long they were, over whatever sounded before them.
  labelWaits(pen, place, height) {
    pen.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
    pen.textAlign = "right";
    for (const { at, waitedMs } of this.waits()) {
      const [text, right] = [`${(waitedMs / 1000).toFixed(2)} s`, place(at - waitedMs) - 4];
      pen.fillStyle = this.colours.paper;
      pen.fillRect(right - pen.measureText(text).width - 2, height - 14, pen.measureText(text).width + 4, 14);
      pen.fillStyle = this.colours.soft;
      pen.fillText(text, right, height - 3);
    }
  }

  waits() {
    return this.timeline.marks.filter(({ kind, waitedMs }) => kind === "answered" && waitedMs !== null);
  }

  drawMarks(pen, place, middle, height) {
    for (const { at, kind, fate } of this.timeline.marks) {
      const x = place(at);
      if (kind === "prepared") this.drawDiamond(pen, x, middle, fate);
      if (kind === "called") this.drawSquare(pen, x, middle);
      if (kind === "cut") {
        pen.fillStyle = this.colours.cut;
        pen.fillRect(x - 1, middle - 6, 2, height - middle + 6);
      }
    }
  }

  // An answer that was prepared in a pause: full where it was taken.
  drawDiamond(pen, x, y, fate) {
    pen.beginPath();
    for (const [dx, dy] of [[0, -5], [5, 0], [0, 5], [-5, 0]]) pen.lineTo(x + dx, y + dy);
    pen.closePath();
    pen.fillStyle = fate === "kept" ? this.colours.agent : this.colours.paper;
    pen.fill();
    pen.lineWidth = 1.4;
    pen.strokeStyle = fate === "dropped" ? this.colours.soft : this.colours.agent;
    pen.stroke();
  }

  drawSquare(pen, x, y) {
    pen.fillStyle = this.colours.soft;
    pen.fillRect(x - 4, y - 4, 8, 8);
  }
}
