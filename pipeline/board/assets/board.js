/* The page is whole without this.  It keeps the page current without a reload, says aloud what newly fires, puts ages
   beside times, and draws the charts again so that each value can be read. */
"use strict";
(() => {
  const EVERY = 3000, LOST_AFTER = 12000;
  const board = document.getElementById("board");
  const announcement = document.getElementById("announcement");
  const lost = document.getElementById("lost"), missing = document.getElementById("missing");
  let version = null, heard = Date.now(), skew = 0;

  // ---------------------------------------------------------------- the page, made like a newer one
  // Nodes stay where they can: so focus, open details, scroll and charts do.

  const kept = (node) => node.nodeType === 1 && node.hasAttribute("data-keep");

  const same = (one, other) =>
    one.nodeType === other.nodeType && one.nodeName === other.nodeName &&
    (one.nodeType !== 1 || (one.id || "") === (other.id || ""));

  function attributes(old, fresh) {
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value && !(name === "open" && old.nodeName === "DETAILS")) old.setAttribute(name, value);
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }

  function morph(old, fresh) {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    attributes(old, fresh);
    const named = new Map();
    for (const child of old.children) if (child.id) named.set(child.id, child);
    let here = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      while (here && kept(here)) here = here.nextSibling;
      if (kept(next) && [...old.children].some(kept)) continue;
      let found = next.id ? named.get(next.id) : here && same(here, next) ? here : null;
      if (!found) old.insertBefore(document.importNode(next, true), here);
      else {
        if (found === here) here = here.nextSibling;
        else old.insertBefore(found, here);
        morph(found, next);
      }
    }
    while (here) {
      const after = here.nextSibling;
      if (!kept(here)) here.remove();
      here = after;
    }
  }

  function renew(fresh) {
    const before = firing(), focused = document.activeElement;
    document.title = fresh.title;
    morph(board, fresh.getElementById("board"));
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    say(before, firing());
    dress();
  }

  // ---------------------------------------------------------------- what newly fires is said

  const firing = () => new Map([...board.querySelectorAll("[data-firing]")].map((card) => [card.id, card.dataset.firing]));

  function say(before, now) {
    const fresh = [...now.keys()].filter((id) => !before.has(id));
    const over = [...before.keys()].filter((id) => !now.has(id)).length;
    for (const id of fresh) document.getElementById(id).classList.add("arrived");
    const words = fresh.slice(0, 3).map((id) => `New alert, ${now.get(id)}.`);
    if (fresh.length > 3) words.push(`And ${fresh.length - 3} more.`);
    if (over) words.push(over === 1 ? "One alert is over." : `${over} alerts are over.`);
    if (words.length) announcement.textContent = words.join(" ");
  }

  // ---------------------------------------------------------------- ages beside times

  function aged(seconds) {
    const away = Math.abs(seconds);
    const [n, unit] = away < 90 ? [away, "s"] : away < 5400 ? [away / 60, "m"] : away < 172800 ? [away / 3600, "h"] : [away / 86400, "d"];
    return `${Math.round(n)}${unit}`;
  }

  function ages() {
    for (const time of board.querySelectorAll("time[datetime]")) {
      const at = Date.parse(time.dateTime);
      if (Number.isNaN(at)) continue;
      const seconds = (Date.now() + skew - at) / 1000, away = aged(seconds);
      const plain = time.firstChild ? time.firstChild.nodeValue.split(" (")[0] : "";
      const text = time.className === "age" ? away : `${plain} (${seconds < 0 ? `in ${away}` : `${away} ago`})`;
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // ---------------------------------------------------------------- charts

  const drawn = new WeakMap();

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function draw(figure) {
    const plot = figure.querySelector(".plot"), read = figure.querySelector(".read");
    const old = drawn.get(figure);
    if (old && old.data === figure.dataset.chart && plot.contains(old.box)) return;
    if (old) { old.graph.destroy(); old.box.remove(); drawn.delete(figure); }
    if (!plot.clientWidth) { seen.observe(figure); return; }  // its alert is closed
    const { names, rows, across, up } = JSON.parse(figure.dataset.chart);
    const box = document.createElement("div");
    box.className = "live";
    box.setAttribute("data-keep", "");
    box.setAttribute("aria-hidden", "true");
    plot.append(box);
    const series = { [names[0]]: { strokeWidth: 2 } };
    if (names.includes("bound")) series.bound = { stepPlot: true, strokePattern: [6, 4], color: colour("--bound") };
    if (names.includes("limit")) series.limit = { strokePattern: [6, 4], color: colour("--bound") };
    if (names.includes("forecast")) series.forecast = { strokePattern: [2, 4], color: colour("--observed") };
    const graph = new Dygraph(box, rows.map(([ms, ...values]) => [new Date(ms), ...values]), {
      labels: ["time", ...names], colors: names.map(() => colour("--observed")), series, labelsUTC: true,
      axes: { x: { drawAxis: false, drawGrid: false }, y: { drawAxis: false, drawGrid: false } },
      strokeWidth: 2, interactionModel: {},
      connectSeparatedPoints: names.includes("limit"), highlightCircleSize: 4, valueRange: up, dateWindow: across,
      highlightCallback: (event, x, points) => { read.value = spoken(x, points); },
      unhighlightCallback: () => { read.value = ""; },
    });
    drawn.set(figure, { graph, box, data: figure.dataset.chart });
  }

  function spoken(x, points) {
    const at = new Date(x).toISOString().replace("T", " ").slice(0, 16);
    const values = points.map((p) => `${p.name} ${p.yval.toLocaleString("en", { maximumSignificantDigits: 6 })}`);
    return `${at} UTC: ${values.join(", ")}`;
  }

  function dress() {
    ages();
    if (!window.Dygraph) return;
    for (const figure of board.querySelectorAll("figure[data-chart]")) seen.observe(figure);
    for (const figure of board.querySelectorAll("figure[data-chart]")) if (drawn.has(figure)) draw(figure);
  }

  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries)
      if (isIntersecting && target.isConnected) { seen.unobserve(target); draw(target); }
  }, { rootMargin: "400px" });

  function redraw() {
    for (const figure of board.querySelectorAll("figure[data-chart]")) {
      const old = drawn.get(figure);
      if (old) { old.data = null; draw(figure); }
    }
  }

  // ---------------------------------------------------------------- a link to an alert opens it

  function reveal() {
    const id = location.hash.slice(1), there = /^alert-[0-9a-f]+$/.test(id) ? document.getElementById(id) : null;
    missing.hidden = !id.startsWith("alert-") || there !== null;
    const inner = there && there.querySelector("details");
    for (let one = inner || there; one; one = one.parentElement) if (one.nodeName === "DETAILS") one.open = true;
    if (there) there.scrollIntoView();
  }

  // ---------------------------------------------------------------- the next page

  async function poll() {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.pathname, { cache: "no-cache", signal: AbortSignal.timeout(10000) });
      const text = await answer.text();
      const fresh = new DOMParser().parseFromString(text, "text/html");
      if (!fresh.getElementById("board")) throw new Error(`HTTP ${answer.status}`);
      heard = Date.now();
      const said = Date.parse(answer.headers.get("date"));
      if (!Number.isNaN(said) && Math.abs(said - heard) > 5000) skew = said - heard;
      if (answer.headers.get("etag") !== version) { version = answer.headers.get("etag"); renew(fresh); }
      lost.hidden = true;
    } catch (error) {
      if (Date.now() - heard > LOST_AFTER && lost.hidden) {
        lost.textContent = `The board does not answer. What is below is as of ${new Date(heard).toISOString().slice(11, 19)} UTC, not now.`;
        lost.hidden = false;
      }
    }
  }

  if (window.Dygraph) Dygraph.PLUGINS = Dygraph.PLUGINS.filter((one) => one !== Dygraph.Plugins.Legend);
  dress();
  reveal();
  addEventListener("hashchange", reveal);
  setInterval(poll, EVERY);
  setInterval(ages, 5000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { heard = Date.now(); poll(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
