// The decoder g in the page: the layers that maps/page_decoder.py exports, for one code at a time.
// A row is {data: Float32Array, shape: [channels, height, width]}; sums are in double precision.

const ERF = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429];

function erf(x) { // Abramowitz and Stegun 7.1.26: the error is below 1.5e-7
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = ERF.reduceRight((total, a) => (total + a) * t, 0);
  const y = 1 - sum * Math.exp(-x * x);
  return x < 0 ? -y : y;
}

const ELEMENTWISE = {
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => (x > 0 ? x : 0),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};

function dense(layer, row, weights) {
  const { in: n, out, W, b } = layer;
  const given = row.data, found = new Float32Array(out);
  for (let i = 0; i < out; i++) {
    let total = weights[b + i];
    for (let j = 0, w = W + i * n; j < n; j++) total += weights[w + j] * given[j];
    found[i] = total;
  }
  return { data: found, shape: [out, 1, 1] };
}

function conv(layer, row, weights) {
  const [, height, width] = row.shape, [kh, kw] = layer.kernel, [sh, sw] = layer.stride;
  const [ph, pw] = layer.padding, { in: into, out, W, b } = layer;
  const tall = Math.floor((height + 2 * ph - kh) / sh) + 1;
  const wide = Math.floor((width + 2 * pw - kw) / sw) + 1;
  const found = new Float32Array(out * tall * wide), sums = new Float64Array(tall * wide);
  for (let o = 0; o < out; o++) {
    sums.fill(weights[b + o]);
    for (let c = 0; c < into; c++) for (let i = 0; i < kh; i++) for (let j = 0; j < kw; j++) {
      const w = weights[W + ((o * into + c) * kh + i) * kw + j];
      for (let y = 0; y < tall; y++) {
        const top = y * sh + i - ph;
        if (top < 0 || top >= height) continue;
        const start = (c * height + top) * width + j - pw;
        for (let x = 0; x < wide; x++) {
          const left = x * sw + j - pw;
          if (left >= 0 && left < width) sums[y * wide + x] += w * row.data[start + x * sw];
        }
      }
    }
    found.set(sums, o * tall * wide);
  }
  return { data: found, shape: [out, tall, wide] };
}

function transposed(layer, row, weights) { // weights are (in, out, kernel), as torch has them
  const [, height, width] = row.shape, [kh, kw] = layer.kernel, [sh, sw] = layer.stride;
  const [ph, pw] = layer.padding, [eh, ew] = layer.extra, { in: into, out, W, b } = layer;
  const tall = (height - 1) * sh - 2 * ph + kh + eh, wide = (width - 1) * sw - 2 * pw + kw + ew;
  const found = new Float32Array(out * tall * wide), sums = new Float64Array(tall * wide);
  for (let o = 0; o < out; o++) {
    sums.fill(weights[b + o]);
    for (let c = 0; c < into; c++) for (let i = 0; i < kh; i++) for (let j = 0; j < kw; j++) {
      const w = weights[W + ((c * out + o) * kh + i) * kw + j];
      for (let y = 0; y < height; y++) {
        const top = y * sh + i - ph;
        if (top < 0 || top >= tall) continue;
        for (let x = 0; x < width; x++) {
          const left = x * sw + j - pw;
          if (left >= 0 && left < wide) {
            sums[top * wide + left] += w * row.data[(c * height + y) * width + x];
          }
        }
      }
    }
    found.set(sums, o * tall * wide);
  }
  return { data: found, shape: [out, tall, wide] };
}

// Where a side of `large` takes its values from: [lower place, upper place, share of the upper].
function sources(small, large, mode) {
  return Array.from({ length: large }, (_, i) => {
    if (mode === "crop") return [i, i, 0];
    if (mode === "nearest") return [Math.floor((i * small) / large), 0, 0];
    const at = Math.max(0, ((i + 0.5) * small) / large - 0.5), low = Math.floor(at);
    return [low, Math.min(low + 1, small - 1), at - low];
  });
}

