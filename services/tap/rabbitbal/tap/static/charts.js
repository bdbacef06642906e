// Two charts of the last five minutes, drawn by hand on canvas: one path for each series, twice a second at most.

import { clock, count, took } from "./text.js";

const SECONDS = 300;
const LEFT = 54, RIGHT = 8, TOP = 10, BOTTOM = 20;
const JOINED = 4; // seconds without requests that a line crosses

/** Figures by second, bounded: a ring of rows. */
export class History {
  constructor() {
    this.rows = new Array(SECONDS).fill(null);
    this.last = 0;
  }

  take(series) {
    series.at.forEach((at, i) => {
      const [p50, p95, p99] = series.total[i];
      this.rows[at % SECONDS] = { at, rate: series.requests[i], failed: series.failed[i], p50, p95, p99 };
      this.last = Math.max(this.last, at);
    });
  }

  /** Begins anew: another tap's clock may be behind. */
  clear() {
    this.rows.fill(null);
    this.last = 0;
  }

  at(second) {
    const row = this.rows[second % SECONDS];
    return row?.at === second ? row : null;
  }
}

export class Chart {
  /** `scale` is "linear" or "log"; `series` name rows' members, drawn in that order in their legend's colours. */
  constructor(canvas, legend, history, { scale, series, filled = [], show }) {
    Object.assign(this, { canvas, history, scale, series, filled, show });
    this.keys = [...legend.children];
    this.pointed = null;
    this.top = scale === "log" ? 100 : 10;
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointermove", event => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.point(null));
  }

  point(x) {
    const inside = x != null && x >= LEFT && x <= this.canvas.clientWidth - RIGHT;
    const span = this.canvas.clientWidth - LEFT - RIGHT;
    this.pointed = inside ? this.first + Math.round(((x - LEFT) / span) * (SECONDS - 2)) : null;
    this.draw();
  }

  get first() {
    // The newest second is not over, and not shown.
    return this.history.last - SECONDS + 1;
  }

  draw() {
    const { canvas, history, series } = this;
    const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const frame = { pen, width, height, ink: style.color, line: style.borderTopColor, font: style.fontFamily };
    this.bound();
    this.grid(frame);
    series.forEach((name, i) => this.line(frame, name, getComputedStyle(this.keys[i]).color, this.filled.includes(name)));
    this.legend(frame);
  }

  /** The scale's end moves up at once and down only when there is much room, so that it does not flicker. */
  bound() {
    let most = 0, least = Infinity;
    for (const row of this.history.rows) {
      if (!row || row.at < this.first) continue;
      for (const name of this.series) {
        const value = row[name];
        if (value == null) continue;
        most = Math.max(most, value);
        if (value > 0) least = Math.min(least, value);
      }
    }
    if (this.scale === "log") {
      this.base = 10 ** Math.floor(Math.log10(Math.min(least, 10)));
      this.top = Math.max(10 ** Math.ceil(Math.log10(Math.max(most, 1) * 1.02)), this.base * 100);
      return;
    }
    if (most > this.top || most < this.top * 0.4) this.top = nice(Math.max(most * 1.1, 10));
  }

  x(second, width) {
    return LEFT + ((second - this.first) / (SECONDS - 2)) * (width - LEFT - RIGHT);
  }

  y(value, height) {
    const room = height - TOP - BOTTOM;
    const share = this.scale === "log"
      ? Math.log(Math.max(value, this.base) / this.base) / Math.log(this.top / this.base)
      : value / this.top;
    return TOP + room * (1 - Math.min(share, 1));
  }

  grid({ pen, width, height, ink, line, font }) {
    pen.lineWidth = 1;
    pen.font = `11px ${font}`;
    pen.fillStyle = ink;
    pen.strokeStyle = line;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const value of this.marks()) {
      const y = Math.round(this.y(value, height)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT, y);
      pen.lineTo(width - RIGHT, y);
      pen.stroke();
      pen.fillText(this.scale === "log" ? took(value).replace(/\.0+ /, " ") : count(value), LEFT - 7, y);
    }
    pen.textBaseline = "alphabetic";
    for (let minutes = 5; minutes >= 0; minutes--) {
      const x = this.x(this.history.last - 1 - minutes * 60, width);
      pen.textAlign = minutes === 5 ? "left" : minutes === 0 ? "right" : "center";
      if (minutes % 2 && width < 420) continue;
      pen.fillText(minutes === 0 ? "now" : `−${minutes} min`, Math.max(x, LEFT), height - 4);
    }
  }

  marks() {
    if (this.scale !== "log") return [0, this.top / 2, this.top];
    const found = [];
    for (let value = this.base; value <= this.top * 1.01; value *= 10) found.push(value);
    return found;
  }

  line({ pen, width, height }, name, colour, filled) {
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.beginPath();
    let before = null, began = null;
    for (let second = this.first; second < this.history.last; second++) {
      const value = this.history.at(second)?.[name];
      if (value == null || (name === "failed" && !value && !this.history.at(second - 1)?.[name])) continue;
      const x = this.x(second, width), y = this.y(value, height);
      if (before == null || second - before > JOINED) {
        pen.moveTo(x - 0.75, y);
      }
      pen.lineTo(x, y);
      began ??= x;
      before = second;
    }
    pen.stroke();
    if (!filled || before == null) return;
    pen.lineTo(this.x(before, width), this.y(0, height));
    pen.lineTo(began, this.y(0, height));
    pen.globalAlpha = 0.12;
    pen.fill();
    pen.globalAlpha = 1;
  }

  /** The values of the second under the pointer, else of the newest whole one. */
  legend({ pen, width, height, ink }) {
    const second = this.pointed ?? this.history.last - 1;
    const row = this.history.at(second);
    this.series.forEach((name, i) => {
      const text = row?.[name] == null ? "–" : this.show(row[name]);
      const shown = this.keys[i].lastElementChild;
      if (shown.textContent !== text) shown.textContent = text;
    });
    if (this.pointed == null) return;
    const x = Math.round(this.x(second, width)) + 0.5;
    pen.strokeStyle = pen.fillStyle = ink;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x, TOP);
    pen.lineTo(x, height - BOTTOM);
    pen.stroke();
    pen.textAlign = x > width / 2 ? "right" : "left";
    pen.fillText(clock(second * 1000), x + (x > width / 2 ? -6 : 6), TOP + 8);
  }

  /** For those who do not see it. */
  describe() {
    const row = this.history.at(this.history.last - 1) ?? {};
    const told = this.series.map(name => `${name} ${row[name] == null ? "none" : this.show(row[name])}`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.title ??= this.canvas.getAttribute("aria-label")}; now: ${told}`);
  }
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].find(step => step * power >= value) * power;
}
