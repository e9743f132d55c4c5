// Pictures of rows: images as pictures, rows of a table as bars in their own units, signals as lines.

function canvasOf(width, height, label) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

function number(value) { // three significant digits, as narrows prints them
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100 && size < 1e6) return Math.round(value).toLocaleString("en-US");
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(3)));
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ink: of("--ink"), soft: of("--soft"), line: of("--line"), accent: of("--accent") };
}

// Draws rows as images: from their values, or from a sheet of originals.
class ImagePainter {
  constructor(spec, sheets) {
    Object.assign(this, spec); // shape, low, high, thumbnails
    this.sheets = sheets; // numbers of sheets → promises of pictures
  }

  pixels(values) { // (channels, height, width) → RGBA
    const [channels, height, width] = this.shape, size = height * width;
    const image = new ImageData(width, height), span = this.high - this.low || 1;
    const byte = (value) => Math.floor(255 * Math.min(1, Math.max(0, (value - this.low) / span)) + 0.5);
    for (let i = 0; i < size; i++) {
      let colors;
      if (channels === 3) {
        colors = [values[i], values[size + i], values[2 * size + i]].map(byte);
      } else {
        let total = 0;
        for (let c = 0; c < channels; c++) total += values[c * size + i];
        colors = Array(3).fill(byte(total / channels));
      }
      image.data.set([...colors, 255], 4 * i);
    }
    return image;
  }

  paint(canvas, values) { // a reconstruction
    const [, height, width] = this.shape;
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(this.pixels(values), 0, 0);
  }

  paintSmall(canvas, values) {
    this.paint(canvas, values);
  }

  async paintOriginal(canvas, point) { // false: the page does not hold it
    const { width, height, columns, n, on_sheet: most } = this.thumbnails;
    if (point >= n) return false;
    const sheet = await this.sheets(Math.floor(point / most)), at = point % most;
    canvas.width = width;
    canvas.height = height;
    const left = (at % columns) * width, top = Math.floor(at / columns) * height;
    canvas.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, width, height);
    return true;
  }
}

class LinePainter { // what tables and signals share: originals are numbers of the page
  constructor(spec, originals) {
    Object.assign(this, spec); // shape, names, low, high
    this.originals = originals;
    this.d = spec.shape.reduce((product, side) => product * side, 1);
  }

  original(point) {
    return this.originals.subarray(point * this.d, (point + 1) * this.d);
  }

  prepared(canvas, width, height) {
    const ratio = Math.min(2, window.devicePixelRatio || 1), pen = canvas.getContext("2d");
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    return pen;
  }
}

const BAR = 17; // CSS pixels of a column's line

class TablePainter extends LinePainter {
  paint(canvas, values, beside = null) { // `beside`: the original, as a mark on each bar
    const { ink, soft, line, accent } = theme(), from = 92, room = beside ? 76 : 112;
    const pen = this.prepared(canvas, 288, BAR * this.columns.length + 2);
    this.columns.forEach((column, place) => {
      const y = BAR * place + BAR / 2 + 1, at = (value) => from + room * this.share(column, value);
      pen.fillStyle = soft;
      pen.textAlign = "right";
      pen.fillText(clipped(pen, this.names[column], 86), 87, y);
      pen.fillStyle = line;
      pen.fillRect(from, y - 1, room, 2);
      if (Number.isFinite(values[column])) {
        pen.fillStyle = accent;
        pen.fillRect(from, y - 4, Math.max(1.5, at(values[column]) - from), 8);
      }
      if (beside && Number.isFinite(beside[column])) {
        pen.fillStyle = ink;
        pen.fillRect(at(beside[column]) - 1, y - 7, 2, 14);
      }
      pen.textAlign = "left";
      pen.fillStyle = ink;
      if (beside) pen.fillText(number(beside[column]), from + room + 8, y);
      pen.fillStyle = accent;
      pen.fillText(number(values[column]), from + room + (beside ? 64 : 8), y);
    });
  }

  paintSmall(canvas, values) { // bars alone
    const columns = this.columns.slice(0, 12), { accent } = theme();
    const pen = this.prepared(canvas, 44, 4 * columns.length);
    pen.fillStyle = accent;
    columns.forEach((column, place) => {
      pen.fillRect(0, 4 * place, Math.max(1, 44 * this.share(column, values[column])), 3);
    });
  }

  share(column, value) { // of the column's range
    const low = this.low[column], span = this.high[column] - low || 1;
    return Math.min(1, Math.max(0, (value - low) / span));
  }
}

function clipped(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let n = text.length;
  while (n > 1 && pen.measureText(text.slice(0, n) + "…").width > width) n--;
  return text.slice(0, n) + "…";
}

class SignalPainter extends LinePainter {
  paint(canvas, values, beside = null) {
    const wide = 288, tall = 130, { ink, soft, line, accent } = theme();
    const pen = this.prepared(canvas, wide, tall), box = [40, 6, wide - 44, tall - 14];
    pen.fillStyle = soft;
    pen.textAlign = "right";
    pen.fillText(number(this.high[0]), 36, 10);
    pen.fillText(number(this.low[0]), 36, tall - 12);
    pen.strokeStyle = line;
    pen.strokeRect(...box);
    if (beside) this.curves(pen, beside, ink, 1, box);
    this.curves(pen, values, accent, 1.6, box);
  }

  paintSmall(canvas, values) { // the curves alone
    const pen = this.prepared(canvas, 60, 28);
    this.curves(pen, values, theme().accent, 1.6, [1, 1, 58, 26]);
  }

  curves(pen, row, color, width, [left, top, wide, tall]) {
    const [channels, length] = this.shape, low = this.low[0], span = this.high[0] - low || 1;
    pen.strokeStyle = color;
    pen.lineWidth = width;
    for (let c = 0; c < channels; c++) {
      pen.beginPath();
      for (let i = 0; i < length; i++) {
        const share = (row[c * length + i] - low) / span;
        pen.lineTo(left + (wide * i) / Math.max(1, length - 1), top + tall * (1 - share));
      }
      pen.stroke();
    }
  }
}

function makePainter(spec, originals, sheets) {
  if (spec.kind === "image") return new ImagePainter(spec, sheets);
  return new (spec.kind === "table" ? TablePainter : SignalPainter)(spec, originals);
}

// A code as cells, blue to orange in standard deviations, as in narrows' other pictures.
function paintCode(canvas, code, mean, deviation) {
  const columns = Math.min(16, code.length), rows = Math.ceil(code.length / columns), side = 14;
  canvas.width = columns * side;
  canvas.height = rows * side;
  const pen = canvas.getContext("2d");
  code.forEach((value, i) => {
    const t = Math.max(-1, Math.min(1, (value - mean[i]) / (deviation[i] || 1) / 2.5));
    const end = t < 0 ? [84, 39, 136] : [179, 88, 6];
    pen.fillStyle = `rgb(${mixed([247, 247, 247], end, Math.abs(t)).join()})`;
    pen.fillRect((i % columns) * side, Math.floor(i / columns) * side, side - 1, side - 1);
  });
}
