// Draws the charts of a page: points and lines on a canvas, each with a word on the point that is
// pointed at. A figure names its data (columns of numbers, of which one tells the series) and says
// what goes on which axis; see jaxmat/report/charts.py. All text is set as text, never as HTML.
"use strict";

(() => {
  const NEAR = 24; // pixels from a point within which it is pointed at
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = (number) => `--s${number % 7}`; // of a series, as page.css has it
  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  function format(value) {
    if (value === null) return "not known";
    const size = Math.abs(value);
    return (size !== 0 && (size < 1e-4 || size >= 1e7)
      ? value.toExponential(3) : String(Number(value.toPrecision(4)))).replace("-", "−");
  }

  // Round numbers between two others, about as many as asked for.
  function linearTicks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((times) => times * power >= raw) * power;
    const ticks = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) {
      ticks.push([i * step, String(Number((i * step).toPrecision(10))).replace("-", "−")]);
    }
    return ticks;
  }

  // Powers of ten with 2 and 5, or finer steps where the axis is short.
  function logTicks(low, high, count) {
    if (high < 4 * low) return linearTicks(low, high, count);
    const decades = Math.log10(high / low), every = Math.max(1, Math.ceil(decades / count));
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
      const finer = decades < 0.9 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 2, 5];
      for (const times of decades < 3 ? finer : power % every ? [] : [1]) {
        const value = times * 10 ** power;
        if (value >= low && value <= high) ticks.push([value, String(Number(value.toPrecision(10)))]);
      }
    }
    return ticks;
  }

  // The beginning of a text, as much as there is room for.
  function fitting(c, text, room) {
    if (c.measureText(text).width <= room) return text;
    let length = text.length;
    while (length && c.measureText(`${text.slice(0, length)}…`).width > room) length--;
    return `${text.slice(0, length)}…`;
  }

  class Axis {
    constructor(spec, values, more) {
      this.spec = spec;
      let low = Infinity, high = -Infinity;
      for (const value of [...more, ...(spec.range || [])]) {
        if (!spec.log || value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
      }
      for (const column of values) {
        for (const value of column) {
          if (value === null || (spec.log && value <= 0)) continue;
          if (value < low) low = value;
          if (value > high) high = value;
        }
      }
      if (low > high) [low, high] = spec.log ? [1, 10] : [0, 1];
      const scale = spec.log ? Math.log10 : (value) => value;
      const margin = 0.05 * (scale(high) - scale(low)) || 0.05 * Math.abs(scale(high)) || 0.5;
      this.set(scale(low) - margin, scale(high) + margin);
    }
    set(low, high) { this.low = low; this.high = high; }
    place(from, to) {
      const { low, high } = this, slope = (to - from) / (high - low);
      return this.spec.log
        ? (value) => (value > 0 ? from + (Math.log10(value) - low) * slope : NaN)
        : (value) => from + (value - low) * slope;
    }
    ticks(count) {
      return this.spec.log
        ? logTicks(10 ** this.low, 10 ** this.high, count) : linearTicks(this.low, this.high, count);
    }
  }

  class Chart {
    constructor(figure) {
      this.spec = JSON.parse(figure.querySelector("script").textContent);
      this.data = read(this.spec.data);
      this.hidden = new Set();
      this.pointed = -1;
      this.box = figure.querySelector(".plot");
      this.canvas = this.box.appendChild(document.createElement("canvas"));
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", figure.querySelector("figcaption").textContent);
      this.tip = this.box.appendChild(document.createElement("div"));
      this.tip.className = "tip";
      this.tip.hidden = true;
      this.legend(figure.querySelector(".legend"));
      this.canvas.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
      this.canvas.addEventListener("pointerdown", (event) => this.point(this.nearest(event)));
      // A finger leaves when it is lifted; what it touched stays until it touches something else.
      this.canvas.addEventListener("pointerleave", (event) => {
        if (event.pointerType === "mouse") this.point(-1);
      });
      document.addEventListener("pointerdown", (event) => {
        if (event.target !== this.canvas) this.point(-1);
      });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
      this.canvas.addEventListener("keydown", (event) => this.step(event));
      this.draw();
      new ResizeObserver(() => requestAnimationFrame(() => {
        if (this.box.clientWidth !== this.width) this.draw(); // drawing changes the height itself
      })).observe(this.box);
    }

    legend(place) {
      const told = this.data.series.length > 1 || this.spec.legend.length; // one alone needs no name
      (told ? this.data.series : []).forEach((series, number) => {
        const button = place.appendChild(document.createElement("button"));
        const mark = button.appendChild(document.createElement("span"));
        mark.className = "mark";
        mark.style.background = `var(${color(number)})`;
        button.append(this.spec.legend[number] || series);
        button.setAttribute("aria-pressed", "true");
        button.addEventListener("click", () => {
          if (!this.hidden.delete(number)) this.hidden.add(number);
          button.setAttribute("aria-pressed", String(!this.hidden.has(number)));
          this.point(-1);
          this.draw();
        });
      });
      for (const line of this.spec.references) {
        if (!line.name) continue;
        const entry = place.appendChild(document.createElement("span"));
        const dash = entry.appendChild(document.createElement("span"));
        dash.className = "dash";
        entry.append(line.name);
      }
    }

    draw() {
      const { spec, data } = this, width = this.width = this.box.clientWidth;
      if (!width) return; // folded away; drawn when it is opened
      const height = spec.square ? Math.min(width, 460) : Math.min(Math.max(0.6 * width, 260), 380);
      const ratio = window.devicePixelRatio || 1, canvas = this.canvas;
      this.box.style.height = `${height}px`;
      canvas.width = width * ratio; canvas.height = height * ratio;
      canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
      const c = canvas.getContext("2d");
      c.scale(ratio, ratio);
      c.font = "12px system-ui, sans-serif";
      const ends = spec.low ? [data.columns[spec.low], data.columns[spec.high]] : [];
      const few = data.group.length <= 150;
      const along = (name) => spec.references.filter((line) => name in line).map((line) => line[name]);
      const x = new Axis(spec.x, [data.columns[spec.x.column]], along("x"));
      const y = new Axis(spec.y, [data.columns[spec.y.column], ...(few ? ends : [])], along("y"));
      if (spec.square) {
        const low = Math.min(x.low, y.low), high = Math.max(x.high, y.high);
        x.set(low, high); y.set(low, high);
      }
      const yTicks = y.ticks(Math.max(4, Math.round(height / 45)));
      const room = Math.max(...yTicks.map(([, text]) => c.measureText(text).width), 0);
      const left = room + 34, right = width - 12, top = 10, bottom = height - 42;
      const px = x.place(left, right), py = y.place(bottom, top);
      c.strokeStyle = style("--grid"); c.fillStyle = style("--soft"); c.lineWidth = 1;
      c.textAlign = "right"; c.textBaseline = "middle";
      for (const [value, text] of yTicks) {
        const at = Math.round(py(value)) + 0.5;
        c.beginPath(); c.moveTo(left, at); c.lineTo(right, at); c.stroke();
        c.fillText(text, left - 6, at);
      }
      c.textAlign = "center"; c.textBaseline = "top";
      let free = -Infinity;
      for (const [value, text] of x.ticks(Math.max(4, Math.round(width / 75)))) {
        const at = Math.round(px(value)) + 0.5, half = c.measureText(text).width / 2 + 4;
        c.beginPath(); c.moveTo(at, top); c.lineTo(at, bottom); c.stroke();
        if (at - half > free) { c.fillText(text, at, bottom + 6); free = at + half; }
      }
      c.strokeStyle = style("--frame"); c.strokeRect(left, top, right - left, bottom - top);
      c.fillText(fitting(c, spec.x.label, right - left), (left + right) / 2, bottom + 24);
      c.save(); c.translate(12, (top + bottom) / 2); c.rotate(-Math.PI / 2);
      c.fillText(fitting(c, spec.y.label, bottom - top), 0, -6); c.restore();
      c.save(); c.beginPath(); c.rect(left, top, right - left, bottom - top); c.clip();
      this.references(c, x, y, px, py, [left, right, top, bottom]);
      this.points(c, px, py, few);
      c.restore();
      this.scene = { px, py, ends };
      this.image = null;
      this.pointed = -1;
      this.tip.hidden = true;
    }

    references(c, x, y, px, py, [left, right, top, bottom]) {
      c.strokeStyle = style("--dash"); c.setLineDash([5, 4]);
      for (const line of this.spec.references) {
        c.beginPath();
        if ("y" in line) { c.moveTo(left, py(line.y)); c.lineTo(right, py(line.y)); }
        else if ("x" in line) { c.moveTo(px(line.x), top); c.lineTo(px(line.x), bottom); }
        else { c.moveTo(left, bottom); c.lineTo(right, top); } // equal, of axes with equal limits
        c.stroke();
      }
      c.setLineDash([]);
    }

    points(c, px, py, few) {
      const { spec, data } = this, xs = data.columns[spec.x.column], ys = data.columns[spec.y.column];
      const n = data.group.length, radius = n > 2000 ? 2 : n > 300 ? 3 : 4;
      this.at = [new Float64Array(n).fill(NaN), new Float64Array(n).fill(NaN)];
      for (let number = data.series.length - 1; number >= 0; number--) { // the first lies on top
        if (this.hidden.has(number)) continue;
        c.strokeStyle = c.fillStyle = style(color(number));
        c.lineWidth = 1.5;
        c.globalAlpha = spec.line ? 1 : n > 2000 ? 0.35 : 0.6;
        const low = few && spec.low && data.columns[spec.low], high = low && data.columns[spec.high];
        let drawing = false;
        if (spec.line) c.beginPath();
        for (let i = 0; i < n; i++) {
          if (data.group[i] !== number) continue;
          const known = xs[i] !== null && ys[i] !== null;
          const a = known ? px(xs[i]) : NaN, b = known ? py(ys[i]) : NaN;
          if (!(Number.isFinite(a) && Number.isFinite(b))) { drawing = false; continue; }
          this.at[0][i] = a; this.at[1][i] = b;
          if (spec.line) { if (drawing) c.lineTo(a, b); else c.moveTo(a, b); drawing = true; }
          if (low && low[i] !== null && high[i] !== null) this.bar(c, a, py(low[i]), py(high[i]), 0.25);
        }
        if (spec.line) c.stroke();
        for (let i = 0; i < n; i++) {
          if (data.group[i] !== number || Number.isNaN(this.at[0][i])) continue;
          c.beginPath();
          c.arc(this.at[0][i], this.at[1][i], spec.line ? 2.5 : radius, 0, 7);
          c.fill();
        }
      }
      c.globalAlpha = 1;
    }

    bar(c, at, from, to, alpha) {
      const before = c.globalAlpha;
      c.globalAlpha = alpha;
      const path = new Path2D();
      path.moveTo(at, from); path.lineTo(at, to);
      c.stroke(path);
      c.globalAlpha = before;
    }

    nearest(event) {
      if (!this.at) return -1;
      const box = this.canvas.getBoundingClientRect();
      const x = event.clientX - box.left, y = event.clientY - box.top;
      let best = NEAR * NEAR, found = -1;
      for (let i = 0; i < this.at[0].length; i++) {
        const distance = (this.at[0][i] - x) ** 2 + (this.at[1][i] - y) ** 2;
        if (distance < best) { best = distance; found = i; } // never where a place is NaN
      }
      return found;
    }

    // The arrow keys go from point to point, from left to right.
    step(event) {
      const forward = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!forward || !this.at) return;
      event.preventDefault();
      const shown = [...this.at[0].keys()].filter((i) => !Number.isNaN(this.at[0][i]));
      shown.sort((one, other) => this.at[0][one] - this.at[0][other]);
      const next = shown.indexOf(this.pointed) + forward;
      this.point(shown.length ? shown[(next + shown.length) % shown.length] : -1);
    }

    point(number) {
      if (number === this.pointed) return;
      const c = this.canvas.getContext("2d"), { width, height } = this.canvas;
      if (!this.image) this.image = c.getImageData(0, 0, width, height);
      c.putImageData(this.image, 0, 0);
      this.pointed = number;
      this.tip.hidden = number < 0;
      if (number < 0) return;
      const { spec, data } = this, x = this.at[0][number], y = this.at[1][number];
      c.strokeStyle = style("--ink"); c.lineWidth = 2;
      if (spec.low && data.columns[spec.low][number] !== null) {
        const [low, high] = this.scene.ends.map((column) => this.scene.py(column[number]));
        this.bar(c, x, low, high, 1);
      }
      c.beginPath(); c.arc(x, y, 6, 0, 7); c.stroke();
      const lines = data.series.length > 1 ? [data.series[data.group[number]]] : [];
      if (data.names) lines.unshift(data.names[number]);
      for (const { name, columns, unit } of spec.tip) {
        const values = columns.map((column) => data.columns[column][number]);
        if (values.includes(null) && columns.length > 1) continue;
        lines.push(`${name} ${values.map(format).join(" to ")}${unit ? ` ${unit}` : ""}`);
      }
      this.tip.textContent = lines.join("\n");
      this.tip.style.left = "0"; // where it is as wide as it needs
      const left = Math.min(x + 12, this.box.clientWidth - this.tip.offsetWidth - 4);
      this.tip.style.left = `${Math.max(left, 0)}px`;
      const above = y - this.tip.offsetHeight - 10;
      this.tip.style.top = `${above < 0 ? y + 12 : above}px`;
    }
  }

  for (const figure of document.querySelectorAll("figure.chart")) new Chart(figure);
})();
