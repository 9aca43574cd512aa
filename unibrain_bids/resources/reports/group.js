"use strict";
// The plots of the group page: one measure by class (dots and boxes), two measures against each other, mean networks.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const element = (parent, name, attributes = {}, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  };
  const shown = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(4)));
  const option = (parent, value, text) => {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    parent.append(made);
  };
  const fill = (select, groups) => {
    for (const [label, names] of groups) {
      const group = document.createElement("optgroup");
      group.label = label;
      for (const name of names) option(group, name, name);
      select.append(group);
    }
  };
  const quantile = (sorted, part) => {
    const at = part * (sorted.length - 1), low = Math.floor(at);
    return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
  };
  // A scale from data to picture, and its round ticks.
  const scale = (values, from, to) => {
    let low = Math.min(...values), high = Math.max(...values);
    if (low === high) { low -= 1; high += 1; }
    const margin = 0.05 * (high - low);
    low -= margin; high += margin;
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
    const ticks = [];
    for (let k = Math.ceil(low / step); k * step <= high; k += 1) ticks.push(k * step);
    return { at: (value) => from + (value - low) / (high - low) * (to - from), ticks };
  };

  const drawMeasures = (plot) => {
    const data = read("group-measures"), [up, across] = plot.querySelectorAll("select");
    const svg = plot.querySelector("svg"), say = plot.querySelector("output");
    option(across, "", data.classes.length > 1 ? `by ${data.column}` : "all scans");
    fill(across, data.groups);
    fill(up, data.groups);
    const classOf = (k) => (data.member.length ? data.member[k] : 0);
    let dots = []; // from the lowest to the highest: the order in which keys visit them
    const draw = () => {
      svg.replaceChildren();
      dots = [];
      const ys = data.values[up.value], xs = across.value ? data.values[across.value] : null;
      const known = data.scans.map((_, k) => k)
        .filter((k) => ys[k] !== null && (xs ? xs[k] !== null : classOf(k) !== null));
      if (!known.length) { say.textContent = "No scan has both values."; return; }
      const y = scale(known.map((k) => ys[k]), 350, 15);
      const x = xs ? scale(known.map((k) => xs[k]), 75, 785) : null;
      for (const tick of y.ticks) {
        element(svg, "line", { x1: 70, x2: 790, y1: y.at(tick), y2: y.at(tick), class: "axis" });
        element(svg, "text", { x: 64, y: y.at(tick) + 4, "text-anchor": "end" }, shown(tick));
      }
      if (x) for (const tick of x.ticks) element(svg, "text", { x: x.at(tick), y: 370, "text-anchor": "middle" }, shown(tick));
      const width = 720 / data.classes.length;
      const middle = (group) => 70 + width * (group + 0.5);
      if (!x) data.classes.forEach((name, group) => {
        element(svg, "text", { x: middle(group), y: 372, "text-anchor": "middle" }, name);
        const sorted = known.filter((k) => classOf(k) === group).map((k) => ys[k]).sort((a, b) => a - b);
        if (sorted.length < 5) return;
        const [q1, q2, q3] = [0.25, 0.5, 0.75].map((part) => y.at(quantile(sorted, part)));
        element(svg, "rect", { x: middle(group) - 60, width: 120, y: q3, height: q1 - q3, class: "box" });
        element(svg, "line", { x1: middle(group) - 60, x2: middle(group) + 60, y1: q2, y2: q2, class: "box" });
      });
      for (const k of known.sort((a, b) => ys[a] - ys[b])) {
        const spread = ((k * 0.618034) % 1 - 0.5) * Math.min(100, width * 0.6);
        const outlying = data.outlier[k].includes(up.value) || (xs && data.outlier[k].includes(across.value));
        const dot = element(svg, "circle", {
          cx: x ? x.at(xs[k]) : middle(classOf(k)) + spread, cy: y.at(ys[k]), r: 4.5, tabindex: -1,
          class: `g${classOf(k) ?? 0}${outlying ? " out" : ""}`,
        });
        const tell = () => {
          const more = xs ? `, ${across.value} ${shown(xs[k])}` : "";
          say.textContent = `${data.scans[k]}: ${up.value} ${shown(ys[k])}${more}${outlying ? " (outlier)" : ""}`;
        };
        dot.addEventListener("pointerenter", tell);
        dot.addEventListener("focus", tell);
        if (data.reports[k]) dot.addEventListener("click", () => { location.href = data.reports[k]; });
        dots.push(dot);
      }
    };
    svg.addEventListener("keydown", (event) => {
      const at = dots.indexOf(document.activeElement);
      const next = dots[at + ({ ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 })[event.key]];
      if (event.key === "Enter" && at >= 0) dots[at].dispatchEvent(new Event("click"));
      if (!next) return;
      event.preventDefault();
      next.focus();
    });
    across.addEventListener("change", draw);
    up.addEventListener("change", draw);
    draw();
  };

  const drawNetworks = (plot) => {
    const data = read("group-networks"), select = plot.querySelector("select");
    const canvas = plot.querySelector("canvas"), say = plot.querySelector("output"), n = data.names.length;
    for (const name of Object.keys(data.edges)) option(select, name, name);
    canvas.width = canvas.height = n;
    const at = (i, j) => {
      if (i === j) return 1;
      const [a, b] = i < j ? [i, j] : [j, i];
      return data.edges[select.value][a * n - a * (a + 1) / 2 + b - a - 1];
    };
    let chosen = null; // row and column
    const draw = () => {
      const context = canvas.getContext("2d"), picture = context.createImageData(n, n);
      for (let k = 0; k < n * n; k += 1) {
        const value = at(Math.floor(k / n), k % n);
        picture.data.set(value === null ? [128, 128, 128, 255]
          : [255 - 224 * value, 255 - 144 * value, 255 - 116 * value, 255], 4 * k);
      }
      context.putImageData(picture, 0, 0);
      if (!chosen) return;
      const [i, j] = chosen, value = at(i, j);
      context.fillStyle = "#d9480f";
      context.fillRect(j, i, 1, 1);
      say.textContent = `${data.names[i]}, ${data.names[j]}: ${value === null ? "n/a" : value}`;
    };
    const choose = (...place) => {
      chosen = place.map((part) => Math.min(n - 1, Math.max(0, Math.floor(part))));
      draw();
    };
    canvas.addEventListener("pointermove", (event) => {
      const frame = canvas.getBoundingClientRect();
      choose((event.clientY - frame.top) / frame.height * n, (event.clientX - frame.left) / frame.width * n);
    });
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    canvas.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      choose(...(chosen ? step.map((by, k) => chosen[k] + by) : [0, 0]));
    });
    select.addEventListener("change", draw);
    draw();
  };

  for (const plot of document.querySelectorAll("[data-plot=measures]")) drawMeasures(plot);
  for (const plot of document.querySelectorAll("[data-plot=networks]")) drawNetworks(plot);
})();
