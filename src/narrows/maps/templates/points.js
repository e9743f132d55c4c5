// The map as a picture: up to a million points drawn into the canvas's pixels by the CPU, which
// needs no WebGL, no library and no permission to compile code. Coordinates of the map have y
// upwards; a view is its middle and the CSS pixels of one unit.

function packed([r, g, b]) { // a pixel of ImageData as one number
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

function rgb(hex) {
  const n = parseInt(hex.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

function mixed(a, b, share) {
  return a.map((value, i) => Math.round(value + (b[i] - value) * share));
}

// The pixels of a round point of this radius: [dx, dy, cover] with cover from 1 to 256.
function stamp(radius) {
  const cells = [], reach = Math.ceil(radius);
  for (let dy = -reach; dy <= reach; dy++) for (let dx = -reach; dx <= reach; dx++) {
    const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
    if (cover > 0.02) cells.push([dx, dy, Math.round(256 * cover)]);
  }
  return cells;
}

class PointMap {
  constructor(canvas, x, y) {
    Object.assign(this, { canvas, x, y, n: x.length });
    this.context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.colors = new Uint8Array(this.n); // of each point, its place in `palette`
    this.palette = [[0, 114, 178]];
    this.shown = new Uint8Array(this.n).fill(1); // 0: filtered out, drawn faint
    this.strong = null; // the points selected or found, drawn larger and last
    this.background = [255, 255, 255];
    this.paintBelow = null; // draws a layer under the points
    this.frames = [];
    this.bounds = this.extent();
    this.view = { x: 0, y: 0, scale: 1 };
  }

  extent() { // without the outermost thousandth, which may be far away
    const ends = [this.x, this.y].map((values) => {
      const sorted = Float64Array.from(values).sort(), cut = Math.floor(this.n / 2000);
      return [sorted[cut], sorted[this.n - 1 - cut]];
    });
    return { x: ends[0], y: ends[1] };
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    this.width = Math.max(1, box.width);
    this.height = Math.max(1, box.height);
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  fit() {
    const { x, y } = this.bounds;
    const wide = x[1] - x[0] || 1, tall = y[1] - y[0] || 1;
    this.view = {
      x: (x[0] + x[1]) / 2,
      y: (y[0] + y[1]) / 2,
      scale: 0.92 * Math.min(this.width / wide, this.height / tall),
    };
    this.home = this.view.scale;
  }

  toScreen(x, y) {
    const { view } = this;
    return [
      this.width / 2 + (x - view.x) * view.scale,
      this.height / 2 - (y - view.y) * view.scale,
    ];
  }

  toMap(left, top) {
    const { view } = this;
    return [
      view.x + (left - this.width / 2) / view.scale,
      view.y - (top - this.height / 2) / view.scale,
    ];
  }

  zoom(factor, left = this.width / 2, top = this.height / 2) { // what is at this place stays there
    const [x, y] = this.toMap(left, top);
    const wanted = this.view.scale * factor;
    this.view.scale = Math.min(this.home * 2000, Math.max(this.home / 4, wanted));
    this.view.x = x - (left - this.width / 2) / this.view.scale;
    this.view.y = y + (top - this.height / 2) / this.view.scale;
  }

  get radius() { // CSS pixels
    const base = Math.min(4.5, Math.max(1.1, 130 / Math.sqrt(this.n)));
    return Math.min(9, base * Math.pow(Math.max(1, this.view.scale / this.home), 0.35));
  }

  draw() {
    const start = performance.now();
    if (this.paintBelow) {
      this.context.fillStyle = `rgb(${this.background.join()})`;
      this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
      this.paintBelow(this.context);
      const under = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
      this.pixels.set(new Uint32Array(under.data.buffer));
    } else {
      this.pixels.fill(packed(this.background));
    }
    const toned = (share) => // the palette's colours, lighter
      Uint32Array.from(this.palette, (color) => packed(mixed(this.background, color, share)));
    const cells = stamp(this.radius * this.ratio), filtered = this.shown.includes(0);
    if (filtered) this.stampAll(cells, toned(0.14), (i) => !this.shown[i]);
    this.stampAll(cells, toned(this.strong ? 0.3 : 1), filtered ? (i) => this.shown[i] : null);
    if (this.strong) {
      this.stampAll(stamp((this.radius + 0.8) * this.ratio), toned(1), null, this.strong);
    }
    this.context.putImageData(this.image, 0, 0);
    this.frames.push(performance.now() - start);
    if (this.frames.length > 100) this.frames.shift();
  }

  stampAll(cells, colors, wanted, only = null) {
    const { x, y, view, ratio, pixels } = this;
    const wide = this.canvas.width, tall = this.canvas.height, scale = view.scale * ratio;
    const left = wide / 2 - view.x * scale, top = tall / 2 + view.y * scale;
    const reach = cells.reduce((most, [dx]) => Math.max(most, dx), 0);
    const shifts = Int32Array.from(cells, ([dx, dy]) => dy * wide + dx);
    const covers = Int32Array.from(cells, (cell) => cell[2]);
    const count = only ? only.length : this.n;
    for (let place = 0; place < count; place++) {
      const i = only ? only[place] : place;
      if (wanted && !wanted(i)) continue;
      const px = Math.round(left + x[i] * scale), py = Math.round(top - y[i] * scale);
      if (px < reach || py < reach || px >= wide - reach || py >= tall - reach) continue;
      const color = colors[this.colors[i]], at = py * wide + px;
      const redBlue = color & 0xff00ff, green = color & 0x00ff00;
      for (let c = 0; c < shifts.length; c++) {
        const cover = covers[c], target = at + shifts[c];
        if (cover >= 256) {
          pixels[target] = color;
        } else { // two channels at a time: 8 bits of each lie 16 bits apart
          const rest = 256 - cover, old = pixels[target];
          const mixedRB = (((redBlue * cover + (old & 0xff00ff) * rest) / 256) & 0xff00ff) >>> 0;
          const mixedG = ((green * cover + (old & 0x00ff00) * rest) >>> 8) & 0x00ff00;
          pixels[target] = (0xff000000 | mixedRB | mixedG) >>> 0;
        }
      }
    }
  }

  nearest(left, top, within = 14) { // the nearest point that is shown, or −1
    const [x, y] = this.toMap(left, top), reach = within / this.view.scale;
    let best = reach * reach, found = -1;
    for (let i = 0; i < this.n; i++) {
      const dx = this.x[i] - x, dy = this.y[i] - y, square = dx * dx + dy * dy;
      if (square < best && this.shown[i]) {
        best = square;
        found = i;
      }
    }
    return found;
  }

  inside(polygon) { // the points that are shown within a polygon in CSS pixels
    const corners = polygon.map(([left, top]) => this.toMap(left, top)), found = [];
    for (let i = 0; i < this.n; i++) {
      if (!this.shown[i]) continue;
      let odd = false;
      const x = this.x[i], y = this.y[i];
      for (let a = 0, b = corners.length - 1; a < corners.length; b = a++) {
        const [ax, ay] = corners[a], [bx, by] = corners[b];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
      }
      if (odd) found.push(i);
    }
    return found;
  }
}
