// Parts of a page marked data-refresh are fetched again while something on the page is data-active.
// The server renders; this only swaps elements with the same id, keeping what the visitor ticked.
const PAUSE = 2500;

export async function refresh(texts = []) {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) return null;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const old of document.querySelectorAll("[data-refresh][id]")) {
    const fresh = page.getElementById(old.id);
    if (fresh) swap(old, fresh);
  }
  for (const id of texts) {
    const fresh = page.getElementById(id);
    if (fresh) document.getElementById(id).textContent = fresh.textContent;
  }
  return page;
}

function swap(old, fresh) {
  const ticked = new Set([...old.querySelectorAll("input:checked")].map((box) => box.id));
  const open = [...old.querySelectorAll("details")].map((box) => box.open);
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const made = document.adoptNode(fresh);
  for (const box of made.querySelectorAll("input[type=checkbox]")) box.checked = ticked.has(box.id);
  const boxes = [...made.querySelectorAll("details")];
  if (boxes.length === open.length) boxes.forEach((box, at) => { box.open = open[at]; });
  if (made.isEqualNode(old)) return;
  old.replaceWith(made);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  made.dispatchEvent(new Event("refreshed", { bubbles: true }));
}

export function keepFresh() {
  async function look() {
    if (!document.querySelector("[data-active]")) return;
    if (!document.hidden) {
      try {
        await refresh();
      } catch {
        // The hub is away for a moment: look again later.
      }
    }
    setTimeout(look, PAUSE);
  }
  setTimeout(look, PAUSE);
}
