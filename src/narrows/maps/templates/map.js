// The page of a map: what happens on hover, drag, zoom, lasso, pins and paths.

const byId = (id) => document.getElementById(id);
const TYPES = { f4: Float32Array, f8: Float64Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };

async function unpacked(id) { // the bytes of a block of the page: base64 of gzip
  const text = byId(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function arraysOf(spec, buffer) {
  const found = {};
  for (const [name, [kind, offset, length]] of Object.entries(spec)) {
    found[name] = new TYPES[kind](buffer, offset, length);
  }
  return found;
}

function lazySheets() { // each sheet of thumbnails is decoded when it is first needed
  const kept = new Map();
  return (number) => {
    if (!kept.has(number)) {
      const picture = new Image();
      picture.src = "data:image/webp;base64," + byId(`sheet-${number}`).textContent.trim();
      kept.set(number, picture.decode().then(() => picture));
    }
    return kept.get(number);
  };
}

const PALETTE_SIZE = 256;
const BOTH = { // what one picture of the original and the reconstruction shows
  table: "original (mark) and reconstruction (bar)",
  signal: "original (thin) and reconstruction (blue)",
};
const DARK = window.matchMedia("(prefers-color-scheme: dark)");
const CALM = window.matchMedia("(prefers-reduced-motion: reduce)");

class MapPage {
  constructor(spec, arrays) {
    this.spec = spec;
    this.arrays = arrays;
    this.k = spec.k;
    this.painter = makePainter(spec.painter, arrays.originals, lazySheets());
    this.live = spec.live ? new Live(spec.live) : null; // the server of narrows explore
    this.decode = spec.decoder ? makeDecoder(spec.decoder, arrays.weights) : null;
    const units = (layer) => layer.op === "round" || layer.op === "affine";
    this.scaled = spec.decoder // not rounded, in scaled units: lengths are measured by it
      ? makeDecoder(spec.decoder.filter((layer) => !units(layer)), arrays.weights) : null;
    this.decodes = Boolean(this.decode || this.live);
    this.map = new PointMap(byId("points"), arrays.x, arrays.y);
    this.overlay = byId("overlay");
    this.pen = this.overlay.getContext("2d");
    this.mode = "decode";
    this.cursor = null; // the place on the map that is decoded
    this.pins = [];
    this.selection = null;
    this.path = null;
    this.ticket = 0; // of the latest original asked for: an older answer is not drawn
    this.makeSliders();
    this.colorBy(spec.color_by[0].id);
    this.listen();
    if (this.live) this.live.listen(this);
    this.resize();
  }

  // ------------------------------------------------------------------ codes and points

  codeAt([x, y]) { // the code under a place of the map
    const { origin, directions } = this.spec.view, place = [x, y];
    return origin.map((value, j) =>
      directions.reduce((total, direction, i) => total + place[i] * direction[j], value));
  }

  async rowsOf(codes) { // what codes decode to; the page still answers while many are decoded
    if (!this.decode) return this.live.decode(codes);
    const rows = [];
    let start = performance.now();
    for (const code of codes) {
      rows.push(this.decode(code));
      if (performance.now() - start < 30) continue;
      await new Promise((go) => setTimeout(go));
      start = performance.now();
    }
    return rows;
  }

  failed(error) { // no answer came
    if (!this.live) throw error;
    this.live.say(error);
  }

  codeOf(point) {
    return Array.from(this.arrays.codes.subarray(point * this.k, (point + 1) * this.k));
  }

  placeOf(point) {
    return [this.arrays.x[point], this.arrays.y[point]];
  }

  rowNumber(point) {
    return this.arrays.rows ? this.arrays.rows[point] : point;
  }

  labelOf(point) {
    if (!this.arrays.labels) return "";
    const value = this.arrays.labels[point];
    return this.spec.label_names ? this.spec.label_names[value] : number(value);
  }

  valuesOf(id) { // what points are coloured by, as numbers
    const { arrays, spec, k } = this;
    if (id === "label") return arrays.labels;
    if (id === "error") return arrays.errors;
    const [kind, place] = id.split(":"), at = Number(place);
    const [from, width] = kind === "code" ? [arrays.codes, k] : [arrays.originals, this.painter.d];
    return Float32Array.from({ length: spec.n }, (_, i) => from[i * width + at]);
  }

  // ------------------------------------------------------------------ colours

  colorBy(id) {
    const option = this.spec.color_by.find((one) => one.id === id), { map } = this;
    const values = this.valuesOf(id);
    this.coloring = { ...option, values };
    this.hidden = new Set();
    if (option.names) {
      map.palette = option.names.map((_, i) => rgb(this.spec.class_colors[i] || "#98a1ad"));
      map.colors = Uint8Array.from(values, (value) => Math.min(value, 255));
      map.palette = map.palette.slice(0, 256);
    } else {
      const { low, high } = (this.coloring = { ...this.coloring, ...spread(values) });
      map.palette = Array.from({ length: PALETTE_SIZE }, (_, i) =>
        i === 0 ? [150, 157, 168] : ramp(this.spec.ramp, (i - 1) / (PALETTE_SIZE - 2)));
      const step = (PALETTE_SIZE - 2) / (high - low || 1); // place 0: no value
      map.colors = Uint8Array.from(values, (value) => Number.isFinite(value)
        ? 1 + Math.min(PALETTE_SIZE - 2, Math.max(0, Math.round((value - low) * step))) : 0);
    }
    this.filter();
    this.drawLegend();
    byId("color").value = id;
  }

  filter() {
    const { values, names } = this.coloring, { shown } = this.map;
    for (let i = 0; i < shown.length; i++) shown[i] = names && this.hidden.has(values[i]) ? 0 : 1;
    this.redraw();
  }

  drawLegend() {
    const legend = byId("legend"), { names, low, high, name } = this.coloring;
    legend.replaceChildren();
    if (!names) {
      const bar = document.createElement("canvas");
      bar.width = 160;
      bar.height = 10;
      const pen = bar.getContext("2d");
      for (let x = 0; x < 160; x++) {
        pen.fillStyle = `rgb(${ramp(this.spec.ramp, x / 159).join()})`;
        pen.fillRect(x, 0, 1, 10);
      }
      legend.append(span(number(low)), bar, span(number(high)), span(name, "soft"));
      return;
    }
    const counts = new Map();
    for (const value of this.coloring.values) counts.set(value, (counts.get(value) || 0) + 1);
    const most = [...names.keys()].sort((a, b) => (counts.get(b) || 0) - (counts.get(a) || 0));
    const listed = names.length > 30 ? most.slice(0, 30) : [...names.keys()];
    for (const value of listed) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!this.hidden.has(value)));
      const dot = document.createElement("i");
      dot.style.background = this.spec.class_colors[value] || "#98a1ad";
      button.append(dot, names[value]);
      button.title = `${counts.get(value) || 0} rows; click to hide or show`;
      button.addEventListener("click", () => {
        if (!this.hidden.delete(value)) this.hidden.add(value);
        button.setAttribute("aria-pressed", String(!this.hidden.has(value)));
        this.filter();
      });
      legend.append(button);
    }
    if (names.length > 30) legend.append(span(`and ${names.length - 30} smaller classes`, "soft"));
  }

  // ------------------------------------------------------------------ drawing

  resize() {
    const had = this.map.home, { view } = this.map;
    this.map.resize();
    const { width, height, ratio } = this.map;
    this.overlay.width = Math.round(width * ratio);
    this.overlay.height = Math.round(height * ratio);
    this.map.fit();
    if (had) this.map.view = { ...view, scale: view.scale * (this.map.home / had) };
    this.redraw();
  }

  redraw() { // at most once a frame
    if (this.waiting || !this.map.pixels) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.map.background = rgb(DARK.matches ? "#1d232a" : "#ffffff");
      const stretch = byId("stretch");
      this.map.paintBelow = stretch && stretch.checked ? (pen) => this.paintStretch(pen) : null;
      this.map.draw();
      this.drawOverlay();
    });
  }

  paintStretch(pen) { // √det JᵀJ of the decoder, light to dark
    const { low, high, size } = this.spec.grid, stretch = this.arrays.stretch;
    if (!this.stretchPicture) {
      const picture = canvasOf(size, size, ""), image = new ImageData(size, size);
      const sorted = Float32Array.from(stretch).sort();
      const floor = Math.log(sorted[Math.floor(sorted.length * 0.02)] + 1e-12);
      const room = Math.log(sorted[Math.floor(sorted.length * 0.98)] + 1e-12) - floor || 1;
      for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) { // columns are x, rows y
        const t = (Math.log(stretch[i * size + j] + 1e-12) - floor) / room;
        const share = 0.55 * Math.min(1, Math.max(0, t));
        image.data.set([...mixed([255, 255, 255], [213, 94, 0], share), 255],
          4 * ((size - 1 - j) * size + i));
      }
      picture.getContext("2d").putImageData(image, 0, 0);
      this.stretchPicture = picture;
    }
    const { ratio } = this.map, half = [0, 1].map((i) => (high[i] - low[i]) / (size - 1) / 2);
    const [left, top] = this.map.toScreen(low[0] - half[0], high[1] + half[1]);
    const [right, bottom] = this.map.toScreen(high[0] + half[0], low[1] - half[1]);
    pen.globalAlpha = DARK.matches ? 0.45 : 1;
    pen.drawImage(this.stretchPicture, left * ratio, top * ratio,
      (right - left) * ratio, (bottom - top) * ratio);
    pen.globalAlpha = 1;
  }

  drawOverlay() {
    const { pen, map } = this, { ink, accent } = theme();
    pen.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
    pen.clearRect(0, 0, map.width, map.height);
    if (byId("grid").checked && this.decodes) this.drawGrid();
    pen.lineWidth = 2;
    if (this.path) {
      pen.strokeStyle = ink;
      pen.beginPath();
      for (const place of this.path.places) pen.lineTo(...map.toScreen(...place));
      pen.stroke();
      if (this.path.at >= 0) this.ring(this.path.places[this.path.at], 6, accent, true);
    }
    this.pins.forEach((pin, i) => {
      this.ring(pin.place, 9, accent, true);
      const [left, top] = map.toScreen(...pin.place);
      pen.fillStyle = "#fff";
      pen.font = "600 11px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(String(i + 1), left, top + 0.5);
    });
    if (this.hovered >= 0) this.ring(this.placeOf(this.hovered), map.radius + 4, ink);
    if (this.cursor) {
      const [left, top] = map.toScreen(...this.cursor);
      for (const [color, width] of [[DARK.matches ? "#000" : "#fff", 4], [ink, 1.5]]) {
        pen.strokeStyle = color;
        pen.lineWidth = width;
        pen.beginPath();
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          pen.moveTo(left + 4 * dx, top + 4 * dy);
          pen.lineTo(left + 14 * dx, top + 14 * dy);
        }
        pen.stroke();
      }
    }
    if (this.lasso) {
      pen.strokeStyle = accent;
      pen.setLineDash([4, 3]);
      pen.beginPath();
      for (const place of this.lasso) pen.lineTo(...place);
      pen.closePath();
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  ring(place, radius, color, filled = false) {
    const { pen } = this, [left, top] = this.map.toScreen(...place);
    pen.beginPath();
    pen.arc(left, top, radius, 0, 2 * Math.PI);
    pen.lineWidth = 2;
    pen.strokeStyle = color;
    pen.fillStyle = color;
    if (filled) pen.fill();
    else pen.stroke();
  }

  drawGrid() { // decoded points of what is in view, as small pictures
    const { map } = this, { x, y, scale } = map.view, step = Math.max(64, Math.min(map.width, map.height) / 10);
    const columns = Math.floor(map.width / step), rows = Math.floor(map.height / step);
    const key = [x, y, scale, columns, rows].join();
    if (this.gridOf !== key) {
      this.gridOf = key;
      this.gridCells = [];
      const cells = [];
      for (let i = 0; i < columns; i++) for (let j = 0; j < rows; j++) {
        const left = (i + 0.5) * (map.width / columns), top = (j + 0.5) * (map.height / rows);
        cells.push({ left, top, code: this.codeAt(map.toMap(left, top)) });
      }
      const current = () => this.gridOf === key; // the view has not changed meanwhile
      const later = new Promise((go) => setTimeout(go, 120)); // nothing is decoded while one zooms
      later.then(() => current() && this.rowsOf(cells.map((cell) => cell.code))).then((found) => {
        if (!found || !current()) return;
        this.gridCells = cells.map((cell, i) => {
          const picture = document.createElement("canvas");
          this.painter.paintSmall(picture, found[i]);
          return { ...cell, picture };
        });
        this.drawOverlay();
      }).catch((error) => this.failed(error));
    }
    for (const { left, top, picture } of this.gridCells) {
      const shrink = (0.62 * step) / Math.max(picture.width, picture.height);
      const width = picture.width * shrink, height = picture.height * shrink;
      this.pen.imageSmoothingEnabled = shrink < 1;
      this.pen.imageSmoothingQuality = "high";
      this.pen.drawImage(picture, left - width / 2, top - height / 2, width, height);
    }
  }

  // ------------------------------------------------------------------ the card: original, code, reconstruction

  async showPoint(point) {
    this.hovered = point;
    this.cursor = null;
    const label = this.labelOf(point), error = this.arrays.errors[point];
    const words = `row ${this.rowNumber(point).toLocaleString("en-US")}`
      + (label === "" ? "" : ` · ${this.spec.label_title} ${label}`)
      + (Number.isFinite(error) ? ` · error ${number(error)}` : "");
    if (this.painter.original) { // of tables and signals one picture shows both
      const row = this.painter.original(point);
      byId("original-figure").hidden = true;
      this.show(words, this.codeOf(point), BOTH[this.spec.painter.kind], row);
      if (!this.decodes) this.painter.paint(byId("restored"), row);
      return;
    }
    const ticket = this.show(words, this.codeOf(point), "reconstruction");
    const canvas = document.createElement("canvas");
    const found = await this.painter.paintOriginal(canvas, point);
    if (ticket === this.ticket) this.showOriginal(found ? canvas : null);
  }

  showOriginal(canvas, caption = "original") { // null: the page does not hold it
    byId("original-figure").hidden = false;
    byId("original-caption").textContent = caption;
    byId("no-original").hidden = Boolean(canvas);
    byId("original").hidden = !canvas;
    if (canvas) copied(canvas, byId("original"));
  }

  showPlace(place) {
    this.cursor = place;
    this.hovered = -1;
    byId("original-figure").hidden = true;
    this.show("decoded under the pointer", this.codeAt(place), "decoded here");
  }

  // A code and what it decodes to; the answer is the ticket of what is shown now.
  show(words, code, caption, original = null) {
    const ticket = ++this.ticket, start = performance.now();
    this.code = code;
    for (const [j, slider] of this.sliders) slider.value = code[j];
    byId("what").textContent = words;
    paintCode(byId("code"), code, this.spec.code.mean, this.spec.code.deviation);
    const numbers = code.map(number).join(", ");
    byId("code").setAttribute("aria-label", `code ${numbers}`);
    byId("code-caption").textContent = this.k < 4 ? `code ${numbers}` : "code";
    byId("restored-figure").hidden = !this.decodes && !original;
    byId("restored-caption").textContent = this.decodes ? caption : "original";
    this.drawOverlay();
    const paint = (row) => {
      this.painter.paint(byId("restored"), row, original);
      this.lastDecode = performance.now() - start;
    };
    if (this.decode) paint(this.decode(code));
    else if (this.live) {
      this.live.latest([code]).then((rows) => rows && ticket === this.ticket && paint(rows[0]));
    }
    return ticket;
  }

  // ------------------------------------------------------------------ the numbers of the code

  makeSliders() { // for the numbers with the largest effect on the reconstruction
    const { mean, deviation } = this.spec.code, list = byId("numbers");
    this.sliders = this.spec.effects.map(([j, effect]) => {
      const label = document.createElement("label"), slider = document.createElement("input");
      slider.type = "range";
      slider.min = mean[j] - 3 * deviation[j];
      slider.max = mean[j] + 3 * deviation[j];
      slider.step = "any";
      slider.title = `effect ${number(effect)}: the mean squared change of the reconstruction, in scaled units, by one standard deviation`;
      slider.addEventListener("input", () => {
        const code = this.code ? [...this.code] : [...mean];
        code[j] = Number(slider.value);
        this.showCode(code);
      });
      label.append(span(`z${j + 1}`), slider);
      list.append(label);
      return [j, slider];
    });
    const towards = byId("towards");
    if (!towards) return;
    towards.addEventListener("click", () => {
      const way = this.spec.directions[byId("towards-class").value];
      this.showCode((this.code || mean).map((value, j) => value + way[j] / 4));
    });
  }

  showCode(code) { // a code that was made by hand
    this.cursor = this.placed(code);
    this.hovered = -1;
    byId("original-figure").hidden = true;
    this.show("a code made by hand", code, "decoded");
  }

  // ------------------------------------------------------------------ pins and paths

  pin() { // the code that is shown
    if (!this.code) return;
    const text = this.hovered >= 0 ? byId("what").textContent : "a place";
    this.pins.push({ place: this.placed(this.code), code: this.code, text });
    this.listPins();
  }

  listPins() {
    const list = byId("pins");
    list.replaceChildren();
    this.pins.forEach((pin, i) => {
      const item = document.createElement("li");
      const picture = document.createElement("canvas");
      if (this.decodes) {
        this.rowsOf([pin.code]).then(([row]) => this.painter.paintSmall(picture, row))
          .catch((error) => this.failed(error));
        item.append(picture);
      }
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "remove";
      remove.addEventListener("click", () => {
        this.pins.splice(i, 1);
        this.listPins();
      });
      item.append(span(pin.text), remove);
      list.append(item);
    });
    byId("no-pins").hidden = this.pins.length > 0;
    byId("path-tools").hidden = !(this.decodes && this.pins.length > 1);
    this.path = null;
    byId("strip").replaceChildren();
    byId("path-note").textContent = "";
    this.redraw();
  }

  async walk() { // the path between the last two pins
    const [a, b] = this.pins.slice(-2), kind = byId("path-kind").value, steps = 33;
    const straight = along([a.code, b.code], steps);
    const { grid } = this.spec;
    let codes = straight;
    if (kind === "spherical") codes = spherical(a.code, b.code, steps);
    if (kind === "shortest") codes = along(shortest(grid, this.arrays, a.code, b.code), steps);
    const asked = (this.walks = (this.walks || 0) + 1);
    let rows;
    try {
      rows = await this.rowsOf(codes);
    } catch (error) {
      return this.failed(error);
    }
    if (asked !== this.walks) return; // another walk has begun
    this.path = { places: codes.map((code) => this.placed(code)), codes, rows };
    const [length, plain] = this.scaled
      ? [codes, straight].map((way) => pathLength(way.map((code) => this.scaled(code)))) : [];
    byId("path-note").textContent = kind === "straight" || !this.scaled
      ? `The pictures are decoded along a ${kind} path of codes.`
      : `Along it the reconstruction changes by ${number(length)}, along the straight line by ${number(plain)} (scaled units).`;
    const strip = byId("strip");
    strip.replaceChildren();
    const frames = [0, 4, 8, 12, 16, 20, 24, 28, 32];
    for (const at of frames) {
      const picture = document.createElement("canvas");
      this.painter.paintSmall(picture, rows[at]);
      strip.append(picture);
    }
    this.drawOverlay();
    if (!CALM.matches) this.play();
  }

  placed(code) { // the place of a code on the map
    const place = this.projected(code);
    return this.k === 1 ? [place[0], 0] : place;
  }

  projected(code) {
    const { origin, directions } = this.spec.view;
    const away = code.map((value, j) => value - origin[j]);
    return directions.map((direction) => direction.reduce((t, d, j) => t + d * away[j], 0));
  }

  play() {
    const { path } = this, start = performance.now();
    const frame = (now) => {
      if (this.path !== path) return;
      const at = Math.min(32, Math.max(0, Math.floor((now - start) / 60)));
      path.at = at;
      this.hovered = -1;
      this.code = path.codes[at];
      this.cursor = path.places[at];
      this.ticket++; // no answer that was asked for before is drawn
      byId("what").textContent = `step ${at + 1} of 33 on the path`;
      byId("original-figure").hidden = true;
      this.painter.paint(byId("restored"), path.rows[at]);
      paintCode(byId("code"), path.codes[at], this.spec.code.mean, this.spec.code.deviation);
      byId("restored-caption").textContent = "on the path";
      this.drawOverlay();
      if (at < 32) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  // ------------------------------------------------------------------ selection and search

  select(points, words) {
    this.selection = points.length ? points : null;
    this.map.strong = this.selection;
    byId("selected").textContent = words;
    byId("selection-tools").hidden = !this.selection;
    const list = byId("rows");
    list.replaceChildren();
    for (const point of points.slice(0, 60)) {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      const label = this.labelOf(point);
      button.textContent = `${this.rowNumber(point)}${label === "" ? "" : ` · ${label}`}`;
      button.addEventListener("click", () => this.showPoint(point));
      item.append(button);
      list.append(item);
    }
    if (points.length > 60) list.append(span(`and ${points.length - 60} more in the CSV file`, "soft"));
    this.redraw();
  }

  worst() { // the rows with the largest errors
    const { errors } = this.arrays, order = Array.from(errors.keys()).filter((i) => Number.isFinite(errors[i]));
    const found = order.sort((a, b) => errors[b] - errors[a]).slice(0, 60);
    this.select(found, `The ${found.length} rows with the largest errors, the worst first.`);
  }

  neighbors() { // the rows nearest to what is shown, by their whole codes
    const from = this.code;
    if (!from) return this.select([], "Point at a row or a place first.");
    const { codes } = this.arrays, { k } = this, far = new Float64Array(this.spec.n);
    for (let i = 0; i < far.length; i++) {
      for (let j = 0; j < k; j++) far[i] += (codes[i * k + j] - from[j]) ** 2;
    }
    const order = Array.from(far.keys()).filter((i) => i !== this.hovered);
    const found = order.sort((a, b) => far[a] - far[b]).slice(0, 24);
    this.select(found, `The ${found.length} rows with the nearest codes, the nearest first.`);
  }

  search(text) {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return this.select([], "Nothing is selected.");
    const asRow = /^row\s+/.test(wanted); // "row 3" is the row, "3" also a class of this name
    const named = wanted.replace(/^row\s+/, "").replaceAll(",", ""), found = [];
    for (let i = 0; i < this.spec.n; i++) {
      const ofClass = !asRow && this.labelOf(i).toLowerCase() === wanted;
      if (String(this.rowNumber(i)) === named || ofClass) found.push(i);
    }
    const rows = found.length === 1 ? "1 row" : `${found.length.toLocaleString("en-US")} rows`;
    this.select(found, found.length ? `${rows} found.` : `No row number and no ${this.spec.label_title} is “${text.trim()}”.`);
    if (found.length === 1) this.showPoint(found[0]);
  }

  csv() {
    const names = ["row", ...(this.arrays.labels ? [this.spec.label_title] : []), "error",
      ...Array.from({ length: this.k }, (_, j) => `z${j + 1}`)];
    const table = this.spec.painter.kind === "table" ? this.painter : null;
    if (table) names.push(...table.names);
    const lines = [names.map(quoted).join(",")];
    for (const point of this.selection) {
      const label = this.arrays.labels ? [this.exactLabel(point)] : [];
      const numbers = [this.arrays.errors[point], ...this.codeOf(point)].map(narrow);
      const wide = table && table.originals instanceof Float64Array;
      const row = table ? Array.from(table.original(point), wide ? Number : narrow) : [];
      const cells = [this.rowNumber(point), ...label, ...numbers, ...row];
      lines.push(cells.map((cell) => quoted(Number.isNaN(cell) ? "" : String(cell))).join(","));
    }
    return lines.join("\n") + "\n";
  }

  exactLabel(point) {
    return this.spec.label_names ? this.labelOf(point) : this.arrays.labels[point];
  }

  download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" }));
    link.download = "selection.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // ------------------------------------------------------------------ pointer and keyboard

  listen() {
    const { overlay } = this, touches = new Map();
    const at = (event) => {
      const box = overlay.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    overlay.addEventListener("pointerdown", (event) => {
      overlay.setPointerCapture(event.pointerId);
      touches.set(event.pointerId, at(event));
      overlay.focus({ preventScroll: true });
      this.path = null;
      const moves = event.button === 1 || event.button === 2 || event.shiftKey;
      this.action = touches.size > 1 ? "pinch" : moves ? "move" : this.mode;
      this.lasso = null;
      this.moved = false;
      if (this.action === "lasso") this.lasso = [at(event)];
    });
    overlay.addEventListener("pointermove", (event) => this.pointerMove(event, at(event), touches));
    const end = (event) => {
      if (!touches.delete(event.pointerId)) return;
      if (this.action === "lasso" && this.lasso) this.endLasso();
      else if (this.action === "decode" && !this.moved) this.click(at(event));
      if (!touches.size) this.action = null;
    };
    overlay.addEventListener("pointerup", end);
    overlay.addEventListener("pointercancel", end);
    overlay.addEventListener("contextmenu", (event) => event.preventDefault());
    overlay.addEventListener("dblclick", () => this.pin());
    overlay.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.map.zoom(Math.exp(-event.deltaY * lines * 0.0015), ...at(event));
      this.redraw();
    }, { passive: false });
    overlay.addEventListener("keydown", (event) => this.key(event));
    this.listenTools();
    DARK.addEventListener("change", () => this.redraw());
    new ResizeObserver(() => this.resize()).observe(overlay);
  }

  listenTools() {
    const on = (id, kind, action) => byId(id) && byId(id).addEventListener(kind, action);
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.addEventListener("click", () => this.setMode(button.dataset.mode));
    }
    on("color", "change", (event) => this.colorBy(event.target.value));
    on("grid", "change", () => this.redraw());
    on("stretch", "change", () => this.redraw());
    on("search", "change", (event) => this.search(event.target.value));
    on("zoom-in", "click", () => this.zoomBy(1.5));
    on("zoom-out", "click", () => this.zoomBy(1 / 1.5));
    on("fit", "click", () => {
      this.map.fit();
      this.redraw();
    });
    on("pin", "click", () => this.pin());
    on("walk", "click", () => this.walk());
    on("worst", "click", () => this.worst());
    on("neighbors", "click", () => this.neighbors());
    on("export", "click", () => this.download());
    on("clear", "click", () => this.select([], "Nothing is selected."));
  }

  setMode(mode) {
    this.mode = mode;
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    }
    this.overlay.dataset.cursor = mode;
  }

  zoomBy(factor) {
    this.map.zoom(factor);
    this.redraw();
  }

  pointerMove(event, place, touches) {
    const before = touches.get(event.pointerId);
    if (!before) { // no button is down
      const point = this.map.nearest(...place);
      if (point >= 0 && point !== this.hovered) this.showPoint(point);
      return;
    }
    const [dx, dy] = [place[0] - before[0], place[1] - before[1]];
    if (!this.moved && Math.hypot(dx, dy) < 3) return;
    this.moved = true;
    if (this.action === "pinch" && touches.size === 2) {
      const [other] = [...touches].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      this.map.zoom(apart(place) / apart(before), (place[0] + other[0]) / 2, (place[1] + other[1]) / 2);
      this.map.view.x -= dx / 2 / this.map.view.scale;
      this.map.view.y += dy / 2 / this.map.view.scale;
      this.redraw();
    } else if (this.action === "move") {
      this.map.view.x -= dx / this.map.view.scale;
      this.map.view.y += dy / this.map.view.scale;
      this.redraw();
    } else if (this.action === "lasso") {
      this.lasso.push(place);
      this.drawOverlay();
    } else if (this.action === "decode" && this.decodes) {
      this.dragTo(place);
    }
    touches.set(event.pointerId, place);
  }

  dragTo(place) { // at most one place a frame is decoded
    if (!this.wanted) {
      requestAnimationFrame(() => {
        this.showPlace(this.map.toMap(...this.wanted));
        this.wanted = null;
      });
    }
    this.wanted = place;
  }

  click(place) {
    const point = this.map.nearest(...place);
    if (point >= 0) this.showPoint(point);
    else if (this.decodes) this.showPlace(this.map.toMap(...place));
  }

  endLasso() {
    const points = this.lasso.length > 2 ? this.map.inside(this.lasso) : [];
    this.lasso = null;
    const words = points.length === 1 ? "1 row" : `${points.length.toLocaleString("en-US")} rows`;
    this.select(points, points.length ? `${words} selected.` : "Nothing is selected.");
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const arrow = arrows[event.key], { view } = this.map;
    const step = (event.shiftKey ? 40 : 8) / view.scale;
    if (arrow && this.decodes) {
      const [x, y] = this.cursor || (this.hovered >= 0 ? this.placeOf(this.hovered) : [view.x, view.y]);
      this.showPlace([x + arrow[0] * step, y + arrow[1] * step]);
    } else if (event.key === "+" || event.key === "=") this.zoomBy(1.3);
    else if (event.key === "-") this.zoomBy(1 / 1.3);
    else if (event.key === "0") byId("fit").click();
    else if (event.key === "Enter" || event.key === "p") this.pin();
    else if (event.key === "l") this.setMode(this.mode === "lasso" ? "decode" : "lasso");
    else if (event.key === "Escape") {
      this.select([], "Nothing is selected.");
      this.cursor = this.path = null;
      this.drawOverlay();
    } else return;
    event.preventDefault();
  }
}

