"use strict";
// The browser of examples. All that is shown is placed as text, never as markup; nothing is loaded from anywhere.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const NOTHING = 0, RIGHT = 1, WRONG = 2;
  let shown = data.examples.map((_, place) => place);
  let current = -1;

  const make = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const option = (parent, value, text) => parent.append(make("option", text, { value }));

  // -- filters
  const filters = ["benchmark", "method", "category", "change"].map((name) => $("filter-" + name));
  const fill = () => {
    const [benchmark, method, category, change] = filters;
    for (const name of new Set(data.examples.map((one) => one.benchmark))) option(benchmark, name, name);
    data.methods.forEach((name, number) => option(method, number, name));
    const group = (label, prefix, names) => {
      if (!names.size) return;
      const made = make("optgroup", undefined, { label });
      for (const name of [...names].sort()) option(made, prefix + name, name);
      category.append(made);
    };
    group("in the image", "o:", new Set(data.examples.flatMap((one) => one.objects)));
    group("hallucinated", "w:", new Set(data.examples.flatMap((one) => one.wrong)));
    data.methods.forEach((name, number) => {
      if (name === data.plain || data.plain === null) return;
      for (const kind of data.truth ? ["fixed", "broken", "changed"] : ["changed"]) option(change, `${kind}:${number}`, `${kind} by ${name}`);
    });
    option(change, "error:", "has an error");
    for (const filter of filters) filter.parentElement.hidden = filter.querySelectorAll("option").length < (filter === filters[0] ? 3 : 2);
  };
  const passes = (one) => {
    const [benchmark, , category, change] = filters.map((filter) => filter.value);
    if (benchmark && one.benchmark !== benchmark) return false;
    if (category && !(category[0] === "o" ? one.objects : one.wrong).includes(category.slice(2))) return false;
    if (change === "error:") return one.answers.some((answer) => answer.error !== null);
    if (change) {
      const [kind, number] = change.split(":");
      if (kind === "changed") return one.answers[number].words.some((word) => word.p !== undefined);
      return one[kind].includes(Number(number));
    }
    return true;
  };
  const apply = () => {
    shown = data.examples.map((_, place) => place).filter((place) => passes(data.examples[place]));
    $("count").textContent = `${shown.length} of ${data.examples.length} examples`;
    const list = $("list");
    list.replaceChildren(...shown.map((place) => {
      const one = data.examples[place], item = make("li"), link = make("a", one.id, { href: "#example-" + (place + 1) });
      const names = (numbers) => numbers.map((number) => data.methods[number]).join(", ");
      const notes = [one.fixed.length && "fixed by " + names(one.fixed), one.broken.length && "broken by " + names(one.broken)];
      const said = notes.filter(Boolean).join("; ");
      if (said) link.append(make("br"), make("small", said));
      link.dataset.place = place;
      item.append(link);
      return item;
    }));
    if (shown.length && !shown.includes(current)) show(shown[0], false);
    else mark();
  };

  // -- one example
  const mark = () => {
    for (const link of $("list").querySelectorAll("a")) {
      if (Number(link.dataset.place) === current) {
        link.setAttribute("aria-current", "true");
        const list = $("list"), top = link.offsetTop - list.offsetTop;
        if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - 40) list.scrollTop = top - 60;
      } else link.removeAttribute("aria-current");
    }
    const at = shown.indexOf(current);
    $("previous").disabled = at <= 0;
    $("next").disabled = at < 0 || at >= shown.length - 1;
  };
  const show = (place, jump) => {
    const one = data.examples[place];
    current = place;
    $("viewer-title").textContent = `Example ${place + 1}: ${one.id}`;
    $("permalink").href = "#example-" + (place + 1);
    if (jump) history.replaceState(null, "", "#example-" + (place + 1));
    $("question").textContent = one.question + (one.label ? ` (right: ${one.label})` : "");
    $("there").hidden = !data.truth;
    $("objects").textContent = one.objects.join(", ") || "nothing annotated";
    stage(one);
    texts(one);
    detail(null);
    mark();
  };
  const stage = (one) => {
    const uri = data.images[one.image], boxes = $("boxes");
    $("image").hidden = !uri;
    $("absent").hidden = Boolean(uri);
    if (uri) $("image").src = uri;
    $("image").alt = `Image of ${one.id}` + (data.truth ? `: ${one.objects.join(", ") || "nothing annotated"}` : "");
    boxes.replaceChildren(...one.boxes.flatMap(([category, x, y, width, height]) => {
      const place = { x, y, width, height }, top = svg("rect", place), title = svg("title", {});
      title.textContent = category;
      top.append(title);
      return [svg("rect", { ...place, class: "under" }), top];
    }));
    overlay(null);
    labels();
  };
  // The name of each box at one of its corners, the smallest box first; where no corner is free the box goes without,
  // and the list below the image has its name.
  const labels = () => {
    const one = data.examples[current], holder = $("labels"), placed = [];
    holder.replaceChildren();
    const width = holder.clientWidth, height = holder.clientHeight;
    if (!one || !data.images[one.image] || !width || !height) return;
    for (const [category, x, y, wide, high] of [...one.boxes].sort((a, b) => a[3] * a[4] - b[3] * b[4])) {
      const label = make("span", category);
      holder.append(label);
      const w = label.offsetWidth, h = label.offsetHeight;
      const [left, top, right, bottom] = [x * width, y * height, (x + wide) * width, (y + high) * height].map((at) => at / 1000);
      const corners = [[left, top - h], [left, bottom], [right - w, top - h], [right - w, bottom], [left, top], [right - w, bottom - h]];
      const free = corners.find(([a, b]) => a >= 0 && b >= 0 && a + w <= width && b + h <= height
        && placed.every(([c, d, v, k]) => a + w <= c || c + v <= a || b + h <= d || d + k <= b));
      if (!free) { label.remove(); continue; }
      placed.push([...free, w, h]);
      Object.assign(label.style, { left: free[0] + "px", top: free[1] + "px" });
    }
  };
  const texts = (one) => {
    const only = filters[1].value;
    $("texts").replaceChildren(...one.answers.flatMap((answer, number) => {
      if (only !== "" && Number(only) !== number) return [];
      const part = make("section"), name = data.methods[number];
      part.append(make("h4", name));
      if (answer.error !== null) part.append(make("p", answer.error, { class: "error" }));
      else part.append(text(one, answer, name));
      return [part];
    }));
  };
  const text = (one, answer, name) => {
    const line = make("div", undefined, { class: "text", role: "group", "aria-label": `words of ${name}; arrow keys move` });
    let here = 0;
    answer.words.forEach((word, number) => {
      line.append(answer.text.slice(here, word.s));
      here = word.e;
      const kinds = ["word"], label = [answer.text.slice(word.s, word.e)];
      if (word.k === RIGHT) { kinds.push("right"); label.push("right"); }
      if (word.k === WRONG) { kinds.push("wrong"); label.push(one.label ? "wrong" : "hallucinated"); }
      if (word.p !== undefined) kinds.push("changed");
      const span = make("span", label[0], {
        class: kinds.join(" "), role: "button", tabindex: number ? -1 : 0, "aria-label": label.join(", "),
      });
      const look = () => { choose(line, span); detail({ one, answer, word, number, name }); overlay(answer, number); };
      span.addEventListener("focus", look);
      span.addEventListener("mouseenter", look);
      span.addEventListener("click", () => span.focus());
      line.append(span);
    });
    line.append(answer.text.slice(here));
    line.addEventListener("keydown", (event) => move(event, line));
    return line;
  };
  const choose = (line, span) => {
    for (const old of document.querySelectorAll(".word.chosen")) old.classList.remove("chosen");
    for (const old of line.querySelectorAll('.word[tabindex="0"]')) old.tabIndex = -1;
    span.classList.add("chosen");
    span.tabIndex = 0;
  };
  const move = (event, line) => {
    const words = [...line.querySelectorAll(".word")], at = words.indexOf(document.activeElement);
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: words.length - 1 };
    if (event.key === "Escape") { overlay(null); detail(null); }
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    words[Math.min(Math.max(steps[event.key], 0), words.length - 1)].focus();
  };

  // -- one word
  const detail = (found) => {
    const box = $("detail");
    if (!found) {
      box.replaceChildren(make("p", "Point at a word, tap it, or move to it with the keyboard.", { class: "soft" }));
      return;
    }
    const { one, answer, word, number, name } = found, lines = [];
    const kinds = { [NOTHING]: "", [RIGHT]: one.label ? ": right" : ": in the image", [WRONG]: one.label ? ": wrong" : ": not in the image" };
    const head = make("p");
    head.append(make("b", answer.text.slice(word.s, word.e)), kinds[word.k] + ` (${name})`);
    lines.push(head);
    word.r.forEach((risk, at) => { if (risk !== null) lines.push(make("p", `risk by ${answer.risks[at]}: ${risk.toFixed(3)}`)); });
    if (data.plain !== null && name !== data.plain) {
      const was = word.p === undefined ? "the same word here" : word.p === "" ? "no word here" : `“${word.p}” here`;
      lines.push(make("p", `${data.plain} has ${was}`));
    }
    if (answer.chances && answer.chances[number] !== null) {
      lines.push(make("p", `probability in the model without decoders: ${answer.chances[number].toFixed(3)}`));
    }
    const seen = answer.maps && answer.maps[number];
    lines.push(make("p", seen ? "attention: mean over layers and heads, before the word" : "no attention was read for this word", { class: "soft" }));
    box.replaceChildren(...lines);
  };
  const overlay = (answer, number) => {
    const canvas = $("overlay"), packed = answer && answer.maps && answer.maps[number];
    canvas.hidden = !packed;
    delete canvas.dataset.word;
    if (!packed) return;
    const [rows, columns] = answer.grid, [left, top, right, bottom] = answer.area, bytes = atob(packed);
    // the canvas covers the part of the image that the model sees
    Object.assign(canvas.style, {
      left: 100 * left + "%", top: 100 * top + "%", width: 100 * (right - left) + "%", height: 100 * (bottom - top) + "%",
    });
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows);
    for (let place = 0; place < rows * columns; place += 1) {
      const pair = bytes.charCodeAt(place >> 1), level = (place % 2 ? pair & 15 : pair >> 4) / 15;
      pixels.data.set([217, 0, 120, Math.round(205 * level)], 4 * place);
    }
    context.putImageData(pixels, 0, 0);
    canvas.dataset.word = number;
  };

  // -- the page
  const follow = () => {
    const found = /^#example-(\d+)$/.exec(location.hash), place = found ? Number(found[1]) - 1 : -1;
    if (place < 0 || place >= data.examples.length) return false;
    if (!shown.includes(place)) { for (const filter of filters) filter.value = ""; apply(); }
    show(place, false);
    return true;
  };
  fill();
  $("with-boxes").parentElement.hidden = !data.truth;
  for (const filter of filters) filter.addEventListener("change", () => { apply(); if (current >= 0) show(current, false); });
  $("reset").addEventListener("click", () => { for (const filter of filters) filter.value = ""; apply(); });
  const turn = (step) => { const at = shown.indexOf(current) + step; if (at in shown) show(shown[at], true); };
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("with-boxes").addEventListener("change", (event) => {
    for (const name of ["boxes", "labels"]) $(name).classList.toggle("off", !event.target.checked);
  });
  $("image").addEventListener("load", labels);
  window.addEventListener("resize", labels);
  window.addEventListener("hashchange", () => { if (follow()) $("viewer-title").focus(); });
  apply();
  follow();
})();
