"use strict";
// The explorer: opens an utterance's data when asked to and draws them. Texts are untrusted and are
// only ever set as text.
(() => {
  const waiting = new Map(); // by run and id: what receives the data of a script under way
  // Colour and dashes of a line; hues of Okabe and Ito, as dark or light as the page needs.
  const LINES = { ca: ["--line-ca", []], smx: ["--line-smx", []], smh: ["--line-smh", [8, 3]],
    grad: ["--line-grad", [3, 3]], other: ["--ink", [8, 3, 2, 3]] };
  const SHORTEST = 0.2; // seconds that are played: less cannot be heard

  window.s2txaiExplorer = (record) => {
    const receive = waiting.get(keyOf(record.run, record.id));
    if (receive) receive(record);
  };

  const keyOf = (run, id) => JSON.stringify([run, id]);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const seconds = (value) => value.toFixed(2);
  const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // ---- data

  function load(run, id, source) {
    return new Promise((resolve, reject) => {
      const key = keyOf(run, id);
      const tag = element("script", { src: source });
      const finish = (settle, value) => {
        waiting.delete(key);
        tag.remove();
        settle(value);
      };
      const missing = () => finish(reject, new Error(`The data ${source} cannot be read; they belong beside the page.`));
      waiting.set(key, (record) => finish(resolve, record));
      tag.onerror = missing;
      tag.onload = () => { if (waiting.has(key)) missing(); };
      document.head.append(tag);
    });
  }

  async function inflate(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function unpack(array) {
    const [levels, scale] = await Promise.all([inflate(array.data), inflate(array.scale)]);
    const bounds = new Float32Array(scale.buffer);
    const size = levels.length / (bounds.length / 2);
    return { ...array, levels, bounds, size };
  }

  // The row's values; its cells are those of one token.
  function rowOf(array, row) {
    const low = array.bounds[2 * row];
    const high = array.bounds[2 * row + 1];
    const values = new Float32Array(array.size);
    const first = row * array.size;
    for (let i = 0; i < array.size; i++) {
      values[i] = low + (array.levels[first + i] / 255) * (high - low);
    }
    return values;
  }

  // Attention of a token: one head, or the mean over those chosen ("mean").
  function attentionOf(array, layer, head, token) {
    const [L, H, I, steps] = array.shape;
    const chosen = (choice, n) => (choice === "mean" ? [...Array(n).keys()] : [Number(choice)]);
    const sum = new Float32Array(steps);
    const heads = chosen(layer, L).flatMap((l) => chosen(head, H).map((h) => l * H + h));
    for (const index of heads) {
      rowOf(array, index * I + token).forEach((value, step) => { sum[step] += value / heads.length; });
    }
    return sum;
  }

  // ---- numbers

  const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  function correlation(a, b) {
    const [meanA, meanB] = [meanOf(a), meanOf(b)];
    let [both, squareA, squareB] = [0, 0, 0];
    for (let i = 0; i < a.length; i++) {
      both += (a[i] - meanA) * (b[i] - meanB);
      squareA += (a[i] - meanA) ** 2;
      squareB += (b[i] - meanB) ** 2;
    }
    return squareA > 0 && squareB > 0 ? both / Math.sqrt(squareA * squareB) : NaN;
  }

  // 0 up to the row's mean, 1 at its maximum: what stands out.
  function excess(values) {
    const mean = meanOf(values);
    const span = values.reduce((most, value) => Math.max(most, value), -Infinity) - mean;
    return values.map((value) => (span > 0 ? Math.max(0, (value - mean) / span) : 0));
  }

  function meanOverBins(values, bins) {
    const columns = new Float32Array(values.length / bins);
    values.forEach((value, i) => { columns[Math.floor(i / bins)] += value / bins; });
    return columns;
  }

  // Around the maximum, as far as the excess is at least half of the greatest.
  function regionOf(row) {
    const shares = excess(row.columns);
    const top = shares.indexOf(Math.max(...shares));
    let [first, last] = [top, top];
    while (first > 0 && shares[first - 1] >= 0.5) first--;
    while (last < shares.length - 1 && shares[last + 1] >= 0.5) last++;
    return { start: first * row.width, end: Math.min((last + 1) * row.width, row.duration) };
  }

  // ---- drawing

  // Sizes the bitmap to the screen's pixels and returns a context in CSS pixels.
  function prepared(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return { context, width, height };
  }

  // A bitmap of columns by bins, the lowest bin at the bottom; paint(i) gives red, green, blue, alpha.
  function bitmap(columns, bins, paint) {
    const canvas = element("canvas", { width: columns, height: bins });
    const image = new ImageData(columns, bins);
    for (let column = 0; column < columns; column++) {
      for (let bin = 0; bin < bins; bin++) {
        image.data.set(paint(column * bins + bin), 4 * ((bins - 1 - bin) * columns + column));
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  function channels(name) {
    const value = Number.parseInt(colourOf(name).slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  }

  const between = (from, to, share) => from.map((value, i) => value + share * (to[i] - value));

  function inputBitmap(input) {
    const [page, ink] = [channels("--page"), channels("--ink")];
    const [columns, bins] = input.shape;
    return bitmap(columns, bins, (i) => [...between(page, ink, (0.75 * input.levels[i]) / 255), 255]);
  }

  // One hue from faint to strong: told apart with any colour vision, and by lightness alone.
  function overlayBitmap(row) {
    const [faint, strong] = [channels("--overlay-faint"), channels("--overlay-strong")];
    const shares = excess(row.values);
    const paint = (i) => [...between(faint, strong, shares[i]), 235 * Math.sqrt(shares[i])];
    return bitmap(row.values.length / row.bins, row.bins, paint);
  }

  function drawMap(canvas, view, row) {
    const { context, width, height } = prepared(canvas);
    context.imageSmoothingEnabled = false;
    // A last cell that is only partly filled ends beyond the edge.
    const place = (image, cellWidth) => context.drawImage(
      image, 0, 0, (image.width * cellWidth * width) / view.duration, height);
    place(inputBitmap(view.input), view.input.cell[0] * view.frameShift);
    if (row) place(overlayBitmap(row), row.width);
  }

  function drawLines(canvas, view, rows) {
    const { context, width, height } = prepared(canvas);
    const bottom = height - 20;
    drawTimes(context, view.duration, width, bottom);
    for (const { row, style } of rows) {
      const [low, high] = row.columns.reduce(
        ([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
      context.beginPath();
      row.columns.forEach((value, i) => {
        const share = high > low ? (value - low) / (high - low) : 0;
        context.lineTo(((i + 0.5) * row.width * width) / view.duration, bottom - 4 - share * (bottom - 10));
      });
      context.strokeStyle = colourOf(style[0]);
      context.setLineDash(style[1]);
      context.lineWidth = 2;
      context.stroke();
    }
  }

  function drawTimes(context, duration, width, bottom) {
    const every = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((step) => duration / step < width / 60) || 60;
    context.font = "12px system-ui, sans-serif";
    context.lineWidth = 1;
    for (let i = 0; i * every <= duration; i++) {
      const x = (i * every * width) / duration;
      context.strokeStyle = colourOf("--line");
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, bottom);
      context.stroke();
      context.fillStyle = colourOf("--soft");
      context.textAlign = i === 0 ? "left" : x > width - 30 ? "right" : "center";
      context.fillText(`${Number((i * every).toFixed(1))} s`, x, bottom + 15);
    }
  }

  // ---- one utterance

  function option(value, label) {
    return element("option", { value, textContent: label });
  }

  function labelled(text, control) {
    return element("label", {}, element("span", { textContent: text }), control);
  }

  async function viewOf(record) {
    const [input, attention, maps] = await Promise.all([
      unpack(record.input), unpack(record.attention), Promise.all(record.maps.map(unpack)),
    ]);
    return { ...record, input, attention, maps, duration: record.frames * record.frameShift };
  }

  // A row of a map for drawing: its cells, and their mean over bins on the axis of time.
  function savedRow(view, map, token) {
    const values = rowOf(map, token);
    const bins = map.shape[2];
    const full = map.name === "smx_full";
    const width = map.cell[0] * view.frameShift * (full ? 1 : view.subsampling);
    return { values, bins, columns: meanOverBins(values, bins), width, duration: view.duration };
  }

  function attentionRow(view, state) {
    const values = attentionOf(view.attention, state.layer, state.head, state.token);
    const width = view.frameShift * view.subsampling;
    return { values, bins: 1, columns: values, width, duration: view.duration };
  }

  function rowsOf(view, state) {
    const attention = attentionRow(view, state);
    const maps = view.maps.map((map) => ({ name: map.name, label: map.label, row: savedRow(view, map, state.token) }));
    return [{ name: "ca", label: "CA", row: attention }, ...maps];
  }

  function controlsOf(view) {
    const [L, H] = view.attention.shape;
    const numbers = (n) => [...Array(n).keys()].map((i) => option(String(i), String(i)));
    return {
      map: element("select", {}, option("ca", "CA"), ...view.maps.map((map) => option(map.name, map.label)), option("none", "none")),
      layer: element("select", {}, option("mean", "mean of all"), ...numbers(L)),
      head: element("select", {}, option("mean", "mean"), ...numbers(H)),
      play: element("button", { type: "button", className: "play", textContent: "Play region" }),
    };
  }

  // Of tokens in a row: that of the hypothesis, whatever tags it begins with.
  function directionOf(text) {
    const letter = text.match(/\p{L}/u);
    const leftwards = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;
    return letter && leftwards.test(letter[0]) ? "rtl" : "ltr";
  }

  // Text of either direction within an English sentence.
  function isolated(text) {
    return `\u2068${text}\u2069`;
  }

  function tokenButton(token, index) {
    const made = element("div", { className: "token", tabIndex: -1, textContent: token.label });
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", "false");
    made.dataset.index = String(index);
    made.title = token.logProb === null ? token.role : `${token.role}, log-probability ${token.logProb.toFixed(2)} nat`;
    return made;
  }

  function tokenList(view) {
    const list = element("div", { className: "tokens", lang: view.language, dir: directionOf(view.text) }, ...view.tokens.map(tokenButton));
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Predicted tokens: arrow keys choose, Enter plays");
    list.setAttribute("aria-orientation", "horizontal");
    return list;
  }

  function picture(className) {
    const canvas = element("canvas", { className });
    canvas.setAttribute("role", "img");
    return canvas;
  }

  function partsOf(view) {
    const audio = element("audio", { controls: true, preload: "auto", src: view.audio });
    audio.setAttribute("aria-label", `Recording of ${view.id}`);
    const status = element("p", { className: "soft status" });
    status.setAttribute("role", "status");
    return {
      ...controlsOf(view), audio, status, tokens: tokenList(view), above: picture("map"), below: picture("lines"),
      region: element("div", { className: "region" }), head_: element("div", { className: "playhead" }),
      legend: element("ul", { className: "legend" }), heads: element("table", { className: "heads" }),
    };
  }

  function textLine(view, label, text) {
    return element("p", {}, element("span", { className: "label", textContent: label }),
      element("span", { textContent: text || "(empty)", lang: view.language, dir: "auto" }));
  }

  function layOut(panel, view, parts) {
    const cut = view.offset > 0 ? `, from ${seconds(view.offset)} s of its recording on` : "";
    const heads = element("div", { className: "scroll", tabIndex: 0 }, parts.heads);
    heads.setAttribute("role", "group");
    heads.setAttribute("aria-label", "Table: layers by heads");
    const drawn = element("div", { className: "drawn" }, parts.above, parts.below, parts.region, parts.head_);
    panel.replaceChildren(
      element("h4", { textContent: view.id, tabIndex: -1 }),
      textLine(view, "hypothesis", view.text), textLine(view, "reference", view.reference),
      parts.audio, element("p", { className: "soft", textContent: `${seconds(view.duration)} s of speech${cut}` }),
      parts.tokens,
      element("div", { className: "controls" }, labelled("Overlay", parts.map), labelled("Layer of CA", parts.layer),
        labelled("Head of CA", parts.head), parts.play),
      drawn, parts.status, parts.legend, heads);
  }

  function legendItem(entry, attention) {
    const [colour, dashes] = entry.style;
    const swatch = element("span", { className: "swatch" });
    const line = !dashes.length ? "solid" : dashes[0] > 3 ? "dashed" : "dotted";
    swatch.style.borderTop = `3px ${line} var(${colour})`;
    const rho = entry.row.columns.length === attention.columns.length && entry.name !== "ca"
      ? correlation(entry.row.columns, attention.columns) : NaN;
    const text = Number.isNaN(rho) ? entry.label : `${entry.label} (ρ with CA ${rho.toFixed(2).replace("-", "−")})`;
    return element("li", {}, swatch, text);
  }

  // One map of each kind, and the chosen one: more lines could not be told apart.
  function linesOf(rows, chosen) {
    const firstSmx = rows.find((entry) => entry.name.startsWith("smx_"));
    const styleOf = (entry) => {
      if (entry === firstSmx) return LINES.smx;
      if (["ca", "smh", "grad"].includes(entry.name)) return LINES[entry.name];
      return entry.name === chosen ? LINES.other : null;
    };
    return rows.map((entry) => ({ ...entry, style: styleOf(entry) })).filter((entry) => entry.style);
  }

  // The saliency that heads are compared with: the one chosen, else that of the encoder's output.
  function comparedWith(rows, chosen) {
    const steps = rows[0].row.columns.length;
    const usable = rows.slice(1).filter((entry) => entry.row.columns.length === steps);
    return [chosen, "smh"].map((name) => usable.find((entry) => entry.name === name)).find(Boolean) || usable[0];
  }

  function headCell(view, state, entry, layer, head) {
    const rho = correlation(attentionOf(view.attention, layer, head, state.token), entry.row.columns);
    const cell = element("td", { textContent: Number.isNaN(rho) ? "–" : rho.toFixed(2).replace("-", "−") });
    // At most half of the hue, so that the number on it can be read.
    const hue = rho < 0 ? "--line-smx" : "--line-ca";
    cell.style.background = `color-mix(in srgb, var(${hue}) ${Math.round(50 * Math.abs(rho || 0))}%, var(--page))`;
    cell.classList.toggle("chosen", layer === state.layer && head === state.head);
    Object.assign(cell.dataset, { layer, head });
    return cell;
  }

  // Layers by heads for one token: which head looks where the model is sensitive?
  function headTable(view, state, entry) {
    const [L, H] = view.attention.shape;
    const heads = [...Array(H).keys(), "mean"].map(String);
    const title = (scope, text) => element("th", { scope, textContent: text });
    const line = (layer, text) => element("tr", {}, title("row", text), ...heads.map((head) => headCell(view, state, entry, layer, head)));
    const caption = `ρ of each head with ${entry.label} for “${isolated(view.tokens[state.token].label)}”: rows are decoder layers, columns heads; a click chooses`;
    const layers = [...Array(L).keys()].map((layer) => line(String(layer), String(layer)));
    return [
      element("caption", { textContent: caption }),
      element("thead", {}, element("tr", {}, element("td"), ...heads.map((head) => title("col", head)))),
      element("tbody", {}, ...layers, line("mean", "all")),
    ];
  }

  function nameOfChoice(state, label) {
    if (state.map !== "ca") return label;
    const layer = state.layer === "mean" ? "all layers" : `layer ${state.layer}`;
    return `CA, ${layer}, ${state.head === "mean" ? "mean of heads" : `head ${state.head}`}`;
  }

  function show(panel, view) {
    const state = { token: 0, map: "ca", layer: "mean", head: "mean", region: null, stopAt: Infinity };
    const parts = partsOf(view);
    layOut(panel, view, parts);

    function draw() {
      const rows = rowsOf(view, state);
      const chosen = rows.find((entry) => entry.name === state.map);
      const lines = linesOf(rows, state.map);
      drawMap(parts.above, view, chosen && chosen.row);
      drawLines(parts.below, view, lines);
      parts.legend.replaceChildren(...lines.map((line) => legendItem(line, rows[0].row)));
      parts.heads.replaceChildren(...headTable(view, state, comparedWith(rows, state.map)));
      state.region = regionOf((chosen || rows[0]).row);
      describe(chosen);
      movePlayhead();
    }

    function describe(chosen) {
      const token = view.tokens[state.token].label;
      const name = nameOfChoice(chosen ? state : { ...state, map: "ca" }, chosen && chosen.label);
      const { start, end } = state.region;
      parts.status.textContent = `“${isolated(token)}”: most salient ${seconds(start)}–${seconds(end)} s (${name})`;
      parts.above.setAttribute("aria-label", `${view.timeOnly ? "Waveform" : "Spectrogram"} with ${parts.status.textContent}`);
      parts.below.setAttribute("aria-label", `Rows of the maps for the token ${token}, each from its least to its greatest value`);
      parts.region.style.left = `${(100 * start) / view.duration}%`;
      parts.region.style.width = `${(100 * (end - start)) / view.duration}%`;
    }

    function movePlayhead() {
      parts.head_.style.left = `${clamp((100 * parts.audio.currentTime) / view.duration, 0, 100)}%`;
    }

    function follow() {
      movePlayhead();
      if (parts.audio.currentTime >= state.stopAt) {
        state.stopAt = Infinity;
        parts.audio.pause();
      }
      if (!parts.audio.paused && parts.audio.isConnected) requestAnimationFrame(follow);
    }

    function playRegion() {
      const { start, end } = state.region;
      const more = Math.max(0, SHORTEST - (end - start)) / 2;
      parts.audio.currentTime = Math.max(0, start - more);
      state.stopAt = end + more;
      parts.audio.play().catch((error) => { parts.status.textContent = `Cannot play: ${error.message}`; });
    }

    function choose(index, focus) {
      state.token = clamp(index, 0, view.tokens.length - 1);
      [...parts.tokens.children].forEach((token, i) => {
        token.setAttribute("aria-selected", String(i === state.token));
        token.tabIndex = i === state.token ? 0 : -1;
      });
      if (focus) parts.tokens.children[state.token].focus();
      draw();
    }

    function onKey(event) {
      const right = directionOf(view.text) === "rtl" ? -1 : 1;
      const moves = { ArrowRight: right, ArrowDown: 1, ArrowLeft: -right, ArrowUp: -1, Home: -Infinity, End: Infinity };
      if (event.key in moves) choose(state.token + moves[event.key], true);
      else if (event.key === "Enter" || event.key === " ") playRegion();
      else return;
      event.preventDefault();
    }

    function seek(event) {
      const box = parts.above.getBoundingClientRect();
      state.stopAt = Infinity;
      parts.audio.currentTime = clamp((event.clientX - box.left) / box.width, 0, 1) * view.duration;
    }

    parts.tokens.addEventListener("click", (event) => {
      const token = event.target.closest(".token");
      if (token) choose(Number(token.dataset.index), true);
    });
    parts.tokens.addEventListener("keydown", onKey);
    for (const name of ["map", "layer", "head"]) {
      parts[name].addEventListener("change", () => { state[name] = parts[name].value; draw(); });
    }
    parts.heads.addEventListener("click", (event) => {
      const cell = event.target.closest("td[data-head]");
      if (!cell) return;
      for (const name of ["layer", "head"]) state[name] = parts[name].value = cell.dataset[name];
      draw();
    });
    parts.play.addEventListener("click", playRegion);
    parts.audio.addEventListener("play", follow);
    parts.audio.addEventListener("seeked", movePlayhead);
    parts.above.addEventListener("click", seek);
    parts.below.addEventListener("click", seek);
    choose(0, false);
    return draw;
  }

  // ---- the list of utterances of a run

  function start(section) {
    const panel = section.querySelector(".panel");
    const entries = [...section.querySelectorAll("button[data-source]")];
    const filter = section.querySelector("input");
    let [redraw, latest] = [() => {}, null];

    async function open(button) {
      latest = button;
      entries.forEach((entry) => entry.setAttribute("aria-pressed", String(entry === button)));
      panel.hidden = false;
      panel.setAttribute("aria-busy", "true");
      // A recording that is no longer shown would play on.
      panel.querySelectorAll("audio").forEach((audio) => audio.pause());
      try {
        const record = await load(section.dataset.run, button.dataset.id, button.dataset.source);
        const view = await viewOf(record);
        if (latest === button) redraw = show(panel, view);
      } catch (error) {
        if (latest === button) panel.textContent = error.message;
      }
      if (latest === button) panel.removeAttribute("aria-busy");
    }

    function narrow() {
      const wanted = filter.value.toLowerCase();
      for (const entry of entries) entry.parentElement.hidden = !entry.textContent.toLowerCase().includes(wanted);
    }

    section.querySelector("[data-needs-script]").hidden = false;
    entries.forEach((entry) => entry.addEventListener("click", () => open(entry)));
    if (filter) filter.addEventListener("input", narrow);
    new ResizeObserver(() => { if (panel.querySelector("canvas")) redraw(); }).observe(panel);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
  }

  document.querySelectorAll(".explorer").forEach(start);
})();