// ------------------------------------------------------------------ helpers

function span(text, kind = "") {
  const found = document.createElement("span");
  found.textContent = text;
  if (kind) found.className = kind;
  return found;
}

function copied(from, to) {
  to.width = from.width;
  to.height = from.height;
  to.getContext("2d").drawImage(from, 0, 0);
}

function narrow(value) { // as short as float32 allows: 0.1, not 0.10000000149011612
  return Number.isFinite(value) ? Number(value.toPrecision(8)) : value;
}

function quoted(cell) { // spreadsheets would run a text that begins with =, +, - or @ as a formula
  const text = /^[=+\-@\t\r]/.test(cell) && !Number.isFinite(Number(cell)) ? `'${cell}` : cell;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function spread(values) { // from the 1st to the 99th percentile
  const sorted = Float64Array.from(values).filter(Number.isFinite).sort();
  if (!sorted.length) return { low: 0, high: 1 };
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  return { low: at(0.01), high: at(0.99) };
}

function ramp(colors, t) {
  const place = Math.min(1, Math.max(0, t)) * (colors.length - 1), low = Math.floor(place);
  const next = Math.min(low + 1, colors.length - 1);
  return mixed(rgb(colors[low]), rgb(colors[next]), place - low);
}

function pathLength(rows) {
  let total = 0;
  for (let i = 1; i < rows.length; i++) {
    total += Math.sqrt(rows[i].reduce((sum, value, j) => sum + (value - rows[i - 1][j]) ** 2, 0));
  }
  return total;
}

function along(codes, steps) { // evenly spaced codes on the lines between those given
  const lengths = [0];
  for (let i = 1; i < codes.length; i++) {
    lengths.push(lengths[i - 1] + Math.hypot(...codes[i].map((value, j) => value - codes[i - 1][j])));
  }
  const whole = lengths.at(-1), found = [];
  for (let s = 0, i = 1; s < steps; s++) {
    const at = (whole * s) / (steps - 1);
    while (i < codes.length - 1 && lengths[i] < at) i++;
    const t = whole ? (at - lengths[i - 1]) / (lengths[i] - lengths[i - 1] || 1) : 0;
    found.push(codes[i].map((value, j) => codes[i - 1][j] + t * (value - codes[i - 1][j])));
  }
  return found;
}

function spherical(a, b, steps) { // about the origin; directions and lengths change evenly
  const size = (v) => Math.hypot(...v), dot = a.reduce((total, value, j) => total + value * b[j], 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot / (size(a) * size(b) || 1))));
  if (!(angle > 1e-6 && Math.PI - angle > 1e-6) || !size(a) || !size(b)) return along([a, b], steps);
  return Array.from({ length: steps }, (_, s) => {
    const t = s / (steps - 1), left = Math.sin((1 - t) * angle), right = Math.sin(t * angle);
    const length = size(a) + t * (size(b) - size(a));
    const unit = a.map((value, j) =>
      ((left * value) / size(a) + (right * b[j]) / size(b)) / Math.sin(angle));
    return unit.map((value) => length * value);
  });
}

