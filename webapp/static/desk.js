// What the pages do beyond HTML: live progress, times in the viewer's zone, copying. Everything works without it.
"use strict";
(() => {
  const EVERY = 2000; // ms between looks at the progress
  const SWAP_EVERY = 4000; // ms at least between looks at the whole page
  const main = document.getElementById("main");

  // -- times: the exact one on hover, in the viewer's zone and in UTC
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];
  function ago(seconds) {
    for (const [unit, name] of UNITS) {
      if (Math.abs(seconds) >= unit) {
        const count = Math.floor(Math.abs(seconds) / unit);
        return seconds > 0 ? `${count} ${name} ago` : `in ${count} ${name}`;
      }
    }
    return seconds > -1 ? "just now" : "in a moment";
  }
  function tellTimes() {
    for (const node of document.querySelectorAll("time[datetime]")) {
      const when = new Date(node.dateTime);
      const seconds = (Date.now() - when) / 1000;
      if (Math.abs(seconds) <= 30 * 86400) node.textContent = ago(seconds);
      const utc = when.toISOString().slice(0, 19).replace("T", " ");
      node.title = `${when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" })}\n${utc} UTC`;
    }
  }
  tellTimes();
  // On a narrow screen the menu is one line: its present place is brought into sight.
  document.querySelector(".masthead [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  setInterval(() => document.hidden || tellTimes(), 30000);

  // -- copying: the button appears where it can work
  function offerCopying(root) {
    if (!navigator.clipboard) return;
    for (const button of root.querySelectorAll("button.copy")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.closest(".payload").querySelector("pre").textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
    }
  }
  offerCopying(document);

  // -- how many the ticked classes are together
  const sum = document.querySelector("[data-sum]");
  if (sum) {
    const boxes = [...document.querySelectorAll("input[data-count]")];
    const tell = () => {
      const count = boxes.reduce((total, box) => total + (box.checked ? Number(box.dataset.count) : 0), 0);
      sum.textContent = ` ${count.toLocaleString("en-US")}`;
      sum.hidden = false;
      sum.closest("button").disabled = count === 0;
    };
    boxes.forEach((box) => box.addEventListener("change", tell));
    tell();
  }

  // -- another column is chosen: draw the preview anew; a file that is too large is told before it is sent
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-redraw]");
    if (form) form.requestSubmit();
    const most = Number(event.target.dataset.most);
    if (!most) return;
    const large = [...event.target.files].some((file) => file.size > most);
    document.querySelector("[data-too-large]").hidden = !large;
    event.target.form.querySelector("button[type=submit]").disabled = large;
  });

  // -- live progress
  if (!main || !main.dataset.live) return;
  let stamp = main.dataset.stamp;
  let swappedAt = Date.now();
  let over = false;

  function drawBars(bars) {
    for (const [name, html] of Object.entries(bars)) {
      for (const node of document.querySelectorAll(`[data-bar="${name}"]`)) {
        if (node.innerHTML !== html) node.innerHTML = html;
      }
    }
  }

  // Something moved: take over the parts of the page that may have changed, but none that somebody is in.
  async function swap(seen) {
    swappedAt = Date.now();
    const response = await fetch(location.href, { redirect: "error" });
    if (!response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const node of document.querySelectorAll("[data-swap]")) {
      const other = fresh.getElementById(node.id);
      if (!other || other.innerHTML === node.innerHTML || node.contains(document.activeElement)) continue;
      const opened = [...node.querySelectorAll("details[open]")].map((one) => one.id);
      node.innerHTML = other.innerHTML;
      for (const one of node.querySelectorAll("details")) one.open = opened.includes(one.id);
    }
    const next = fresh.getElementById("main");
    if (next) Object.assign(main.dataset, next.dataset);
    stamp = seen;
    tellTimes();
  }

  async function look() {
    if (document.hidden || over) return;
    try {
      const response = await fetch(main.dataset.live, { headers: { Accept: "application/json" }, redirect: "error" });
      if (response.status === 401) over = true; // signed out: the next click says so
      if (!response.ok) return;
      const seen = await response.json();
      drawBars(seen.bars);
      // Some pages also tell what moves without an event, such as who has been seen.
      const old = main.dataset.every && Date.now() - swappedAt > 1000 * Number(main.dataset.every);
      const moved = old || (stamp !== undefined && String(seen.stamp) !== stamp);
      if (moved && Date.now() - swappedAt > SWAP_EVERY) await swap(String(seen.stamp));
    } catch {
      // The server is away for a moment; the next look tries again.
    }
  }
  async function keepLooking() {
    await look();
    setTimeout(keepLooking, EVERY);
  }
  setTimeout(keepLooking, EVERY);
  document.addEventListener("visibilitychange", () => look());
})();
