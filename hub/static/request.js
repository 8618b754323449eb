// What the ticked variants will take, told by the server while the form is filled in.
const PAUSE = 250; // ms that the visitor has been still
const AGAIN = 1500; // ms until a plugin that was slow is asked once more

export function planRequest(form) {
  const line = form.querySelector("#chosen");
  if (!line) return;
  let known = asked(form); // what the plan on the page is of
  let timer = 0;
  let running = null;

  function soon(pause = PAUSE) {
    clearTimeout(timer);
    timer = setTimeout(look, pause);
  }

  async function look(again = false) {
    clearTimeout(timer);
    const now = asked(form);
    if (now === known && !again) return;
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    const plan = form.querySelector("#plan");
    plan.setAttribute("aria-busy", "true");
    try {
      const body = new URLSearchParams(now);
      body.set("show", "part");
      const response = await fetch(form.action, { method: "POST", body, signal });
      if (!response.ok) throw new Error(`${response.status}`);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      if (signal.aborted) return;
      known = now;
      show(plan, page.getElementById("plan"));
    } catch (error) {
      if (signal.aborted) return;
      plan.removeAttribute("aria-busy");
      say(trouble(error.message), true);
    }
  }

  function show(old, fresh) {
    const made = document.adoptNode(fresh);
    const inside = old.contains(document.activeElement);
    old.replaceWith(made);
    if (inside) made.querySelector("#plan-title")?.focus({ preventScroll: true });
    say(made.dataset.sum, "refused" in made.dataset);
    document.getElementById("refused")?.remove(); // the answer to an earlier request
    if ("asking" in made.dataset) {
      known = "";
      soon(AGAIN);
    }
  }

  function say(text, bad) {
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle("bad", bad);
  }

  form.addEventListener("input", () => soon());
  form.addEventListener("refreshed", () => soon());
  form.addEventListener("submit", async (event) => {
    if (event.submitter?.name !== "show") return;
    event.preventDefault();
    await look(true);
    const title = form.querySelector("#plan-title");
    title?.focus({ preventScroll: true });
    title?.scrollIntoView({ block: "center" });
  });
  if (form.querySelector("input[name=variant]:checked") && !form.querySelector("#plan-title")) {
    known = "";
    look(); // a browser that came back kept the ticks
  } else if (form.querySelector("#plan[data-asking]")) {
    known = "";
    soon(AGAIN);
  }
}

function asked(form) {
  return new URLSearchParams(new FormData(form)).toString();
}

function trouble(status) {
  if (status === "401" || status === "403") return "Sign in with a token that may write";
  return "The hub cannot say right now what it will take";
}
