// The two views: the address says which, so that a link and the back button lead there. Without this, both are shown.
(() => {
"use strict";
const views = { duplicates: document.getElementById("duplicates"), history: document.getElementById("history") };
const links = [...document.querySelectorAll(".views a")];
const show = () => {
  const wanted = location.hash === "#history" ? "history" : "duplicates";
  for (const [name, view] of Object.entries(views)) view.hidden = name !== wanted;
  for (const link of links) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
};
addEventListener("hashchange", () => {
  show();
  // The address may name a part of a view, as the link that skips to the groups does.
  if (location.hash === "#groups") document.getElementById("groups").scrollIntoView();
  else scrollTo(0, 0);
});
show();

// What a chart shows at the pointer, or where the arrow keys lead.
const data = JSON.parse(document.getElementById("history-data").textContent);
for (const figure of data ? document.querySelectorAll(".development") : []) {
  const index = Number(figure.dataset.chart);
  const plot = figure.querySelector(".plot");
  const [dot, hair] = [plot.querySelector(".dot"), plot.querySelector(".hair")];
  const [value, when] = figure.querySelectorAll(".reading > *");
  const before = [value.textContent, when.textContent];
  const end = data.x.length - 1;
  let at = end;
  const point = (position) => {
    at = Math.min(Math.max(position, 0), end);
    for (const mark of [dot, hair]) mark.style.left = `${data.x[at]}%`;
    dot.style.bottom = `${data.y[index][at]}%`;
    hair.hidden = false;
    value.textContent = data.values[index][at];
    when.textContent = `${data.at[at].slice(0, 16).replace("T", " ")} UTC`;
  };
  const leave = () => {
    at = end;
    dot.style.left = "100%";
    dot.style.bottom = "var(--last)";
    hair.hidden = true;
    [value.textContent, when.textContent] = before;
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const x = (100 * (event.clientX - box.left)) / box.width;
    // A count holds until the next, so the last one before the pointer is meant.
    let [low, high] = [0, end];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (data.x[middle] <= x) low = middle; else high = middle - 1;
    }
    point(low);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const position = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: end }[event.key];
    if (position === undefined) return;
    event.preventDefault();
    point(position);
    const announcer = document.getElementById("history-announcer");
    announcer.textContent = `${when.textContent}: ${value.textContent}`;
  });
}
})();
