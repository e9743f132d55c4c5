// What the page asks the server of `narrows explore`, on the same computer.

class Live {
  constructor(spec) {
    this.spec = spec; // base: the path of the token
    this.busy = false;
    this.next = null;
  }

  async ask(what, body, kind = "application/json") {
    const answer = await fetch(this.spec.base + what, {
      method: "POST",
      headers: { "Content-Type": kind },
      body: kind === "application/json" ? JSON.stringify(body) : body,
    });
    if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
    return answer;
  }

  async rows(what, body) { // float32 rows, each of as many numbers as the header says
    const answer = await this.ask(what, body), n = Number(answer.headers.get("X-Rows"));
    const values = new Float32Array(await answer.arrayBuffer()), d = values.length / n;
    return Array.from({ length: n }, (_, i) => values.subarray(i * d, (i + 1) * d));
  }

  decode(codes) {
    return this.rows("decode", { codes });
  }

  // As `decode`, but while one question is under way only the newest of the others is kept: a drag
  // asks more often than a large model answers. An answer that nobody needs is null.
  async latest(codes) {
    if (this.busy) {
      this.next?.resolve(null);
      return new Promise((resolve) => (this.next = { codes, resolve }));
    }
    this.busy = true;
    try {
      return await this.decode(codes);
    } catch (error) {
      this.say(error);
      return null;
    } finally {
      this.busy = false;
      const { next } = this;
      this.next = null;
      if (next) this.latest(next.codes).then(next.resolve);
    }
  }

  say(words) { // fetch fails with a TypeError where no server answers
    byId("live-note").textContent = words instanceof TypeError
      ? "No answer: the server has ended; run narrows explore again." : words.message ?? words;
  }

  listen(page) {
    const guarded = (action) => async (...given) => {
      this.say("");
      try {
        await action(...given);
      } catch (error) {
        this.say(error);
      }
    };
    const encode = guarded((file) => file && this.encode(page, file));
    byId("file").addEventListener("change", (event) => encode(event.target.files[0]));
    const drop = byId("drop");
    for (const kind of ["dragenter", "dragover"]) {
      document.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    document.addEventListener("dragleave", () => drop.classList.remove("over"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (event.dataTransfer.files.length) encode(event.dataTransfer.files[0]);
    });
    byId("corrupt").addEventListener("click", guarded(() => this.corrupt(page)));
    byId("sample")?.addEventListener("click", guarded(() => this.sample(page)));
  }

  async encode(page, file) { // a row of the user's: where is it on the map?
    if (file.size > this.spec.most) throw new Error("The file is too large to be sent.");
    const ticket = ++page.ticket;
    const answer = await this.ask("encode", file, "application/octet-stream");
    const { code, row, restored, error } = await answer.json();
    if (ticket !== page.ticket) return; // something else is shown by now
    page.hovered = -1;
    page.cursor = page.placed(code);
    this.show(page, `${file.name} · error ${number(error)}`, code, row, restored, "original");
  }

  async corrupt(page) { // noise on the row that is shown, and what the model makes of it
    const point = page.hovered, ticket = ++page.ticket;
    if (!(point >= 0)) throw new Error("Point at a row first.");
    const body = { row: page.rowNumber(point), noise: Number(byId("noise")?.value ?? 0) };
    const [noisy, restored] = await this.rows("corrupt", body);
    if (ticket !== page.ticket) return;
    this.show(page, `row ${body.row} with noise`, page.codeOf(point), noisy, restored, "with noise");
  }

  async sample(page) { // a new row, shown at the code that the encoder gives it
    const ticket = ++page.ticket;
    const { code, row } = await (await this.ask("sample", {})).json();
    if (ticket !== page.ticket) return;
    page.cursor = page.placed(code);
    page.hovered = -1;
    this.show(page, "a new sample", code, row, null, "sample");
  }

  show(page, words, code, row, restored, caption) {
    byId("what").textContent = words;
    page.code = code;
    for (const [j, slider] of page.sliders) slider.value = code[j];
    paintCode(byId("code"), code, page.spec.code.mean, page.spec.code.deviation);
    const both = Boolean(page.painter.original && restored); // one picture shows both
    byId("original-figure").hidden = both;
    if (!both) {
      const canvas = document.createElement("canvas");
      page.painter.paint(canvas, row);
      page.showOriginal(canvas, caption);
    }
    byId("restored-figure").hidden = !restored;
    if (restored) page.painter.paint(byId("restored"), restored, both ? row : null);
    byId("restored-caption").textContent = both ? `${caption} and restored` : "restored";
    page.drawOverlay();
  }
}
