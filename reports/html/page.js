"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // theme: the system's, until the reader says otherwise
  const theme = byId("theme");
  const remembered = (() => { try { return localStorage.getItem("kitt-theme"); } catch { return null; } })();
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const sayTheme = () => {
    theme.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("kitt-theme", root.dataset.theme); } catch { /* a page that may keep nothing */ }
    sayTheme();
  });
  theme.hidden = false;
  sayTheme();

  // copy
  for (const button of all("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = byId(button.dataset.copy);
      let said = "Copied";
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        getSelection().selectAllChildren(source);
        said = document.execCommand("copy") ? "Copied" : "Selected";
      }
      button.textContent = said;
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  // sorting: numbers by their value, texts by the alphabet, what is missing last
  const valueOf = (row, place) => {
    const cell = row.cells[place];
    return "v" in cell.dataset ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent.trim();
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  for (const table of all("table.main")) {
    const heads = all("thead th", table);
    heads.forEach((head, place) => {
      const button = head.querySelector("button");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, place), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return down ? compare(b, a) : compare(a, b);
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  // filtering
  const filter = byId("filter");
  if (filter) {
    const words = byId("words"), cell = byId("cell"), count = byId("count");
    const outcomes = all("input[type=checkbox]", filter);
    const rows = all("tr[data-r]"), results = all("details[data-r]");
    const texts = new Map();
    for (const one of [...rows, ...results.map((r) => r.querySelector("summary")), ...results.map((r) => r.querySelector(".reason"))]) {
      if (!one) continue;
      const id = (one.closest("[data-r]")).dataset.r;
      texts.set(id, `${texts.get(id) || ""} ${one.textContent}`);
    }
    const named = new Map(all("section[data-c]").map((s) => [s.dataset.c, s.querySelector("h3").textContent]));
    const ids = new Map(rows.map((row) => [row.dataset.r, row.dataset]));
    for (const [id, data] of ids) texts.set(id, `${texts.get(id)} ${named.get(data.c)}`.toLowerCase());
    const apply = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const allowed = new Set(outcomes.filter((box) => box.checked).map((box) => box.value));
      const shown = new Set();
      for (const [id, data] of ids) {
        const fits = allowed.has(data.o) && (cell.value === "" || cell.value === data.c);
        if (fits && wanted.every((word) => texts.get(id).includes(word))) shown.add(id);
      }
      for (const one of [...rows, ...results]) one.hidden = !shown.has(one.dataset.r);
      for (const section of all("section[data-c]")) section.hidden = !section.querySelector("tr[data-r]:not([hidden])");
      count.textContent = `${shown.size} of ${ids.size} results`;
    };
    filter.addEventListener("input", apply);
    filter.addEventListener("submit", (event) => event.preventDefault());
    filter.addEventListener("reset", () => setTimeout(apply));
    filter.hidden = false;
    apply();
    byId("expand").addEventListener("click", () => {
      const closed = results.filter((one) => !one.hidden && !one.open);
      for (const one of results) if (!one.hidden) one.open = closed.length > 0;
    });
  }

  // a link to a result opens it
  const open = () => {
    const target = /^#r\d+$/.test(location.hash) && byId(location.hash.slice(1));
    if (!target) return;
    if (target.hidden && filter) filter.reset();
    target.open = true;
    setTimeout(() => target.scrollIntoView());
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => { if (event.target.closest && event.target.closest("a[href^='#r']")) setTimeout(open); });
  open();

  // the value under the pointer
  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const digits = (v) => (Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : v.toFixed(2));
  const inMs = (v) => (v >= 1000 ? `${digits(v / 1000)} s` : v > 0 && v < 0.1 ? `${digits(v * 1000)} µs` : `${digits(v)} ms`);
  const point = (event) => {
    const chart = event.target.closest && event.target.closest("svg[data-x]");
    for (const old of all("svg .here")) if (old.ownerSVGElement !== chart) old.remove();
    if (!chart) return;
    const [low, high, start, stop] = chart.dataset.x.split(" ").map(Number);
    const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
    const at = Math.min(stop, Math.max(start, x));
    const ms = low + ((at - start) / (stop - start)) * (high - low);
    let said = inMs(ms);
    const line = chart.querySelector("polyline");
    if (line && chart.dataset.y) {
      const [bottom, top] = chart.dataset.y.split(" ").map(Number);
      const points = [...line.points];
      const after = points.findIndex((p) => p.x >= at);
      const b = points[after < 0 ? points.length - 1 : after], a = points[Math.max(0, after - 1)] || b;
      const y = b.x > a.x ? a.y + ((at - a.x) / (b.x - a.x)) * (b.y - a.y) : b.y;
      said = `${(100 * Math.min(1, Math.max(0, (bottom - y) / (bottom - top)))).toFixed(1)} % within ${said}`;
    }
    let here = chart.querySelector(".here");
    if (!here) {
      here = svg("g", { class: "here", "aria-hidden": "true" });
      here.append(svg("line", { class: "cross" }), svg("text", {}));
      chart.append(here);
    }
    const [cross, text] = here.children, box = chart.viewBox.baseVal;
    for (const [key, value] of [["x1", at], ["x2", at], ["y1", 8], ["y2", box.height - 22]]) cross.setAttribute(key, value);
    const right = at > box.width * 0.6;
    text.setAttribute("x", at + (right ? -5 : 5));
    text.setAttribute("y", 9);
    text.setAttribute("text-anchor", right ? "end" : "start");
    text.textContent = said;
  };
  document.addEventListener("pointermove", point, { passive: true });
})();
