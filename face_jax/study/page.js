"use strict";
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const place = (name) => document.getElementById(name);
  const store = `face_jax study ${content.study}`;
  const sections = ["start", "lesson", "trial", "end"];
  let participant = "", screens = [], at = 0, answers = [], started = "", finished = "";
  let lesson = null, shownAt = 0, chosenAt = 0, changes = 0, ready = false;

  // A stream of random numbers for each participant: the same name gives the same order.
  function stream(text) {
    let hash = 2166136261;
    for (const letter of text) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
    let state = hash >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }
  function shuffled(list, random) {
    const mixed = [...list];
    for (let last = mixed.length - 1; last > 0; last--) {
      const other = Math.floor(random() * (last + 1));
      [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
    }
    return mixed;
  }

  // Blocks keep their order, and lessons stand before their block's trials, which are mixed.
  function planned(name) {
    const random = stream(`${content.study} ${name}`);
    const blocks = [...new Set(content.screens.map((screen) => screen.block))];
    return blocks.flatMap((block) => {
      const inside = content.screens.filter((screen) => screen.block === block);
      const trials = inside.filter((screen) => screen.trial).map((screen) => {
        const order = screen.options.map((_, number) => number);
        const words = screen.options.some((option) => option.label);
        return { ...screen, order: words ? order : shuffled(order, random) };
      });
      return [...inside.filter((screen) => !screen.trial), ...shuffled(trials, random)];
    });
  }

  function make(kind, parent, name, text) {
    const element = document.createElement(kind);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }
  function picture(parent, one, says) {
    const image = make("img", parent);
    image.alt = says || one.says;
    image.src = content.pictures[one.picture];
    return image;
  }

  function show(name) {
    for (const section of sections) place(section).hidden = section !== name;
    const trials = screens.filter((screen) => screen.trial).length;
    place("bar").value = trials ? answers.length / trials : 0;
    place("progress").textContent = name === "trial" ? `Question ${answers.length + 1} of ${trials}` : "";
    window.scrollTo(0, 0);
    const heading = place(name).querySelector("h1");
    if (name !== "start") heading.focus({ preventScroll: true });
  }

  function teach(parent, screen) {
    parent.replaceChildren();
    make("p", parent, "", screen.text);
    const detailed = screen.examples.some((example) => example.details.length);
    const examples = make("div", parent, detailed ? "examples detailed" : "examples");
    for (const example of screen.examples) {
      const figure = make("figure", examples);
      make("figcaption", figure, "", example.decision);
      const inside = make("div", figure, example.details.length ? "details" : "");
      picture(make("div", inside), example.picture, `photograph, seen as ${example.decision}`);
      for (const detail of example.details) {
        const cell = make("div", inside);
        picture(cell, detail);
        make("span", cell, "", detail.says);
      }
    }
    for (const concept of screen.concepts) {
      make("h2", parent, "", concept.label);
      const row = make("div", parent, "concept");
      for (const one of concept.pictures) picture(row, one, `picture of ${concept.label}`);
    }
  }

  async function ask(screen) {
    ready = false;
    chosenAt = 0;
    changes = 0;
    place("question").textContent = screen.question;
    place("next").disabled = true;
    const shown = place("shown");
    shown.replaceChildren();
    shown.className = screen.shown.length === 1 ? "single" : "";
    screen.shown.forEach((one, number) => picture(shown, one, `${one.says} ${number + 1}, shown`));
    const options = place("options");
    options.replaceChildren();
    const single = screen.options.every((option) => option.pictures.length <= 1);
    const pictured = screen.options.some((option) => option.pictures.length);
    options.className = screen.options.length === 2 ? `pair${single && pictured ? " crops" : ""}` : "";
    screen.order.forEach((option, number) => {
      const label = make("label", options, "option");
      const input = make("input", label);
      input.type = "radio";
      input.name = "choice";
      input.value = String(option);
      const head = make("span", label, "head");
      make("span", head, "number", String(number + 1));
      if (screen.options[option].label) make("span", head, "", screen.options[option].label);
      const pictures = screen.options[option].pictures;
      if (pictures.length) {
        const group = make("span", label, pictures.length === 1 ? "group one" : "group");
        pictures.forEach((one, index) =>
          picture(group, one, pictures.length === 1 ? `picture ${number + 1}` : `group ${number + 1}, picture ${index + 1}`));
      }
    });
    place("again").hidden = !lesson;
    place("again").open = false;
    if (lesson) teach(place("again-content"), lesson);
    show("trial");
    const asked = at;
    await Promise.all([...place("answer").querySelectorAll("img")].map((image) => image.decode().catch(() => {})));
    if (asked !== at) return;
    // Time runs from when the pictures can be seen.
    shownAt = performance.now();
    ready = true;
    place("next").disabled = !place("answer").querySelector("input:checked");
  }

  function go() {
    keep();
    if (at >= screens.length) {
      finished = finished || new Date().toISOString();
      keep();
      return show("end");
    }
    const screen = screens[at];
    if (screen.trial) {
      lesson = screens.slice(0, at).findLast((one) => !one.trial && one.block === screen.block) || null;
      return ask(screen);
    }
    teach(place("lesson-content"), screen);
    return show("lesson");
  }

  // Closing the page by accident loses nothing; some browsers keep nothing for files, and then nothing is kept.
  function keep() {
    try {
      localStorage.setItem(store, JSON.stringify({ participant, at, answers, started, finished }));
    } catch { /* the answers are still in the page */ }
  }
  function kept() {
    try {
      return JSON.parse(localStorage.getItem(store));
    } catch {
      return null;
    }
  }
  function begin(name) {
    participant = name;
    screens = planned(name);
    go();
  }

  function choose() {
    if (chosenAt) changes += 1;
    chosenAt = performance.now();
    place("next").disabled = !ready;
  }
  function record() {
    const screen = screens[at];
    const chosen = place("answer").querySelector("input:checked");
    if (!ready || !chosen) return;
    const now = performance.now();
    const seconds = (end) => Math.max(0, Math.round(end - shownAt)) / 1000;
    const choice = Number(chosen.value);
    answers.push({
      trial: screen.trial, position: answers.length + 1, choice, place: screen.order.indexOf(choice) + 1,
      seconds: seconds(now), seconds_to_choice: seconds(chosenAt), changes, time: new Date().toISOString(),
    });
    at += 1;
    go();
  }

  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    const safe = participant.replace(/[^\p{L}\p{N}_-]+/gu, "_");
    link.download = `answers-${content.study}-${safe}.${name}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    place("saved").textContent = `Saved as ${link.download}.`;
    // The next participant at this computer isn't offered to go on as this one.
    try {
      localStorage.removeItem(store);
    } catch { /* nothing was kept */ }
  }
  const columns = ["trial", "position", "choice", "place", "seconds", "seconds_to_choice", "changes", "time"];
  const cell = (value) => /[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value);

  place("who").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = place("participant").value.trim();
    if (!name) return;
    at = 0;
    answers = [];
    started = new Date().toISOString();
    finished = "";
    begin(name);
  });
  place("learned").addEventListener("submit", (event) => {
    event.preventDefault();
    at += 1;
    go();
  });
  place("answer").addEventListener("submit", (event) => {
    event.preventDefault();
    record();
  });
  place("options").addEventListener("change", choose);
  document.addEventListener("keydown", (event) => {
    if (place("trial").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
    const inputs = [...place("options").querySelectorAll("input")];
    const input = /^[1-9]$/.test(event.key) ? inputs[Number(event.key) - 1] : null;
    if (input) {
      input.focus();
      input.click();
      event.preventDefault();
    } else if (event.key === "Enter" && document.activeElement === place("question")) {
      record();
      event.preventDefault();
    }
  });
  place("save-json").addEventListener("click", () => {
    const file = { format: 1, study: content.study, participant, started, finished, answers };
    save("json", "application/json", JSON.stringify(file, null, 1) + "\n");
  });
  place("save-csv").addEventListener("click", () => {
    const rows = answers.map((answer) => [content.study, participant, ...columns.map((name) => answer[name])]);
    const lines = [["study", "participant", ...columns], ...rows].map((row) => row.map(cell).join(","));
    save("csv", "text/csv", lines.join("\r\n") + "\r\n");
  });

  const old = kept();
  if (old && old.participant && old.answers) {
    place("resume").hidden = false;
    place("go-on").textContent = `Go on as ${old.participant}`;
    place("go-on").addEventListener("click", () => {
      ({ at, answers, started, finished } = old);
      begin(old.participant);
    });
  }
})();