// The shortest way between two codes on the grid of `edges` (Dijkstra): each node has the lengths of
// its steps to eight neighbours, and through theirs to the eight opposite ones. Where no data are, in
// `gaps`, a step counts for more, as in maps/geometry.py: the path goes round.
function shortest(grid, { edges, gaps }, from, to) {
  const { size, low, high, steps, gap_cost: cost } = grid, n = size * size;
  const node = (code) => [0, 1].map((i) =>
    Math.round(Math.min(1, Math.max(0, (code[i] - low[i]) / (high[i] - low[i]))) * (size - 1)));
  const number = ([i, j]) => i * size + j, first = number(node(from)), last = number(node(to));
  const far = new Float64Array(n).fill(Infinity), before = new Int32Array(n).fill(-1);
  const done = new Uint8Array(n);
  far[first] = 0;
  for (;;) {
    let best = -1;
    for (let i = 0; i < n; i++) if (!done[i] && (best < 0 || far[i] < far[best])) best = i;
    if (best < 0 || best === last || far[best] === Infinity) break;
    done[best] = 1;
    const x = Math.floor(best / size), y = best % size;
    steps.forEach(([dx, dy], s) => {
      for (const sign of [1, -1]) {
        const a = x + sign * dx, b = y + sign * dy;
        if (a < 0 || b < 0 || a >= size || b >= size) continue;
        const start = sign === 1 ? best : number([a, b]); // an edge belongs to its lower end
        const next = number([a, b]), dear = 1 + (cost / 2) * (gaps[best] + gaps[next]);
        const length = far[best] + dear * edges[s * n + start];
        if (length < far[next]) {
          far[next] = length;
          before[next] = best;
        }
      }
    });
  }
  const way = [last];
  while (way[0] !== first && before[way[0]] >= 0) way.unshift(before[way[0]]);
  const code = (at) => [Math.floor(at / size), at % size].map((place, i) =>
    low[i] + (place / (size - 1)) * (high[i] - low[i]));
  return [from, ...way.slice(1, -1).map(code), to];
}

async function start() {
  const spec = JSON.parse(byId("spec").textContent);
  const arrays = arraysOf(spec.arrays, await unpacked("arrays"));
  window.page = new MapPage(spec, arrays);
  await new Promise(requestAnimationFrame); // the map is drawn
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  byId("what").textContent = `This browser cannot show the map (${error.message}). A version of 2023 or later can.`;
  console.error(error);
});
