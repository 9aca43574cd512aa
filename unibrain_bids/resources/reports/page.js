"use strict";
// Flicker: two pictures take turns, by button or by themselves.
for (const figure of document.querySelectorAll(".flicker")) {
  const [play, swap] = figure.querySelectorAll("button");
  const say = figure.querySelector("output");
  const captions = [say.textContent, figure.dataset.second];
  let timer = 0;
  const turn = () => {
    const other = figure.classList.toggle("other");
    say.textContent = captions[Number(other)];
  };
  swap.addEventListener("click", turn);
  play.addEventListener("click", () => {
    timer = timer ? (clearInterval(timer), 0) : setInterval(turn, 700);
    play.setAttribute("aria-pressed", String(Boolean(timer)));
    say.setAttribute("aria-live", timer ? "off" : "polite");
  });
}

// Sortable tables; long ones can be filtered.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const value = (row, index) => {
    const cell = row.cells[index];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a.localeCompare(b, undefined, { numeric: true }));
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => compare(value(a, index), value(b, index)) * (down ? -1 : 1));
      body.append(...rows);
    });
  });
  if (body.rows.length < 15) continue;
  const label = document.createElement("label");
  const input = document.createElement("input");
  label.className = "filter";
  input.type = "search";
  label.append("Show rows with", input);
  table.closest(".table").before(label);
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

// What is folded away on screen is open on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
// On a small screen the contents start folded.
if (matchMedia("(max-width: 60rem)").matches) document.querySelector(".contents details").open = false;
