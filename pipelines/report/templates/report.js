"use strict";
document.documentElement.classList.remove("static");
const $ = (id) => document.getElementById(id);
for (const box of document.querySelectorAll("[data-toggle]"))
  box.addEventListener("change", () => document.body.classList.toggle(box.dataset.toggle, box.checked));

const lightbox = (() => {
  const dialog = $("lightbox"), image = $("large");
  let rows = [], row = 0, column = 0;
  function show() {
    const cells = [...rows[row].children], cell = cells[column], source = cell.querySelector("img");
    image.src = source.src; image.alt = source.alt;
    $("shown").textContent = `${cell.dataset.title}, image ${rows[row].dataset.number}`;
    $("shown-note").textContent = `${cell.dataset.note} · ${rows[row].dataset.key.slice(0, 12)}`;
    $("methods").replaceChildren(...cells.map((other, index) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = other.dataset.title;
      button.setAttribute("aria-current", index === column);
      button.addEventListener("click", () => { column = index; show(); $("methods").children[index].focus(); });
      return button;
    }));
  }
  function open(button) {
    rows = [...button.closest(".gallery").querySelectorAll(".row")];
    row = rows.indexOf(button.parentElement); column = [...button.parentElement.children].indexOf(button);
    show(); dialog.showModal(); $("close").focus();
  }
  dialog.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!step) return;
    event.preventDefault();
    const wide = rows[row].children.length;
    row = (row + step[0] + rows.length) % rows.length; column = (column + step[1] + wide) % wide;
    show(); if (!dialog.contains(document.activeElement)) $("close").focus();
  });
  dialog.addEventListener("click", (event) => { if (event.target.classList.contains("stage") || event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => rows[row].children[column].focus());
  $("close").addEventListener("click", () => dialog.close());
  $("smoother").addEventListener("click", (event) => event.target.setAttribute("aria-pressed", image.classList.toggle("smooth")));
  for (const button of document.querySelectorAll(".row button")) button.addEventListener("click", () => open(button));
})();

if ($("comparison")) {
  const rows = [...document.querySelectorAll("#samples .row")], frame = document.querySelector(".compare"), slider = $("slider");
  const source = (title) => rows[$("which").value].querySelector(`[data-title="${CSS.escape(title)}"] img`);
  function show() {
    for (const [side, image] of [["left", frame.querySelector(".over")], ["right", frame.querySelector(".under")]]) {
      const from = source($(side).value);
      image.src = from.src; image.alt = from.alt;
      frame.querySelector(`span.${side}`).textContent = `${$(side).value} · ${from.closest("button").dataset.note.split(" · ").pop()}`;
    }
  }
  function move() { frame.style.setProperty("--at", `${slider.value}%`); slider.setAttribute("aria-valuetext", `${slider.value}% ${$("left").value}`); }
  function turn(by) { $("which").value = (Number($("which").value) + by + rows.length) % rows.length; show(); }
  $("previous").addEventListener("click", () => turn(-1)); $("next").addEventListener("click", () => turn(1));
  for (const id of ["which", "left", "right"]) $(id).addEventListener("change", show);
  slider.addEventListener("input", move); show(); move();
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (line, index) => parseFloat(line.cells[index].dataset.value ?? line.cells[index].textContent.replace("−", "-"));
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button"; button.className = "sort"; button.append(...head.childNodes); head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => (rising ? 1 : -1) * (value(a, index) - value(b, index))));
    });
  });
}