function resize(layer, row) {
  const [channels, height, width] = row.shape, [tall, wide] = layer.size;
  const rows = sources(height, tall, layer.mode), columns = sources(width, wide, layer.mode);
  const found = new Float32Array(channels * tall * wide);
  for (let c = 0; c < channels; c++) for (let y = 0; y < tall; y++) for (let x = 0; x < wide; x++) {
    const [top, below, down] = rows[y], [left, right, across] = columns[x];
    const at = (i, j) => row.data[(c * height + i) * width + j];
    const upper = at(top, left) * (1 - across) + (across ? at(top, right) * across : 0);
    const lower = down ? at(below, left) * (1 - across) + at(below, right) * across : 0;
    found[(c * tall + y) * wide + x] = upper * (1 - down) + lower * down;
  }
  return { data: found, shape: [channels, tall, wide] };
}

function shuffle(layer, row) { // the pixel shuffle
  const [many, height, width] = row.shape, [fh, fw] = layer.factors;
  const channels = many / (fh * fw), tall = height * fh, wide = width * fw;
  const found = new Float32Array(row.data.length);
  for (let c = 0; c < channels; c++) for (let y = 0; y < tall; y++) for (let x = 0; x < wide; x++) {
    const from = (c * fh + (y % fh)) * fw + (x % fw);
    found[(c * tall + y) * wide + x] =
      row.data[(from * height + Math.floor(y / fh)) * width + Math.floor(x / fw)];
  }
  return { data: found, shape: [channels, tall, wide] };
}

function channelsFirst(layer, row) {
  const [channels, height, width] = layer.shape, size = height * width;
  const found = new Float32Array(row.data.length);
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < size; i++) found[c * size + i] = row.data[i * channels + c];
  }
  return { data: found, shape: layer.shape };
}

// Which of `n` values belongs to an element: one for all, one for each channel, or its own.
function owner(n, row) {
  const size = row.shape[1] * row.shape[2];
  if (n === 1) return () => 0;
  return n === row.data.length ? (i) => i : (i) => Math.floor(i / size);
}

function halfToEven(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

const LAYERS = {
  dense,
  conv,
  transposed,
  resize,
  shuffle,
  "channels-first": channelsFirst,
  shape: (layer, row) => ({ data: row.data, shape: layer.shape }),
  sum: (layer, row, weights) => {
    const [a, b] = layer.parts.map((part) => forward(part, row, weights));
    return { data: a.data.map((value, i) => value + b.data[i]), shape: a.shape };
  },
  clamp: (layer, row, weights) => {
    const at = owner(layer.n, row);
    const within = (x, i) =>
      Math.min(Math.max(x, weights[layer.low + at(i)]), weights[layer.high + at(i)]);
    return { data: row.data.map(within), shape: row.shape };
  },
  affine: (layer, row) => { // in double precision: units such as seconds since 1970 need it
    const scale = owner(layer.scale.length, row), shift = owner(layer.shift.length, row);
    const data = Float64Array.from(
      row.data, (x, i) => x * layer.scale[scale(i)] + layer.shift[shift(i)]);
    return { data, shape: row.shape };
  },
  round: (layer, row) => {
    const whole = (x) => Math.min(Math.max(halfToEven(x), layer.low), layer.high);
    return { data: row.data.map(whole), shape: row.shape };
  },
};

function forward(layers, row, weights) {
  for (const layer of layers) {
    const each = ELEMENTWISE[layer.op];
    row = each
      ? { data: row.data.map(each), shape: row.shape }
      : LAYERS[layer.op](layer, row, weights);
  }
  return row;
}

// The function from a code, an array of numbers, to the values of a row in the user's units.
function makeDecoder(layers, weights) {
  return (code) => {
    const row = { data: Float32Array.from(code), shape: [code.length, 1, 1] };
    return forward(layers, row, weights).data;
  };
}
