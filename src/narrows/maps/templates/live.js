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

  say(words) {
    const text = words instanceof Error ? words.message : words;
    byId("live-note").textContent = text === "Failed to fetch"
      ? "The server has ended; run narrows explore again." : text;
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
    const encode = guarded((file) => this.encode(page, file));
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
    const answer = await this.ask("encode", file, "application/octet-stream");
    const { code, row, restored, error } = await answer.json();
    page.ticket++;
    page.hovered = -1;
    page.cursor = page.projected(code);
    if (page.k === 1) page.cursor[1] = 0;
    this.show(page, `${file.name} · error ${number(error)}`, code, row, restored, "original");
  }

  async corrupt(page) { // noise on the row that is shown, and what the model makes of it
    if (!(page.hovered >= 0)) throw new Error("Point at a row first.");
    const body = { row: page.rowNumber(page.hovered), noise: Number(byId("noise").value) };
    const [noisy, restored] = await this.rows("corrupt", body);
    this.show(page, `row ${body.row} with noise`, page.codeOf(page.hovered), noisy, restored, "with noise");
  }

  async sample(page) { // a code from the prior
    const { code, row } = await (await this.ask("sample", {})).json();
    const place = page.projected(code);
    page.cursor = page.k === 1 ? [place[0], 0] : place;
    page.hovered = -1;
    page.ticket++;
    this.show(page, "a new sample", code, row, null, "sample");
  }

  show(page, words, code, row, restored, caption) {
    byId("what").textContent = words;
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
